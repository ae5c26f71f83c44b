"""Benchmarks on real data; run them as modules from the repository's root."""

"""Out-of-distribution detection from the score of deep generative models."""

__version__ = "0.1.0"

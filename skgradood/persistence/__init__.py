"""Saving fitted detectors as JSON and plain arrays: loading runs no code from the file."""

from skgradood.persistence._files import load, save

__all__ = ["load", "save"]

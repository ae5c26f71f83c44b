"""The command ``skgradood``: demo, fit, score."""

from skgradood.cli._main import main

__all__ = ["main"]

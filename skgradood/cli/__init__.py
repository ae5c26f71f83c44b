"""The command ``skgradood``: demo, fit, score, report."""

from skgradood.cli._main import main

__all__ = ["main"]

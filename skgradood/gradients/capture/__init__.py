"""Capture: per-sample gradients at the cost of an ordinary backward pass.

A torch function mode watches the functions that run and cuts the graph where a parameter, or
anything computed from parameters alone, first meets data.
"""

from skgradood.gradients.capture.strategy import CaptureStrategy

__all__ = ["CaptureStrategy"]

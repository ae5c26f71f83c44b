"""Gated PixelCNN and its parts."""

from skgradood.models.pixel_cnn.pixel_cnn import PixelCNN

__all__ = ["PixelCNN"]

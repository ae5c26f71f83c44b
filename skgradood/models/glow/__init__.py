"""Glow and its parts."""

from skgradood.models.glow.glow import Glow

__all__ = ["Glow"]

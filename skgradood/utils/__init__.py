"""Small helpers that every room of the package may use."""

from skgradood.utils.groups import make_groups

__all__ = ["make_groups"]

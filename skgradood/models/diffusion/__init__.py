"""Gaussian diffusion and its parts."""

from skgradood.models.diffusion.gaussian_diffusion import GaussianDiffusion

__all__ = ["GaussianDiffusion"]

"""Bundled data, perturbations, and loaders for local images and tables."""

from skgradood.datasets._colour import rgb_to_hsv
from skgradood.datasets._digits import load_digits_ood
from skgradood.datasets._fourier import mix_fourier
from skgradood.datasets._load import load_images
from skgradood.datasets._perturb import PERTURBATIONS, perturb

__all__ = [
    "PERTURBATIONS",
    "load_digits_ood",
    "load_images",
    "mix_fourier",
    "perturb",
    "rgb_to_hsv",
]

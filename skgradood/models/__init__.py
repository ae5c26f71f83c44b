"""Generative models: the estimator that trains them, and the modules."""

from skgradood.models.diffusion import GaussianDiffusion
from skgradood.models.gaussian import DiagonalGaussian
from skgradood.models.generative_net import GenerativeNet
from skgradood.models.glow import Glow
from skgradood.models.linear_flow import LinearFlow
from skgradood.models.neural_spline_flow import NeuralSplineFlow
from skgradood.models.pixel_cnn import PixelCNN
from skgradood.models.pixel_difference import PixelDifferenceModel
from skgradood.models.real_nvp import RealNVP
from skgradood.models.vae import VAE

__all__ = [
    "VAE",
    "DiagonalGaussian",
    "GaussianDiffusion",
    "GenerativeNet",
    "Glow",
    "LinearFlow",
    "NeuralSplineFlow",
    "PixelCNN",
    "PixelDifferenceModel",
    "RealNVP",
]

"""From samples to features: what a likelihood model says about each of them."""

from skgradood.features._gradient_norms import GradientNormTransformer

__all__ = ["GradientNormTransformer"]

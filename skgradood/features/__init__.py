"""From samples to features: what a likelihood model says about each of them."""

from skgradood.features._fisher import FisherPreconditioner
from skgradood.features._gradient_angle import GradientAngleTransformer
from skgradood.features._gradient_norms import GradientNormTransformer
from skgradood.features._log_likelihood import LogLikelihoodTransformer

__all__ = [
    "FisherPreconditioner",
    "GradientAngleTransformer",
    "GradientNormTransformer",
    "LogLikelihoodTransformer",
]

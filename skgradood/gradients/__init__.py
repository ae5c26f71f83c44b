"""The engine: per-sample gradients of a log-likelihood, layer by layer. Torch only."""

from skgradood.gradients.engine import ENGINES, GradientEngine
from skgradood.gradients.errors import EngineWarning, StrategyRefused
from skgradood.gradients.layer_gradient import LayerGradient
from skgradood.gradients.layers import LAYERS, layer_layout, layer_names
from skgradood.gradients.likelihood import LogLikelihood
from skgradood.gradients.norms import layer_gradient_norms, per_sample_gradients
from skgradood.gradients.reducers import Reducer, SquaredNorms

__all__ = [
    "ENGINES",
    "LAYERS",
    "EngineWarning",
    "GradientEngine",
    "LayerGradient",
    "LogLikelihood",
    "Reducer",
    "SquaredNorms",
    "StrategyRefused",
    "layer_gradient_norms",
    "layer_layout",
    "layer_names",
    "per_sample_gradients",
]

"""Out-of-distribution detection from the score of deep generative models.

An input that a generative model does not understand pulls its parameters in an unusual way. This
package measures the gradient of the log-likelihood with respect to every layer, for every sample,
and models those measurements jointly, as scikit-learn estimators.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skgradood.detectors import (
        ChiSquareJointDensity,
        CombinedDetector,
        ConformalDetector,
        FisherMMDDetector,
        LikelihoodRatioDetector,
        LikelihoodRegretDetector,
        LogLikelihoodDetector,
        RandomNetworkDistillationDetector,
        RoseDetector,
        ScoreTestDetector,
        SteinDiscrepancyDetector,
        TypicalityDetector,
        WaicDetector,
    )
    from skgradood.features import (
        FisherPreconditioner,
        GradientAngleTransformer,
        GradientNormTransformer,
        LogLikelihoodTransformer,
    )
    from skgradood.gradients import layer_gradient_norms, layer_names
    from skgradood.models import GenerativeNet
    from skgradood.pipeline import make_detector

__version__ = "0.1.0"

__all__ = [
    "ChiSquareJointDensity",
    "CombinedDetector",
    "ConformalDetector",
    "FisherMMDDetector",
    "FisherPreconditioner",
    "GenerativeNet",
    "GradientAngleTransformer",
    "GradientNormTransformer",
    "LikelihoodRatioDetector",
    "LikelihoodRegretDetector",
    "LogLikelihoodDetector",
    "LogLikelihoodTransformer",
    "RandomNetworkDistillationDetector",
    "RoseDetector",
    "ScoreTestDetector",
    "SteinDiscrepancyDetector",
    "TypicalityDetector",
    "WaicDetector",
    "__version__",
    "layer_gradient_norms",
    "layer_names",
    "make_detector",
]

# Names are imported when they are first asked for, so that a part of the package costs no more
# than itself: the engine needs torch alone, the metrics scikit-learn alone.
_HOMES = {
    "ChiSquareJointDensity": "skgradood.detectors",
    "CombinedDetector": "skgradood.detectors",
    "ConformalDetector": "skgradood.detectors",
    "FisherMMDDetector": "skgradood.detectors",
    "FisherPreconditioner": "skgradood.features",
    "GenerativeNet": "skgradood.models",
    "GradientAngleTransformer": "skgradood.features",
    "GradientNormTransformer": "skgradood.features",
    "LikelihoodRatioDetector": "skgradood.detectors",
    "LikelihoodRegretDetector": "skgradood.detectors",
    "LogLikelihoodDetector": "skgradood.detectors",
    "LogLikelihoodTransformer": "skgradood.features",
    "RandomNetworkDistillationDetector": "skgradood.detectors",
    "RoseDetector": "skgradood.detectors",
    "ScoreTestDetector": "skgradood.detectors",
    "SteinDiscrepancyDetector": "skgradood.detectors",
    "TypicalityDetector": "skgradood.detectors",
    "WaicDetector": "skgradood.detectors",
    "layer_gradient_norms": "skgradood.gradients",
    "layer_names": "skgradood.gradients",
    "make_detector": "skgradood.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

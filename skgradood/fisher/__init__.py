"""Fisher information of every layer: sums over samples in, quadratic forms out. Torch only."""

from skgradood.fisher.approximation import (
    AUTO_DAMPING,
    BASES,
    DAMPING_SCALES,
    Approximation,
    FisherOptions,
)
from skgradood.fisher.estimate import APPROXIMATIONS, FisherEstimate, kinds_of
from skgradood.fisher.reducers import FisherSums, QuadraticForms

__all__ = [
    "APPROXIMATIONS",
    "AUTO_DAMPING",
    "BASES",
    "DAMPING_SCALES",
    "Approximation",
    "FisherEstimate",
    "FisherOptions",
    "FisherSums",
    "QuadraticForms",
    "kinds_of",
]

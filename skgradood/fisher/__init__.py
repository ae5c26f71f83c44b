"""Fisher information of every layer: sums over samples in, quadratic forms out. Torch only."""

from skgradood.fisher.approximation import BASES, DAMPING_SCALES, Approximation, FisherOptions
from skgradood.fisher.diagonal import Diagonal, Identity
from skgradood.fisher.estimate import APPROXIMATIONS, FisherEstimate
from skgradood.fisher.kronecker import EKFAC, KFAC, Block
from skgradood.fisher.reducers import FisherSums, QuadraticForms
from skgradood.fisher.sketch import Sketch

__all__ = [
    "APPROXIMATIONS",
    "BASES",
    "DAMPING_SCALES",
    "EKFAC",
    "KFAC",
    "Approximation",
    "Block",
    "Diagonal",
    "FisherEstimate",
    "FisherOptions",
    "FisherSums",
    "Identity",
    "QuadraticForms",
    "Sketch",
]

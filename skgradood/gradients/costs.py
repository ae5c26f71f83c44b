"""What work on gradients costs, in multiplications of large matrices that take as long.

Measured on two cores; only ratios matter, and only for speed. A choice by them goes by shapes, so
that results do not change from run to run by rounding, as they would if ways were timed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# A number copied into the patches under a kernel.
COPIED = 64.0
# A number of a gradient, or of its rotation, written and read again.
WRITTEN = 33.0
# A coordinate squared, weighed and added up while it is in the cache.
SQUARED = 15.0


class ReadingCosts(NamedTuple):
    """What a reader takes for one sample: from the factors of its gradient, or formed already."""

    by_factors: float
    formed: float


def read_factors(forming: float, readers: Sequence[ReadingCosts]) -> list[bool]:
    """Which readers of a gradient had best read its factors.

    Parameters
    ----------
    forming : float
        What it costs to form the gradient, once for all who read it formed.
    readers : sequence of ReadingCosts
        Infinite, where a reader cannot.

    Returns
    -------
    list of bool
        In the order of the readers; the others read the gradient formed.
    """
    if sum(costs.by_factors for costs in readers) <= forming + sum(map(min, readers)):
        return [math.isfinite(costs.by_factors) for costs in readers]
    return [costs.by_factors < costs.formed for costs in readers]

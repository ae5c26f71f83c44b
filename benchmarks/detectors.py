"""Tables of features for the out-of-distribution benchmark, and what is fitted on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.preprocessing import FunctionTransformer

from skgradood import RoseDetector, ScoreTestDetector
from skgradood.baselines import RECOMMENDED, baseline_detectors
from skgradood.detectors import on_columns


@dataclass(frozen=True)
class Table:
    """Which statistics make the columns; of the score, or of the control's wrong objective."""

    name: str
    approximation: tuple[str, ...]
    power: float
    is_control: bool = False


RECOMMENDED_TABLE = Table("natural", ("identity", "ekfac"), 2.0)
PAPERS_TABLE = Table("fisher", ("diagonal", "ekfac"), 1.0)
CONTROL_TABLE = Table("control", ("identity", "ekfac"), 2.0, is_control=True)
# ROSE normalises the statistics themselves, and the tables hold logarithms.
_EXP = FunctionTransformer(np.exp)


def paper_detectors(names: Sequence[str]) -> dict[str, Any]:
    """ROSE, by diagonal and by EKFAC, and the plain score test, on `PAPERS_TABLE`."""
    diagonal, ekfac = (
        [k for k, name in enumerate(names) if name.endswith(f"__{kind}")]
        for kind in PAPERS_TABLE.approximation
    )
    return {
        "ROSE (diagonal)": on_columns(diagonal, _EXP, RoseDetector()),
        "ROSE (EKFAC)": on_columns(ekfac, _EXP, RoseDetector()),
        "score test (EKFAC)": on_columns(ekfac, ScoreTestDetector(input="log")),
    }


def control_detectors(names: Sequence[str], *, random_state: int) -> dict[str, Any]:
    """The recommended detector where gradients are of something that is no likelihood."""
    detectors = baseline_detectors(names, random_state=random_state)
    return {"wrong objective (control)": detectors[RECOMMENDED]}

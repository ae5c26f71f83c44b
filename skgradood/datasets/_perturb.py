"""``perturb``: damaged copies of images, as out-of-distribution data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from skgradood.datasets import _perturbations as functions
from skgradood.datasets._layout import grid_images, in_layout_of, to_grid


class Perturbation(NamedTuple):
    """A perturbation and the severity it has unless told (None: it takes no severity)."""

    function: Callable[..., np.ndarray]
    severity: float | None


PERTURBATIONS: dict[str, Perturbation] = {
    "noise": Perturbation(functions.uniform_noise, None),
    "constant": Perturbation(functions.constant, None),
    "gaussian_noise": Perturbation(functions.gaussian_noise, 50.0),
    "inversion": Perturbation(functions.inversion, None),
    "brightness": Perturbation(functions.brightness, 0.5),
    "contrast": Perturbation(functions.contrast, 0.5),
    "rotation": Perturbation(functions.rotation, 90.0),
    "mirror": Perturbation(functions.mirror, None),
    "gaussian_blur": Perturbation(functions.gaussian_blur, 1.0),
    "dct_blur": Perturbation(functions.dct_blur, 0.5),
    "svd_blur": Perturbation(functions.svd_blur, 0.75),
    "fourier_amplitude": Perturbation(functions.fourier_amplitude, 1.0),
    "fourier_phase": Perturbation(functions.fourier_phase, 1.0),
    "pixel_shuffle": Perturbation(functions.pixel_shuffle, None),
}


def perturb(
    X: Any, kind: str, *, severity: float | None = None, random_state: Any = None
) -> np.ndarray:
    """Perturb images; shape, layout and dtype stay.

    Parameters
    ----------
    X : array-like of shape (n, H, W), (n, C, H, W) or (n, H, W, C), uint8
        Images with values 0...255. They are not changed.
    kind : str
        =================== ============================================== =====================
        kind                what becomes of an image                       severity (default)
        =================== ============================================== =====================
        "noise"             uniform noise, nothing of the image left       none
        "constant"          one random grey or colour                      none
        "gaussian_noise"    Gaussian noise is added                        its std, 0...255 (50)
        "inversion"         255 - x                                        none
        "brightness"        multiplied by the severity                     factor (0.5)
        "contrast"          contracted to its mean                         factor (0.5)
        "rotation"          turned counter-clockwise                       degrees (90)
        "mirror"            left and right exchanged                       none
        "gaussian_blur"     Gaussian filter                                std in pixels (1)
        "dct_blur"          high cosine frequencies removed                share removed (0.5)
        "svd_blur"          small singular values removed                  share removed (0.75)
        "fourier_amplitude" amplitude of another image, own phase          share mixed in (1)
        "fourier_phase"     phase of another image, own amplitude          share mixed in (1)
        "pixel_shuffle"     pixels change places at random                 none
        =================== ============================================== =====================

        The two blurs by DCT and SVD are those of [1]_.
    severity : float, optional
        How strong, in the unit of the table.
    random_state : int, RandomState or None, default=None
        The seed of everything random.

    Returns
    -------
    ndarray of the shape of X, uint8
        Rounded and clipped to 0...255.

    Raises
    ------
    ValueError
        For an unknown kind, a severity out of range or given to a kind that has none, and X that
        is not images of uint8.

    References
    ----------
    .. [1] Choi and Chung, "Novelty Detection Via Blurring", ICLR 2020.
    """
    if kind not in PERTURBATIONS:
        raise ValueError(f"unknown kind {kind!r}; expected one of {', '.join(PERTURBATIONS)}")
    options = _severity_option(kind, severity)
    images = grid_images(X, caller="perturb")
    rng = check_random_state(random_state)
    changed = PERTURBATIONS[kind].function(images.astype(np.float64), rng, **options)
    return in_layout_of(X, to_grid(changed))


def _severity_option(kind: str, severity: float | None) -> dict[str, float]:
    default = PERTURBATIONS[kind].severity
    if default is None:
        if severity is not None:
            raise ValueError(f"the perturbation {kind!r} takes no severity; got {severity!r}")
        return {}
    chosen = default if severity is None else float(severity)
    if not math.isfinite(chosen):
        raise ValueError(f"severity must be a finite number; got {chosen}")
    return {"severity": chosen}

"""Random mutations of training samples, from which a background model learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def mutate(
    samples: np.ndarray, perturbation: str, rate: float, rng: np.random.RandomState
) -> np.ndarray:
    """Replace a share of all values, drawn independently, by random ones.

    Parameters
    ----------
    samples : ndarray of shape (n, ...)
        Images or rows.
    perturbation : {"replace", "add_mod_256"}
        A key of `PERTURBATIONS`.
    rate : float in [0, 1]
        Probability with which a value is mutated, mu in the paper.
    rng : RandomState
        Source of the randomness.

    Returns
    -------
    ndarray of the same shape and dtype

    Raises
    ------
    ValueError
        If the perturbation needs values 0...255 and the samples hold others.
    """
    replacements = PERTURBATIONS[perturbation](samples, rng)
    is_mutated = rng.random_sample(samples.shape) < rate
    return np.where(is_mutated, replacements, samples)


def _others(samples: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """For bytes any of the 255 other values; else the same place's value in a random sample."""
    if samples.dtype == np.uint8:
        return samples + rng.randint(1, 256, size=samples.shape).astype(np.uint8)
    donors = rng.randint(len(samples), size=samples.shape)
    return np.take_along_axis(samples, donors, axis=0)


def _shifted(samples: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    if samples.dtype != np.uint8:
        raise ValueError(
            'perturbation="add_mod_256" needs values 0...255 of dtype uint8, but X has dtype '
            f'{samples.dtype}; use perturbation="replace" for rows of numbers.'
        )
    # Bytes wrap around by themselves.
    return samples + rng.randint(0, 256, size=samples.shape).astype(np.uint8)


PERTURBATIONS: dict[str, Callable[[np.ndarray, np.random.RandomState], np.ndarray]] = {
    "replace": _others,
    "add_mod_256": _shifted,
}

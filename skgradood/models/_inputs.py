"""From checked samples to the tensor that a module takes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Of a column's standard deviation; a smaller rounding error is small beside the training noise.
_NOTICEABLE = 0.1
# From here over the fit of GenerativeNet and scikit-learn's wrapper of it to the user's line.
_TO_THE_USER = 6


def parameter_dtype(module: nn.Module) -> torch.dtype:
    """The floating dtype that a module computes in."""
    tensors = [*module.parameters(), *module.buffers()]
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def check_input_kind(samples: np.ndarray, module: Any, *, name: str = "X") -> None:
    """Refuse samples that a model of images cannot take.

    Parameters
    ----------
    samples : ndarray of shape (n, d) or (n, C, H, W)
        As `skgradood.utils.validation.check_samples` returns them.
    module : nn.Module or type
        Declares ``input_kind``: ``"image"`` takes uint8 images only.
    name : str, default="X"
        What error messages call the samples.

    Raises
    ------
    ValueError
        If a model of images gets rows, or values that are not uint8.
    """
    if getattr(module, "input_kind", None) != "image":
        return
    model = module.__name__ if isinstance(module, type) else type(module).__name__
    if samples.ndim != 4:
        raise ValueError(
            f"{model} is a model of images, but {name} holds rows, of shape {samples.shape}. Pass "
            "images (n, H, W), (n, C, H, W) or (n, H, W, C), or say what the rows are with "
            "module__input_shape=(C, H, W)."
        )
    if samples.dtype != np.uint8:
        if _on_the_grid(samples):
            raise ValueError(
                f"{model} takes images of dtype uint8, but {name} holds their values 0...255 in "
                "another dtype. Convert it: X.astype(np.uint8)."
            )
        raise ValueError(
            f"{model} takes images of dtype uint8 with values 0...255, but {name} has dtype "
            f"{samples.dtype}. Convert it: for values in [0, 1], "
            "(255 * X).round().astype(np.uint8)."
        )


def _on_the_grid(samples: np.ndarray) -> bool:
    """Whether these are whole numbers 0...255, and not a picture of 0 and 1 alone."""
    low, high = samples.min(), samples.max()
    return low >= 0 and 1 < high <= 255 and np.array_equal(samples, np.rint(samples))


def as_module_input(samples: np.ndarray, module: nn.Module, *, name: str = "X") -> Tensor:
    """Samples as a CPU tensor of the kind that a module declares in ``input_kind``.

    Parameters
    ----------
    samples : ndarray of shape (n, d) or (n, C, H, W)
        As `skgradood.utils.validation.check_samples` returns them.
    module : nn.Module
        A model of images gets uint8 as it is, and so does a module that declares nothing and
        is given uint8 images; every other one gets its own floating dtype.
    name : str, default="X"
        What error messages call the samples.

    Returns
    -------
    Tensor of shape (n, ...)

    Raises
    ------
    ValueError
        As `check_input_kind`.
    """
    check_input_kind(samples, module, name=name)
    if any(stride < 0 for stride in samples.strides):  # torch reads no array backwards
        samples = samples.copy()
    kind = getattr(module, "input_kind", None)
    is_image = samples.ndim == 4 and samples.dtype == np.uint8
    if kind == "image" or (kind is None and is_image):
        # torch warns of memory that it must not write to, such as a read-only memory map.
        return torch.from_numpy(np.require(samples, requirements=["C", "W"]))
    return torch.tensor(samples, dtype=parameter_dtype(module))


def warn_of_lost_digits(samples: np.ndarray, inputs: Tensor) -> None:
    """Warn of columns whose differences a module's dtype cannot hold, such as times in seconds.

    Parameters
    ----------
    samples : ndarray of shape (n, d) or (n, C, H, W)
        Before the conversion; only rows are looked at.
    inputs : Tensor of the same shape
        After it, on the CPU.
    """
    if samples.ndim != 2 or inputs.dtype.itemsize >= samples.dtype.itemsize:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        rounding = np.abs(samples - inputs.numpy()).max(axis=0)
        moved = rounding > _NOTICEABLE * samples.std(axis=0)
        lost = np.flatnonzero(moved & (np.ptp(samples, axis=0) > 0))
    if len(lost):
        warnings.warn(
            f"rounding to {str(inputs.dtype).removeprefix('torch.')} moves values of "
            f"{len(lost)} columns, among them number {lost[0]}, by more than a tenth of the "
            "column's standard deviation. Standardise the columns before, for instance by "
            'StandardScaler, or use dtype="float64".',
            UserWarning,
            stacklevel=_TO_THE_USER,
        )

"""From checked samples to the tensor that a module takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def parameter_dtype(module: nn.Module) -> torch.dtype:
    """The floating dtype that a module computes in."""
    tensors = [*module.parameters(), *module.buffers()]
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def check_input_kind(samples: np.ndarray, module: Any, *, name: str = "X") -> None:
    """Refuse samples that a model of images, or of tokens, cannot take.

    Parameters
    ----------
    samples : ndarray of shape (n, d) or (n, C, H, W)
        As `skgradood.utils.validation.check_samples` returns them.
    module : nn.Module or type
        Declares ``input_kind``: ``"image"`` takes uint8 images only, ``"tokens"`` whole numbers
        that are not negative.
    name : str, default="X"
        What error messages call the samples.

    Raises
    ------
    ValueError
        If a model of images gets rows, or values that are not uint8, or a model of tokens what
        is none.
    """
    check = _CHECKS.get(getattr(module, "input_kind", None))
    if check is not None:
        check(samples, module.__name__ if isinstance(module, type) else type(module).__name__, name)


def _check_images(samples: np.ndarray, model: str, name: str) -> None:
    if samples.ndim != 4:
        raise ValueError(
            f"{model} is a model of images, but {name} holds rows, of shape {samples.shape}. Pass "
            "images (n, H, W), (n, C, H, W) or (n, H, W, C), or say what the rows are with "
            "module__input_shape=(C, H, W)."
        )
    if samples.dtype != np.uint8:
        low, high = samples.min(), samples.max()
        # Pictures of 0 and 1 alone may be on either grid.
        if low >= 0 and 1 < high <= 255 and np.array_equal(samples, np.rint(samples)):
            raise ValueError(
                f"{model} takes images of dtype uint8, but {name} holds their values 0...255 in "
                "another dtype. Convert it: X.astype(np.uint8)."
            )
        raise ValueError(
            f"{model} takes images of dtype uint8 with values 0...255, but {name} has dtype "
            f"{samples.dtype}. Convert it: for values in [0, 1], "
            "(255 * X).round().astype(np.uint8)."
        )


def _check_tokens(samples: np.ndarray, model: str, name: str) -> None:
    others = (samples < 0) | (samples % 1 != 0)
    if others.any():
        place = np.unravel_index(np.argmax(others), samples.shape)
        raise ValueError(
            f"{model} takes tokens, whole numbers from 0, but row {place[0]} of {name} holds "
            f"{samples[place]}. Map what is counted otherwise to 0, 1, 2, ..."
        )


_CHECKS: dict[Any, Callable[[np.ndarray, str, str], None]] = {
    "image": _check_images,
    "tokens": _check_tokens,
}


def as_module_input(samples: np.ndarray, module: nn.Module, *, name: str = "X") -> Tensor:
    """Samples as a CPU tensor of the kind that a module declares in ``input_kind``.

    Parameters
    ----------
    samples : ndarray of shape (n, d) or (n, C, H, W)
        As `skgradood.utils.validation.check_samples` returns them.
    module : nn.Module
        A model of images gets uint8 as it is, and so does a module that declares nothing and
        is given uint8 images; a model of tokens gets int64, every other one its own floating
        dtype.
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
    dtype = torch.int64 if kind == "tokens" else parameter_dtype(module)
    return torch.tensor(samples, dtype=dtype)

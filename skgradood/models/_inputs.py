"""From checked samples to the tensor that a module takes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def parameter_dtype(module: nn.Module) -> torch.dtype:
    """The floating dtype that a module computes in."""
    tensors = [*module.parameters(), *module.buffers()]
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def as_module_input(samples: np.ndarray, module: nn.Module, *, name: str = "X") -> Tensor:
    """Samples as a CPU tensor of the kind that a module declares in ``input_kind``.

    Parameters
    ----------
    samples : ndarray of shape (n, d) or (n, C, H, W)
        As `skgradood.utils.validation.check_samples` returns them.
    module : nn.Module
        ``input_kind = "image"`` takes uint8 images only; ``"continuous"`` gets the module's own
        floating dtype. A module that declares nothing gets images of uint8 as they are.
    name : str, default="X"
        What error messages call the samples.

    Returns
    -------
    Tensor of shape (n, ...)

    Raises
    ------
    ValueError
        If a model of images gets rows, or values that are not uint8.
    """
    kind = getattr(module, "input_kind", None)
    if kind == "image":
        _check_images(samples, type(module).__name__, name)
    is_image = samples.ndim == 4 and samples.dtype == np.uint8
    if kind == "image" or (kind is None and is_image):
        return torch.from_numpy(np.require(samples, requirements=["C", "W"]))
    return torch.as_tensor(samples.astype(_NUMPY_DTYPES[parameter_dtype(module)]))


_NUMPY_DTYPES = {torch.float64: np.float64, torch.float32: np.float32}


def _check_images(samples: np.ndarray, model: str, name: str) -> None:
    if samples.ndim != 4:
        raise ValueError(
            f"{model} is a model of images, but {name} holds rows, of shape {samples.shape}. Pass "
            "images (n, H, W), (n, C, H, W) or (n, H, W, C), or say what the rows are with "
            "module__input_shape=(C, H, W)."
        )
    if samples.dtype != np.uint8:
        raise ValueError(
            f"{model} takes images of dtype uint8 with values 0...255, but {name} has dtype "
            f"{samples.dtype}. Convert it: for values in [0, 1], "
            "(255 * X).round().astype(np.uint8)."
        )

"""The engine's entry points for torch users."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.gradients.engine import GradientEngine
from skgradood.gradients.layers import Layers, layer_layout
from skgradood.gradients.likelihood import LogLikelihoodFunction
from skgradood.gradients.reducers import Reducer, SquaredNorms


def layer_gradient_norms(
    module: nn.Module,
    X: Tensor | np.ndarray | Any,
    *,
    log_likelihood: str | LogLikelihoodFunction = "log_prob",
    layers: Layers = "parameter",
    engine: str = "auto",
    batch_size: int | str = "auto",
    verify: bool = True,
    device: str | torch.device | None = None,
    random_state: int | None = None,
    grouped: bool = False,
    autocast: str | None = None,
) -> np.ndarray:
    """Squared norm of each layer's log-likelihood gradient, for every sample.

    f_l(x) = ‖∂ log p(x) / ∂θ_l‖², the features of Dauncey et al. (ICLR workshop 2023; TMLR 2024).

    Parameters
    ----------
    module : nn.Module
        The model; evaluated in ``eval()`` and left bit for bit as it was.
    X : Tensor or array-like of shape (n, ...)
        Samples in the form and dtype that the module takes.
    log_likelihood : str or callable, default="log_prob"
        The name of a method ``(X) -> (n,)`` of the module (it may take ``generator=``), or a
        callable ``(module, X, generator) -> (n,)``; in nats, one value a sample.
    layers : str, re.Pattern, callable or dict, default="parameter"
        What is one layer: "parameter" (a tensor), "module" (a module's own tensors together) or
        "channel" (an output channel of a tensor); a regular expression, whose distinct matches
        in the parameters' names are the layers, compiled or as ``"regex:<expression>"``; a
        callable ``(name, parameter) -> str or None``; or a dict of layers' names to lists of
        parameters' names. See :func:`skgradood.gradients.layer_layout`. Parameters that are in
        no layer, or do not require grad, are left out.
    engine : {"auto", "capture", "func", "loop"}, default="auto"
        How gradients are computed. "auto" tries these in order of speed and says when it has to
        fall back.
    batch_size : int or "auto", default="auto"
        Rows a pass; "auto" chooses by the memory that a row needs and the device has, and results
        depend on it by rounding alone. Halved when memory runs out.
    verify : bool, default=True
        Run two rows of the first batch alone, and fall back unless they agree; look again at every
        batch, where a model picks rows by what several of them say, or by their places.
    device : str, torch.device or None, default=None
        Where to compute. None: where the module is.
    random_state : int or None, default=None
        Seed of whatever noise the log-likelihood draws. Each row draws from a generator seeded
        by its own content, so that its result does not depend on its neighbours.
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...). A row's features are then the squared norms
        of the gradient summed over its B samples, at the cost of B samples.
    autocast : {None, "bfloat16", "float16"}, default=None
        Compute the log-likelihood under ``torch.autocast``. Norms then are off by a few times
        the precision, 8e-3 and 1e-3 (measured in the documentation's page on the engine), and
        gradients beyond 65504 are infinite in float16. Squares are summed in float64 all the same.

    Returns
    -------
    ndarray of shape (n, L), float64
        Squared norms, in nats² over squared parameter units. The columns are named by
        :func:`layer_names`.

    Raises
    ------
    TypeError
        If the module has no such log-likelihood, or it does not return one value a sample.
    ValueError
        If X is empty, an option is unknown, or no parameter influences the log-likelihood.
    """
    layout = layer_layout(module, layers)
    reducer = SquaredNorms(layout)
    per_sample_gradients(
        module,
        X,
        reducer,
        log_likelihood=log_likelihood,
        engine=engine,
        batch_size=batch_size,
        verify=verify,
        device=device,
        random_state=random_state,
        grouped=grouped,
        autocast=autocast,
        parameters=layout.slots,
    )
    return reducer.result()


def per_sample_gradients(
    module: nn.Module,
    X: Tensor | np.ndarray | Any,
    reducer: Reducer,
    *,
    log_likelihood: str | LogLikelihoodFunction = "log_prob",
    engine: str = "auto",
    batch_size: int | str = "auto",
    verify: bool = True,
    device: str | torch.device | None = None,
    random_state: int | None = None,
    grouped: bool = False,
    autocast: str | None = None,
    parameters: Collection[str] | None = None,
) -> np.ndarray:
    """Stream every layer's per-sample gradients through a reducer.

    Parameters
    ----------
    module, X, log_likelihood, engine, batch_size, verify, device, random_state, grouped, autocast
        See :func:`layer_gradient_norms`.
    reducer : Reducer
        Receives a ``LayerGradient`` for each parameter tensor while the backward pass runs.
    parameters : collection of str or None, default=None
        Names of the parameters whose gradients are wanted; nothing is computed for the others.
        None: all that require grad.

    Returns
    -------
    ndarray of shape (n,), float64
        Log-likelihoods in nats.
    """
    samples = torch.as_tensor(X)
    if samples.ndim == 0 or len(samples) == 0:
        raise ValueError(f"X must hold at least one sample; got shape {tuple(samples.shape)}")
    gradient_engine = GradientEngine(
        module,
        log_likelihood=log_likelihood,
        engine=engine,
        batch_size=batch_size,
        verify=verify,
        device=device,
        random_state=random_state,
        grouped=grouped,
        autocast=autocast,
        parameters=parameters,
    )
    return gradient_engine.run(samples, reducer)

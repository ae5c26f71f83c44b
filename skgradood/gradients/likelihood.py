"""The log-likelihood of a batch, called and checked in one way by every strategy."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.gradients.errors import LogLikelihoodError
from skgradood.gradients.precision import autocast_to

LogLikelihoodFunction = Callable[[nn.Module, Tensor, torch.Generator], Tensor]


class LogLikelihood:
    """A log-likelihood in nats, one value a sample.

    Parameters
    ----------
    log_likelihood : str or callable
        The name of a method ``(X) -> (n,)`` or ``(X, generator=...) -> (n,)`` of the module, or a
        callable ``(module, X, generator) -> (n,)``.
    random_state : int, default=0
        Mixed into the seed of every row's noise.
    grouped : bool, default=False
        Whether a row is a group of samples, (B, ...), whose log-likelihoods are added.
    may_be_constant : bool, default=False
        Whether it may depend on no parameter that requires grad: where only some are asked
        about, their gradients are then zero. Otherwise this is an error.
    autocast : {None, "bfloat16", "float16"}, default=None
        The lower precision in which it is computed where torch finds that safe.
    """

    def __init__(
        self,
        log_likelihood: str | LogLikelihoodFunction = "log_prob",
        random_state: int = 0,
        *,
        grouped: bool = False,
        may_be_constant: bool = False,
        autocast: str | None = None,
    ) -> None:
        self.log_likelihood = log_likelihood
        self.random_state = random_state
        self.grouped = grouped
        self.may_be_constant = may_be_constant
        self.autocast = autocast

    @property
    def description(self) -> str:
        """What error messages call the function."""
        if isinstance(self.log_likelihood, str):
            return f"{self.log_likelihood}()"
        return getattr(self.log_likelihood, "__name__", repr(self.log_likelihood))

    def check(self, module: nn.Module) -> None:
        """Raise TypeError unless the module has what is called."""
        if not isinstance(self.log_likelihood, str):
            if not callable(self.log_likelihood):
                raise TypeError(
                    "log_likelihood must be a method name or a callable (module, X, generator) -> "
                    f"(n,); got {self.log_likelihood!r}"
                )
        elif not callable(getattr(module, self.log_likelihood, None)):
            raise TypeError(
                f"{type(module).__name__} has no method {self.log_likelihood}(X) -> (n,). Give the "
                "module one that returns the log-likelihood of every sample in nats, or pass "
                "log_likelihood=callable(module, X, generator) -> (n,)"
            )

    def __call__(self, module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
        """Log-likelihoods of n samples, or n groups of samples, in nats, (n,).

        Raises
        ------
        LogLikelihoodError
            A TypeError, if something else than one floating number a sample comes back.
        """
        # A model may write into what it is given, which belongs to the user and is used again.
        X = X.clone()
        if self.grouped:
            return (
                self._of_samples(module, X.flatten(0, 1), generator)
                .unflatten(0, X.shape[:2])
                .sum(1)
            )
        return self._of_samples(module, X, generator)

    def _of_samples(self, module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
        with autocast_to(self.autocast, X.device):
            if not isinstance(self.log_likelihood, str):
                values = self.log_likelihood(module, X, generator)
            else:
                method = getattr(module, self.log_likelihood)
                values = method(X, generator=generator) if _takes_generator(method) else method(X)
        self._check_values(module, values, len(X))
        return values if self.autocast is None or values.dtype == torch.float64 else values.float()

    def _check_values(self, module: nn.Module, values: Tensor, n: int) -> None:
        came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if came != (n,):
            hint = "; it looks like a batch mean or sum" if came in ((), (1,)) else ""
            if n == 1 and came == ():
                hint += ", or squeeze() has taken the one sample's dimension, too: name another one"
            raise LogLikelihoodError(
                f"{self.description} of {type(module).__name__} returned {came} for {n} samples; "
                f"expected one log-likelihood a sample, shape ({n},){hint}"
            )
        if not values.is_floating_point():
            raise LogLikelihoodError(
                f"{self.description} of {type(module).__name__} returned dtype {values.dtype}; "
                "expected floating point nats"
            )

    def row_seeds(self, X: Tensor) -> list[int]:
        """A seed for every row of X, from its content: neighbours and position play no part."""
        key = str(self.random_state).encode()
        return [
            int.from_bytes(
                hashlib.blake2b(row.tobytes(), digest_size=8, key=key[:64]).digest(), "little"
            )
            >> 1
            for row in _as_bytes(X)
        ]


def _as_bytes(X: Tensor) -> np.ndarray:
    """The content of every row, (n, bytes): NumPy does not know all of torch's dtypes."""
    return X.detach().cpu().contiguous().reshape(len(X), -1).view(torch.uint8).numpy()


def is_differentiable(values: Tensor, log_likelihood: LogLikelihood, module: nn.Module) -> bool:
    """Whether log-likelihoods depend on a trainable parameter; ValueError where they must."""
    if not values.requires_grad and not log_likelihood.may_be_constant:
        raise ValueError(
            f"{log_likelihood.description} of {type(module).__name__} does not depend on any "
            "parameter that requires grad; is it computed under torch.no_grad(), or detached?"
        )
    return values.requires_grad


def _takes_generator(method: Callable) -> bool:
    if isinstance(method, types.MethodType) and isinstance(method.__func__, types.FunctionType):
        return _has_generator(method.__func__)
    return _has_generator.__wrapped__(method)


@functools.lru_cache(maxsize=64)
def _has_generator(method: Callable) -> bool:
    try:
        return "generator" in inspect.signature(method).parameters
    except (TypeError, ValueError):  # a compiled method without a signature
        return False

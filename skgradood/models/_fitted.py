"""What detectors and transformers take as ``estimator``, brought into one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skgradood.gradients import LogLikelihood
from skgradood.models._batches import sample_in_batches
from skgradood.models._inputs import as_module_input
from skgradood.models.generative_net import GenerativeNet
from skgradood.utils.validation import check_same_columns, check_samples

_SAMPLED_AT_ONCE = 256


@dataclass
class LikelihoodModel:
    """A fitted likelihood model.

    Parameters
    ----------
    module : nn.Module
        With ``log_prob(X) -> (n,)`` in nats.
    estimator : GenerativeNet or nn.Module
        Where the module comes from: a fitted estimator, or the module itself.
    input_shape : tuple of int or None
        Shape of one sample; None until `prepare` has seen samples.
    """

    module: nn.Module
    estimator: GenerativeNet | nn.Module
    input_shape: tuple[int, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if module_of(self.estimator) is self.module:
            del state["module"]  # it comes with the estimator, and stays the estimator's own
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({"module": module_of(state["estimator"])} | state)

    @property
    def device(self) -> torch.device:
        """The device that the module is on."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")

    def prepare(self, X: Any, reset: bool = False) -> Tensor:
        """Check samples and bring them into the form that the module takes.

        Parameters
        ----------
        X : array-like
            Rows or images, as the package's data contract allows.
        reset : bool, default=False
            Whether these are the samples of a fit. They define the shape of a sample if neither
            training nor the module has done so.

        Returns
        -------
        Tensor of shape (n, ...)
            On the CPU: uint8 for a model of images, else the module's floating dtype.

        Raises
        ------
        ValueError
            If X breaks the data contract or has samples of another shape.
        """
        samples = check_samples(X, input_shape=self.input_shape)
        if reset or self.input_shape is None:
            self.input_shape = samples.shape[1:]
        return as_module_input(samples, self.module)

    def sample(self, n: int, seed: int) -> Tensor:
        """Draw samples in the form that the module takes, (n, ...).

        Raises
        ------
        TypeError
            If the module cannot be sampled from.
        """
        if not callable(getattr(self.module, "sample", None)):
            raise TypeError(
                f"samples of the model are needed, but {type(self.module).__name__} has no method "
                "sample(n, generator=None); give it one, or use data instead"
            )
        drawn = sample_in_batches(self.module, n, batch_size=_SAMPLED_AT_ONCE, seed=seed)
        return torch.from_numpy(drawn)


def module_of(estimator: GenerativeNet | nn.Module) -> nn.Module:
    """The module of a fitted estimator, or the module itself."""
    return estimator.module_ if isinstance(estimator, GenerativeNet) else estimator


def fit_likelihood(
    estimator: Any,
    X: Any,
    *,
    log_likelihood: str | Callable = "log_prob",
    feature_names: Sequence[str] | None = None,
) -> LikelihoodModel:
    """Bring what a user passes as ``estimator`` to a fitted likelihood model.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        A `GenerativeNet` is cloned and fitted on ``X``; one inside
        ``sklearn.frozen.FrozenEstimator`` and a module are used as they are, never copied.
    X : array-like
        Training samples.
    log_likelihood : str or callable, default="log_prob"
        The method that a module must have, or a callable that stands in for it.
    feature_names : sequence of str or None, default=None
        Names of the columns of the data that the model is for. Those of a model that was fitted
        before on columns with names must be the same.

    Returns
    -------
    LikelihoodModel

    Raises
    ------
    TypeError
        For anything else, or for a module without that method.
    ValueError
        For a frozen estimator that was fitted on other columns.
    NotFittedError
        For a frozen estimator that has not been fitted.
    """
    check_likelihood(estimator, log_likelihood=log_likelihood, feature_names=feature_names)
    if isinstance(estimator, nn.Module):
        shape = getattr(estimator, "input_shape", None)
        return LikelihoodModel(estimator, estimator, None if shape is None else tuple(shape))
    if isinstance(estimator, FrozenEstimator):
        net = estimator.estimator
    else:
        net = clone(estimator).fit(X)
        LogLikelihood(log_likelihood).check(net.module_)
    return LikelihoodModel(net.module_, net, net.input_shape_)


def check_likelihood(
    estimator: Any,
    *,
    name: str = "estimator",
    log_likelihood: str | Callable = "log_prob",
    feature_names: Sequence[str] | None = None,
) -> None:
    """Refuse what `fit_likelihood` would refuse, without training anything.

    Parameters
    ----------
    estimator, log_likelihood, feature_names
        As in `fit_likelihood`.
    name : str, default="estimator"
        What the user calls the estimator.

    Raises
    ------
    TypeError, ValueError, NotFittedError
        As `fit_likelihood`.
    """
    if isinstance(estimator, nn.Module):
        LogLikelihood(log_likelihood).check(estimator)
        return
    is_frozen = isinstance(estimator, FrozenEstimator)
    net = estimator.estimator if is_frozen else estimator
    if not isinstance(net, GenerativeNet):
        raise TypeError(
            f"{name} must be a GenerativeNet, a fitted one inside "
            "sklearn.frozen.FrozenEstimator, or a torch.nn.Module with log_prob(X) -> (n,); got "
            f"{estimator!r}"
        )
    if is_frozen:
        check_is_fitted(net)
        fitted_names = getattr(net, "feature_names_in_", None)
        check_same_columns(feature_names, fitted_names, name="X", model="the frozen model")
        LogLikelihood(log_likelihood).check(net.module_)

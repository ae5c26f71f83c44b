"""Training that also sees samples of another distribution, and keeps their likelihood low."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from skorch.callbacks import PassthroughScoring
from skorch.dataset import unpack_data
from torch import Tensor, nn

from skgradood.models._batches import evaluate_in_batches
from skgradood.models._inputs import as_module_input
from skgradood.models._pretrained import pretrained_module
from skgradood.models._training import LikelihoodTrainer, Losses
from skgradood.utils.validation import check_samples

# A batch with a smaller share of finite values is no estimate of anything (Schirrmeister 2020).
_LEAST_FINITE_SHARE = 0.25
_OPTIONS = ("general", "weight", "temperature", "margin")


def softplus_loss(
    log_p_out: Tensor, log_p_general: Tensor, *, weight: float, temperature: float
) -> Tensor:
    """Negative log-probability that an outlier is told to come from the general distribution.

    weight * softplus((log p(x) - log p_g(x)) / temperature), one value a sample [1]_.

    Parameters
    ----------
    log_p_out : Tensor of shape (m,)
        Log-likelihood of the outliers, nats.
    log_p_general : Tensor of shape (m,)
        Their log-likelihood under the general model, nats; zeros without one.
    weight, temperature : float

    References
    ----------
    .. [1] R. T. Schirrmeister, Y. Zhou, T. Ball, D. Zhang, "Understanding anomaly detection with
       deep invertible networks through hierarchies of distributions and features", NeurIPS 2020.
    """
    return weight * nn.functional.softplus((log_p_out - log_p_general) / temperature)


def margin_loss(log_p_in: Tensor, log_p_out: Tensor, *, weight: float, margin: float) -> Tensor:
    """What an outlier lacks to be less likely than an inlier by a margin.

    weight * max(0, margin + log p(x_out) - log p(x_in)), one value a pair [1]_.

    Parameters
    ----------
    log_p_in, log_p_out : Tensor of shape (m,)
        Log-likelihoods of inliers and outliers, pair by pair, nats.
    weight, margin : float
        The margin is in nats.

    References
    ----------
    .. [1] D. Hendrycks, M. Mazeika, T. Dietterich, "Deep anomaly detection with outlier exposure",
       ICLR 2019.
    """
    return weight * torch.relu(margin + log_p_out - log_p_in)


@dataclass
class _Batch:
    """Log-likelihoods of one step: finite ones only."""

    log_p_in: Tensor
    log_p_out: Tensor
    log_p_general: Tensor


def _softplus(batch: _Batch, options: Mapping[str, float]) -> Tensor:
    return softplus_loss(
        batch.log_p_out,
        batch.log_p_general,
        weight=options.get("weight", 6000.0),
        temperature=options.get("temperature", 1000.0),
    )


def _margin(batch: _Batch, options: Mapping[str, float]) -> Tensor:
    n_pairs = min(len(batch.log_p_in), len(batch.log_p_out))
    return margin_loss(
        batch.log_p_in[:n_pairs],
        batch.log_p_out[:n_pairs],
        weight=options.get("weight", 1.0),
        margin=options["margin"],
    )


OUTLIER_LOSSES: dict[str, Callable[[_Batch, Mapping[str, float]], Tensor]] = {
    "softplus": _softplus,
    "margin": _margin,
}


@dataclass
class OutlierSource:
    """Outliers, drawn in random order without end, and the loss that they are for.

    Parameters
    ----------
    samples : Tensor of shape (m, ...)
        On the CPU, as the module takes them.
    log_p_general : Tensor of shape (m,)
        Their log-likelihood under the general model, nats; zeros without one.
    loss : callable
        A value of `OUTLIER_LOSSES`.
    options : mapping of str to float
        Its options.
    """

    samples: Tensor
    log_p_general: Tensor
    loss: Callable[[_Batch, Mapping[str, float]], Tensor]
    options: Mapping[str, float]
    _order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """The next n outliers, and their log-likelihood under the general model."""
        while len(self._order) < n:
            self._order = torch.cat([self._order, torch.randperm(len(self.samples))])
        chosen, self._order = self._order[:n], self._order[n:]
        return self.samples[chosen], self.log_p_general[chosen]


def outlier_source(
    outliers: Any,
    module: nn.Module,
    *,
    input_shape: tuple[int, ...],
    loss: str,
    options: Mapping[str, Any],
    batch_size: int,
) -> OutlierSource:
    """Check outliers and the options of their loss, and measure them with the general model.

    Parameters
    ----------
    outliers : array-like of shape (m, ...)
        Samples of the shape that the module is trained on.
    module : nn.Module
        That is to be trained.
    input_shape : tuple of int
        Shape of one sample.
    loss : {"softplus", "margin"}
        A key of `OUTLIER_LOSSES`.
    options : mapping
        ``general``, ``weight``, ``temperature``, ``margin``; all may be missing.
    batch_size : int
        Samples a batch, for the general model.

    Raises
    ------
    TypeError, ValueError
        For an option that is not known or not a positive number, a general model without
        ``log_prob``, outliers that the module does not take, or of which the general model
        finds the likelihood of none finite.
    """
    numbers = _checked(options)
    numbers.setdefault("margin", float(np.prod(input_shape)))
    samples = check_samples(outliers, input_shape=input_shape, name="outliers")
    log_p_general = torch.zeros(len(samples), dtype=torch.float64)
    general = options.get("general")
    if general is not None:
        model = pretrained_module(general, "outliers__general")
        log_p_general = torch.from_numpy(
            evaluate_in_batches(
                cast("Callable[[Tensor], Tensor]", model.log_prob),
                as_module_input(samples, model, name="outliers"),
                batch_size=batch_size,
                device=next(model.parameters()).device,
            )
        )
    finite = torch.isfinite(log_p_general)
    if not finite.any():
        raise ValueError(
            f"outliers__general gives no finite log-likelihood to any of the {len(samples)} "
            "outliers, so that there is nothing to compare theirs with"
        )
    inputs = as_module_input(samples, module, name="outliers")
    return OutlierSource(inputs[finite], log_p_general[finite], OUTLIER_LOSSES[loss], numbers)


def _checked(options: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among the options."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise TypeError(
            f"GenerativeNet() got an unexpected argument 'outliers__{unknown[0]}'; there are "
            f"{', '.join(f'outliers__{name}' for name in _OPTIONS)}"
        )
    numbers = {}
    for name, value in options.items():
        if name == "general" or value is None:
            continue
        if not isinstance(value, Real) or not 0 < float(value) < np.inf:
            raise ValueError(f"outliers__{name} must be a positive number; got {value!r}")
        numbers[name] = float(value)
    return numbers


class _SkippedBatch(Exception):
    """Too little of a batch is finite to learn from it."""


class _MeanOfBatches(PassthroughScoring):
    """The mean over the batches that were not skipped."""

    def get_avg_score(self, history: Any) -> float:
        rows = history[-1, "batches", :, ["train_batch_size", self.name]]
        sizes, values = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
        learnt = np.isfinite(values)
        return float(np.average(values[learnt], weights=sizes[learnt])) if learnt.any() else np.nan


class OutlierTrainer(LikelihoodTrainer):
    """A trainer whose loss also holds that of outliers, drawn anew for every batch.

    The log-likelihoods in it are minus what training minimises (for a VAE the bound). Samples
    whose value is not finite are left out of a batch; a batch is skipped if more than 75 % of its
    inliers or of its outliers are, or if its gradient is not finite.

    Attributes
    ----------
    outliers_ : OutlierSource
        To be set before `train`.
    """

    outliers_: OutlierSource
    n_left_out_: int = 0
    n_seen_: int = 0
    n_skipped_: int = 0

    mean_of_batches = _MeanOfBatches

    @property
    def parts_of_loss(self) -> tuple[str, ...]:
        """What is recorded of every batch besides its loss."""
        return ("outlier_loss", *super().parts_of_loss)

    def train(self, X: Tensor, y: Tensor | None = None) -> LikelihoodTrainer:
        """Run the training loop, and say how much was left out."""
        super().train(X, y)
        if self.n_left_out_ or self.n_skipped_:
            warnings.warn(
                f"in training with outliers, {self.n_left_out_} of {self.n_seen_} log-likelihoods "
                f"were not finite and were left out, and {self.n_skipped_} batches were skipped. "
                "If that is more than a few, lower lr or outliers__weight.",
                UserWarning,
                stacklevel=2,
            )
        return self

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Learn from a batch, or skip it, which leaves parameters and optimizer as they are."""
        try:
            return super().train_step(batch, **fit_params)
        except _SkippedBatch:
            self._zero_grad_optimizer()
            self.n_skipped_ += 1
            nothing = torch.tensor(np.nan)
            return {"loss": nothing, "y_pred": nothing}

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch and of as many outliers, and its gradient."""
        self._set_training(True)
        inliers, labels = unpack_data(batch)
        outliers, log_p_general = self.outliers_.draw(len(inliers))
        losses_in, _ = self._finite_losses(inliers, labels)
        losses_out, kept = self._finite_losses(outliers, None)
        log_p_out = losses_out.log_prob
        values = _Batch(losses_in.log_prob, log_p_out, log_p_general.to(log_p_out)[kept])
        outlier_loss = self.outliers_.loss(values, self.outliers_.options).mean()
        loss = self.with_supervision(losses_in).mean() + outlier_loss
        loss.backward()
        gradients = [p.grad for _, p in self.get_all_learnable_params() if p.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise _SkippedBatch
        self.history.record_batch("outlier_loss", outlier_loss.item())
        return {"loss": loss, "y_pred": losses_in.likelihood}

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Refuse to go on if nothing is learnt.

        Raises
        ------
        RuntimeError
            If every batch of the epoch was skipped.
        """
        losses = self.history[-1, "batches", :, "train_loss"]
        if not np.isfinite(losses).any():
            raise self.diverged("every batch was skipped")
        super().on_epoch_end(net, **kwargs)

    def _finite_losses(self, X: Tensor, y: Tensor | None) -> tuple[Losses, Tensor]:
        """Losses that are finite, and which those are, (n,) bool."""
        losses = self.losses(X, y)
        finite = losses.finite
        n_finite = int(finite.sum())
        self.n_seen_ += len(X)
        self.n_left_out_ += len(X) - n_finite
        if n_finite < _LEAST_FINITE_SHARE * len(X):
            raise _SkippedBatch
        if n_finite < len(X):
            # Evaluated without the others, whose infinite derivatives times zero would be NaN.
            kept = finite.to(X.device)
            losses = self.losses(X[kept], None if y is None else y[kept])
            if not losses.finite.all():
                raise _SkippedBatch
        return losses, finite

"""The training loop: a skorch net whose loss is a negative log-likelihood."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, EpochTimer, PassthroughScoring, PrintLog
from skorch.dataset import unpack_data
from torch import Tensor, nn

from skgradood.models._clipping import AdaptiveClipping
from skgradood.models._progress import ProgressBar

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


class TensorDataset(torch.utils.data.Dataset):
    """Samples held in one tensor, fetched a batch at a time.

    Parameters
    ----------
    X : Tensor of shape (n, ...)
    y : Tensor of shape (n,), optional
        Numbers of classes, for a module that is trained with labels.
    """

    def __init__(self, X: Tensor, y: Tensor | None = None) -> None:
        self.X = X
        self.y = torch.zeros(len(X)) if y is None else y

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.X[index], self.y[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Fetch a batch; torch's loaders call this instead of collating single samples."""
        chosen = torch.as_tensor(indices)
        return self.X[chosen], self.y[chosen]


def keep_batch(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Collate what is a batch already."""
    return batch


class Losses(NamedTuple):
    """Losses of the samples in a batch, nats.

    Parameters
    ----------
    likelihood : Tensor of shape (n,)
        Negative log-likelihood, that of the label included.
    cross_entropy : Tensor of shape (n,) or None
        Negative log-probability of the label given the sample, if there is one.
    """

    likelihood: Tensor
    cross_entropy: Tensor | None = None

    @property
    def log_prob(self) -> Tensor:
        """Log-likelihoods of the samples without their labels, (n,)."""
        if self.cross_entropy is None:
            return -self.likelihood
        return self.cross_entropy - self.likelihood

    @property
    def finite(self) -> Tensor:
        """Which are finite, (n,) bool."""
        return torch.isfinite(self.log_prob) & torch.isfinite(self.likelihood)


class LikelihoodTrainer(NeuralNet):
    """A skorch net that trains a module of the package's convention.

    The loss is the batch mean of ``module.training_loss(X)``, or of ``-module.log_prob(X)`` where
    there is none; validation always measures ``-module.log_prob(X)``. Nats per sample.

    Parameters
    ----------
    *args, **kwargs
        As for a skorch net.
    supervised_weight : float or None, default=None
        With it, training minimises ``-log p(x, y) - supervised_weight * log p(y | x)``, which the
        module gives by ``labelled_training_loss(X, y)``.
    """

    mean_of_batches: type[PassthroughScoring] = PassthroughScoring

    def __init__(self, *args: Any, supervised_weight: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.supervised_weight = supervised_weight

    @property
    def parts_of_loss(self) -> tuple[str, ...]:
        """What is recorded of every batch besides its loss."""
        return () if self.supervised_weight is None else ("supervised_loss",)

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        means = [
            (name, self.mean_of_batches(name=name, on_train=True))
            for name in ("train_loss", *self.parts_of_loss)
        ]
        return [
            ("epoch_timer", EpochTimer()),
            *means,
            ("valid_loss", PassthroughScoring(name="valid_loss")),
            ("gradient_clipping", AdaptiveClipping()),
            *_PROGRESS[self.verbose](),
        ]

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return skorch's iterator, without a last training batch of a single sample.

        One sample has no variance, which batch normalisation needs.
        """
        options = self.get_params_for("iterator_train")
        batch_size = options.get("batch_size", self.batch_size)
        if training and len(dataset) > batch_size > 1 and len(dataset) % batch_size == 1:
            self.iterator_train__drop_last = True
        return super().get_iterator(dataset, training=training)

    def infer(self, x: Tensor, **fit_params: Any) -> Tensor:
        """Loss of every sample, (n,) nats."""
        x = x.to(self.device)
        method = "log_prob"
        if self.module_.training and hasattr(self.module_, "training_loss"):
            method = "training_loss"
        values = getattr(self.module_, method)(x)
        if values.shape != (len(x),):
            raise TypeError(
                f"{method}() of {type(self.module_).__name__} returned shape "
                f"{tuple(values.shape)} for {len(x)} samples; expected one value a sample, "
                f"shape ({len(x)},)"
            )
        return -values if method == "log_prob" else values

    def losses(self, X: Tensor, y: Tensor | None) -> Losses:
        """Losses of a training batch, its labels included if they are trained with."""
        if self.supervised_weight is None or y is None:
            return Losses(self.infer(X))
        labelled_loss = cast("Callable[..., Any]", self.module_.labelled_training_loss)
        return Losses(*labelled_loss(X.to(self.device), y.to(self.device)))

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch and its gradient."""
        self._set_training(True)
        X, y = unpack_data(batch)
        losses = self.losses(X, y)
        loss = self.get_loss(self.with_supervision(losses), y, X=X, training=True)
        loss.backward()
        return {"loss": loss, "y_pred": losses.likelihood}

    def with_supervision(self, losses: Losses) -> Tensor:
        """The sum of both losses, (n,); the mean of the second goes into the history."""
        if losses.cross_entropy is None or self.supervised_weight is None:
            return losses.likelihood
        supervised = self.supervised_weight * losses.cross_entropy
        self.history.record_batch("supervised_loss", supervised.mean().item())
        return losses.likelihood + supervised

    def get_loss(
        self, y_pred: Tensor, y_true: Any, X: Any = None, training: bool = False
    ) -> Tensor:
        """Return the mean loss of a batch.

        Raises
        ------
        RuntimeError
            If it is not finite while training.
        """
        loss = y_pred.mean()
        if training and not torch.isfinite(loss):
            raise self.diverged(f"the loss became {loss.item()}")
        return loss

    def diverged(self, what: str) -> RuntimeError:
        """The error to raise when training cannot go on."""
        return RuntimeError(
            f"training diverged: {what} in epoch {len(self.history)}. "
            f"Lower lr (now {self.lr}), raise it gradually with a skorch LRScheduler among the "
            "callbacks, or check the range of the data. The estimator is as it was before "
            "this fit."
        )

    def train(self, X: Tensor, y: Tensor | None = None) -> LikelihoodTrainer:
        """Run the training loop; unlike skorch's own, an interruption is passed on.

        After an error, too, what is written next begins on a line of its own.

        Parameters
        ----------
        X : Tensor of shape (n, ...)
        y : Tensor of shape (n,), optional
            Numbers of classes.
        """
        self.notify("on_train_begin", X=X, y=y)
        try:
            self.fit_loop(X, y)
        except BaseException as error:
            if not _is_early_stop(error):
                self._close_progress_bar()
                raise
        self.notify("on_train_end", X=X, y=y)
        self._check_finite()
        return self

    def _check_finite(self) -> None:
        """Of the last step no further loss tells what it led to."""
        for name, parameter in self.module_.named_parameters():
            if not parameter.isfinite().all():
                raise self.diverged(f"{name} was not finite after the last step")

    def _close_progress_bar(self) -> None:
        for _, callback in self.callbacks_:
            if isinstance(callback, ProgressBar):
                callback.bar_.close()

    def resume(self, optimizer_state: dict[str, Any]) -> None:
        """Go on with an earlier optimizer's moments, under this net's own learning rate."""
        groups = self.optimizer_.state_dict()["param_groups"]
        self.optimizer_.load_state_dict({"state": optimizer_state["state"], "param_groups": groups})

    def epochs(self, *, first: int) -> list[dict[str, Any]]:
        """What was recorded for every epoch; no batches, and nothing that depends on the clock.

        Parameters
        ----------
        first : int
            Number of the first epoch.
        """
        left_out = ("batches", "dur", "epoch", "train_batch_count", "valid_batch_count")
        return [
            {"epoch": number}
            | {
                # A plain float pickles to the same bytes under every version of NumPy.
                key: float(value) if isinstance(value, np.floating) else value
                for key, value in epoch.items()
                if key not in left_out and not key.endswith("_best")
            }
            for number, epoch in enumerate(self.history, start=first)
        ]


def _is_early_stop(error: BaseException) -> bool:
    """Whether it was skorch's early stopping, which ends training by an interruption."""
    if not isinstance(error, KeyboardInterrupt):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is EarlyStopping.on_epoch_end.__code__


_PROGRESS: dict[int, Callable[[], list[tuple[str, Any]]]] = {
    0: list,
    1: lambda: [("progress_bar", ProgressBar())],
    2: lambda: [("print_log", PrintLog())],
}


def make_trainer(
    module: nn.Module,
    *,
    optimizer: str | type[torch.optim.Optimizer],
    kind: type[LikelihoodTrainer] = LikelihoodTrainer,
    **options: Any,
) -> LikelihoodTrainer:
    """An initialised trainer of ``module``.

    Parameters
    ----------
    module : nn.Module
        Trained in place.
    kind : type, default=LikelihoodTrainer
        Class of the trainer.
    optimizer : str or class
        A key of `OPTIMIZERS` or an optimizer class.
    **options
        Further arguments of a skorch net.
    """
    defaults: dict[str, Any] = {"train_split": None, "iterator_train__shuffle": True}
    if "dataset" not in options:
        defaults |= {
            "dataset": TensorDataset,
            "iterator_train__collate_fn": keep_batch,
            "iterator_valid__collate_fn": keep_batch,
        }
    trainer = kind(
        module,
        criterion=nn.Identity,
        optimizer=OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer,
        **(defaults | options),
    )
    return trainer.initialize()


def at_rest(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, without the memory of its last gradient."""
    module.zero_grad(set_to_none=True)
    return module.eval()

"""The training loop: a skorch net whose loss is a negative log-likelihood."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, EpochTimer, PassthroughScoring, PrintLog
from torch import Tensor, nn

from skgradood.models._clipping import AdaptiveClipping
from skgradood.models._progress import ProgressBar

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
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
    y : None
        Part of skorch's convention; a likelihood has no target.
    """

    def __init__(self, X: Tensor, y: None = None) -> None:
        self.X = X

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.X[index], 0

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Fetch a batch; torch's loaders call this instead of collating single samples."""
        return self.X[torch.as_tensor(indices)], torch.zeros(len(indices))


def keep_batch(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Collate what is a batch already."""
    return batch


class LikelihoodTrainer(NeuralNet):
    """A skorch net that trains a module of the package's convention.

    The loss is the batch mean of ``module.training_loss(X)``, or of ``-module.log_prob(X)`` where
    there is none; validation always measures ``-module.log_prob(X)``. Nats per sample.
    """

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
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

    def train(self, X: Tensor) -> LikelihoodTrainer:
        """Run the training loop; unlike skorch's own, an interruption is passed on.

        Parameters
        ----------
        X : Tensor of shape (n, ...)
        """
        self.notify("on_train_begin", X=X, y=None)
        try:
            self.fit_loop(X)
        except KeyboardInterrupt as interruption:
            if not _is_early_stop(interruption):
                raise
        self.notify("on_train_end", X=X, y=None)
        return self

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


def _is_early_stop(interruption: KeyboardInterrupt) -> bool:
    """Whether it was skorch's early stopping, which ends training in this way, that raised it."""
    *_, (frame, _) = traceback.walk_tb(interruption.__traceback__)
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

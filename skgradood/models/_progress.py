"""The progress bar of a training run."""

from __future__ import annotations

import math
import sys
from typing import Any

import tqdm
from skorch.callbacks import Callback


class ProgressBar(Callback):
    """One bar for all batches of all epochs, with nats and bits per dimension."""

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Open the bar."""
        self.n_dimensions_ = X[0].numel()
        closed = sys.stderr is None  # by whoever started the process
        self.bar_ = tqdm.tqdm(unit="batch", desc="training", disable=closed)

    def on_epoch_begin(
        self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any
    ) -> None:
        """Say which epoch it is; the first one tells how many batches there will be."""
        self.bar_.set_description(f"epoch {len(net.history)}", refresh=False)
        if self.bar_.total is None:
            self.bar_.reset(net.max_epochs * len(net.get_iterator(dataset_train, training=True)))

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Advance by one batch."""
        if not training:
            return
        nats = net.history[-1, "batches", -1, "train_loss"]
        bits = nats / (self.n_dimensions_ * math.log(2))
        self.bar_.set_postfix_str(f"{nats:.4g} nats, {bits:.3f} bits/dim", refresh=False)
        self.bar_.update()

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.bar_.close()

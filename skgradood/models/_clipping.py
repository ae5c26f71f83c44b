"""Gradient clipping that finds its own threshold."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback

_REMEMBERED_STEPS = 1000


class AdaptiveClipping(Callback):
    """Clip the norm of the gradient to a percentile of the norms seen so far.

    Norms of likelihood gradients differ by orders of magnitude between models and grow as a flow
    sharpens, so that no fixed threshold serves; one rare step in a bad direction can undo
    hundreds of good ones.

    Parameters
    ----------
    percentile : float, default=10
        Of the norms of the last steps.

    References
    ----------
    Seetharaman, Wichern, Pardo and Le Roux, "AutoClip: Adaptive Gradient Clipping for Source
    Separation Networks", MLSP 2020.
    """

    def __init__(self, percentile: float = 10) -> None:
        self.percentile = percentile

    def initialize(self) -> AdaptiveClipping:
        """Forget earlier training runs."""
        self.norms_: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        return self

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        """Clip the gradients in place."""
        parameters = [parameter for _, parameter in named_parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.norms_.append(float(norm))
        # Without interpolation: between an ordinary norm and a huge one lies another huge one.
        threshold = float(np.percentile(self.norms_, self.percentile, method="lower"))
        torch.nn.utils.clip_grads_with_norm_(parameters, threshold, norm)

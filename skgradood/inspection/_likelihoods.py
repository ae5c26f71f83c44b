"""Histograms of log-likelihoods: what a model's likelihood alone tells apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skgradood.features import LogLikelihoodTransformer
from skgradood.inspection._features import frozen
from skgradood.inspection._panels import panels, style
from skgradood.inspection._values import check_vectors
from skgradood.metrics import auroc

_BINS = 40
_UNITS = ("nats", "bits_per_dim")
_SHOWN = (0.5, 99.5)  # percentiles of a set that the axis spans


class LikelihoodDisplay:
    """Histograms of log-likelihoods, one for each set of samples.

    Foreign images are often *more* likely under a deep model than those it was trained on [1]_.

    Parameters
    ----------
    log_likelihoods : mapping of str to ndarray of shape (n,)
        Nats, by the name of the set, in-distribution samples first.
    n_features : int or None, default=None
        Dimensions of a sample, which bits per dimension need.

    Attributes
    ----------
    auroc_ : dict of str to float
        For every other set: the probability that one of its samples is less likely than one of
        the first set, a tie counting one half. Below 0.5 the foreign set is the more likely one.
    figure_ : matplotlib.figure.Figure
        The figure, after `plot`.
    ax_ : matplotlib.axes.Axes
        Its axes.

    References
    ----------
    .. [1] Nalisnick, Matsukawa, Teh, Gorur and Lakshminarayanan, "Do Deep Generative Models Know
       What They Don't Know?", ICLR 2019.
    """

    def __init__(self, log_likelihoods: Mapping[str, np.ndarray], *, n_features: int | None = None):
        self.log_likelihoods = log_likelihoods
        self.n_features = n_features
        (_, inliers), *others = log_likelihoods.items()
        self.auroc_ = {name: auroc(inliers, values) for name, values in others}

    @classmethod
    def from_predictions(
        cls, log_likelihoods: Mapping[str, Any], *, n_features: int | None = None
    ) -> LikelihoodDisplay:
        """Take log-likelihoods that are known.

        Parameters
        ----------
        log_likelihoods : mapping of str to array-like of shape (n,)
            Nats, by the name of the set, in-distribution samples first; -inf is allowed.
        n_features : int, optional
            Dimensions of a sample.

        Returns
        -------
        LikelihoodDisplay

        Raises
        ------
        ValueError
            If there is no set, or one is empty, not one-dimensional or holds NaN.
        """
        return cls(check_vectors(log_likelihoods, "log_likelihoods"), n_features=n_features)

    @classmethod
    def from_estimator(
        cls, estimator: Any, sets: Mapping[str, Any], **options: Any
    ) -> LikelihoodDisplay:
        """Compute the log-likelihoods of several sets.

        Parameters
        ----------
        estimator : GenerativeNet, FrozenEstimator or nn.Module
            A fitted likelihood model; it is used as it is.
        sets : mapping of str to array-like of shape (n, ...)
            Samples by the name of their set, in-distribution samples first.
        **options
            Options of `skgradood.LogLikelihoodTransformer` other than ``contributions``.

        Returns
        -------
        LikelihoodDisplay
        """
        transformer = LogLikelihoodTransformer(frozen(estimator), **options)
        transformer.fit(next(iter(sets.values())))
        values = {name: transformer.transform(X)[:, 0] for name, X in sets.items()}
        return cls.from_predictions(values, n_features=transformer.n_features_in_)

    def plot(self, *, ax: Any = None, unit: str = "nats") -> LikelihoodDisplay:
        """Draw the histograms over one another; pyplot is not touched.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. A new figure is made without it.
        unit : {"nats", "bits_per_dim"}, default="nats"
            Log-likelihoods, or minus them in bits, divided by ``n_features``: the axis is then
            turned round, so that what is likely is on the right in both.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            For another unit, or bits per dimension of an unknown number of dimensions.
        """
        shown = {name: self._in_unit(values, unit) for name, values in self.log_likelihoods.items()}
        (ax,) = panels(ax, 1, width=7.0, height=3.4)
        edges = _edges(list(shown.values()))
        for i, (name, values) in enumerate(shown.items()):
            # Of all values, so that what the axis leaves out is missing from the area.
            share = np.histogram(values, bins=edges)[0] / len(values)
            if i == 0:
                ax.stairs(share, edges, fill=True, color="0.8", zorder=1)
            ax.stairs(share, edges, linewidth=1.6, zorder=2, label=self._label(name), **style(i))
        ax.set_ylabel("share of the set")
        ax.set_xlabel("log-likelihood [nats]" if unit == "nats" else "bits per dimension")
        if unit == "bits_per_dim":
            ax.invert_xaxis()
        ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        self.figure_, self.ax_ = ax.figure, ax
        return self

    def _in_unit(self, values: np.ndarray, unit: str) -> np.ndarray:
        if unit not in _UNITS:
            raise ValueError(f"unit must be one of {list(_UNITS)}; got {unit!r}")
        if unit == "nats":
            return values
        if self.n_features is None:
            raise ValueError("bits per dimension need n_features, the dimensions of a sample")
        return -values / (self.n_features * np.log(2))

    def _label(self, name: str) -> str:
        values = self.log_likelihoods[name]
        notes = [f"AUROC {self.auroc_[name]:.2f}"] if name in self.auroc_ else []
        n_infinite = int(np.isinf(values).sum())
        if n_infinite:
            notes.append(f"{n_infinite} of {len(values)} infinite")
        return f"{name} ({', '.join(notes)})" if notes else name


def _edges(sets: list[np.ndarray]) -> np.ndarray:
    """Bins over the bulk of every set: single extreme samples would squeeze all others."""
    finite = [values[np.isfinite(values)] for values in sets]
    limits = [np.percentile(values, _SHOWN) for values in finite if len(values)]
    if not limits:
        return np.linspace(0.0, 1.0, _BINS + 1)
    return np.histogram_bin_edges(np.concatenate(limits), bins=_BINS)

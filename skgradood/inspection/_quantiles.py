"""A picture of how well squared norms follow the distributions that are fitted to them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import gammaincinv, ndtr, ndtri

from skgradood.detectors import ChiSquareJointDensity
from skgradood.inspection._features import check_sets, measure
from skgradood.inspection._panels import COLOURS, MARKERS, chosen_columns, panels, short_title

_PANELS = 3
_POINTS = 150  # in a plot, at most
_SMALLEST = np.finfo(np.float64).tiny
_LABELS = {"lognormal": "lognormal", "chi2": r"scaled $\chi^2$"}
# The first colour stands for in-distribution samples elsewhere, and no marginal is one.
_COLOURS = dict(zip(_LABELS, COLOURS[1:], strict=False))
_MARKERS = dict(zip(_LABELS, MARKERS, strict=False))


class QuantileDisplay:
    """Q-Q plots of layers' squared norms against lognormal and scaled chi-square marginals.

    The points of a layer are its ordered squared norms f_(i) against the quantiles of a fitted
    marginal at probabilities (i - 1/2) / n; on the dashed line the marginal is right. Both are as
    `skgradood.ChiSquareJointDensity` fits them: exp(N(μ, σ²)), and s·χ²_k with s and k estimated.
    The Kolmogorov-Smirnov distance is the largest difference between the distribution functions.
    Where marginals are fitted to the samples shown, it is smaller than a test's tables assume.

    Parameters
    ----------
    quantiles : mapping of str to ndarray of shape (n, k)
        Quantiles of each marginal for the k layers shown.
    squared_norms : ndarray of shape (n, k)
        The squared norms of these layers, each column ascending.
    ks : mapping of str to ndarray of shape (L,)
        Kolmogorov-Smirnov distance of each marginal for all layers.
    layer_names : sequence of str
        Names of all L layers.
    columns : sequence of int
        Which of them are the k shown.

    Attributes
    ----------
    ks_ : dict of str to ndarray of shape (L,)
        For "lognormal" and "chi2", and all layers: the Kolmogorov-Smirnov distance, between 0 and
        1; NaN for layers that do not vary.
    figure_ : matplotlib.figure.Figure
        The figure, after `plot`.
    axes_ : ndarray of matplotlib.axes.Axes
        One a layer shown, and the histogram of ``ks_`` last.
    """

    def __init__(
        self,
        quantiles: Mapping[str, np.ndarray],
        squared_norms: np.ndarray,
        *,
        ks: Mapping[str, np.ndarray],
        layer_names: Sequence[str],
        columns: Sequence[int],
    ):
        self.quantiles = quantiles
        self.squared_norms = squared_norms
        self.ks = ks
        self.layer_names = layer_names
        self.columns = columns
        self.ks_ = dict(ks)

    @classmethod
    def from_features(
        cls,
        squared_norms: Any,
        *,
        reference: Any = None,
        layer_names: Sequence[str] | None = None,
        layers: Sequence[str | int] | None = None,
        chi2_fit: str = "log",
    ) -> QuantileDisplay:
        """Compare squared norms that are known with marginals fitted here.

        Parameters
        ----------
        squared_norms : array-like of shape (n, L)
            Squared norms, not their logarithms; a norm of zero counts as the layer's smallest
            positive one.
        reference : array-like of shape (m, L), optional
            Squared norms of other samples, to which the marginals are fitted; without it they are
            fitted to ``squared_norms``.
        layer_names : sequence of str, optional
            Names of the L columns; those of a DataFrame, or numbers, without it.
        layers : sequence of str or int, optional
            The layers to show, by name or number; by default the first, the middle and the last
            of those that vary.
        chi2_fit : {"log", "moments"}, default="log"
            How the chi-square is fitted; see `skgradood.ChiSquareJointDensity`.

        Returns
        -------
        QuantileDisplay

        Raises
        ------
        ValueError
            If values are negative or not finite, fewer than two samples are given, no layer
            varies, or there is no such layer, or it does not vary.
        """
        sets = {"squared_norms": squared_norms}
        if reference is not None:
            sets["reference"] = reference
        arrays, names = check_sets(sets, layer_names)
        shown, fitted_on = arrays["squared_norms"], arrays[list(sets)[-1]]
        marginals = {name: _fit(name, fitted_on, chi2_fit) for name in _LABELS}
        varies = np.flatnonzero(marginals["lognormal"].support_)
        columns = _varying_columns(layers, names, varies)
        positions = np.searchsorted(varies, columns)
        probabilities = (np.arange(len(shown)) + 0.5) / len(shown)
        return cls(
            {n: _QUANTILES[n](m, probabilities)[:, positions] for n, m in marginals.items()},
            np.sort(np.maximum(shown, marginals["lognormal"].floor_)[:, columns], axis=0),
            ks={name: _ks_distances(marginal, shown) for name, marginal in marginals.items()},
            layer_names=names,
            columns=columns,
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        reference: Any = None,
        show: Sequence[str | int] | None = None,
        chi2_fit: str = "log",
        **options: Any,
    ) -> QuantileDisplay:
        """Measure the squared norms of samples, and compare them with fitted marginals.

        Parameters
        ----------
        estimator : GenerativeNet, FrozenEstimator or nn.Module
            A fitted likelihood model; it is used as it is.
        X : array-like of shape (n, ...)
            In-distribution samples, preferably other ones than the model was trained on.
        reference : array-like of shape (m, ...), optional
            Samples to which the marginals are fitted; without it they are fitted to X.
        show : sequence of str or int, optional
            The layers to show, as ``layers`` in `from_features`.
        chi2_fit : {"log", "moments"}, default="log"
            As in `from_features`.
        **options
            Options of `skgradood.GradientNormTransformer` other than ``output``.

        Returns
        -------
        QuantileDisplay
        """
        sets = {"X": X} if reference is None else {"X": X, "reference": reference}
        norms, names = measure(estimator, sets, output="squared_norm", **options)
        return cls.from_features(
            norms["X"],
            reference=norms.get("reference"),
            layer_names=names,
            layers=show,
            chi2_fit=chi2_fit,
        )

    def plot(self, *, ax: Any = None, summary: bool = True) -> QuantileDisplay:
        """Draw a Q-Q plot a layer, and the distances of all layers; pyplot is not touched.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or sequence of them, optional
            Where to draw: one for each layer shown, and one more for the summary. A new figure is
            made without it.
        summary : bool, default=True
            Whether to draw the histogram of Kolmogorov-Smirnov distances over all layers.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If the number of axes is another one.
        """
        axes = panels(ax, len(self.columns) + summary, width=3.1, height=3.2)
        for i in range(len(self.columns)):
            self._quantile_plot(axes[i], i)
        if summary:
            self._summary(axes[-1])
        self.figure_, self.axes_ = axes[0].figure, axes
        return self

    def _quantile_plot(self, ax: Any, i: int) -> None:
        column = self.columns[i]
        rows = _shown_rows(len(self.squared_norms))
        observed = np.log(self.squared_norms[rows, i])
        for name, quantiles in self.quantiles.items():
            ax.scatter(
                np.log(quantiles[rows, i]),
                observed,
                s=14,
                marker=_MARKERS[name],
                facecolors="none",
                edgecolors=_COLOURS[name],
                linewidths=0.8,
                label=f"{_LABELS[name]}: KS {self.ks_[name][column]:.3f}",
            )
        room = 0.2 * (observed[-1] - observed[0])
        limits = (observed[0] - room, observed[-1] + room)
        ax.plot(limits, limits, color="0.4", linestyle="--", linewidth=1, zorder=0)
        ax.set_xlim(limits)
        ax.set_ylim(limits)
        ax.locator_params(nbins=6)
        ax.set_title(short_title(self.layer_names[column]), fontsize="medium")
        ax.set_xlabel("log quantile of the marginal")
        ax.set_ylabel("log squared norm, observed")
        ax.legend(loc="upper left", fontsize="small", handletextpad=0.2, borderpad=0.3)

    def _summary(self, ax: Any) -> None:
        finite = {name: ks[np.isfinite(ks)] for name, ks in self.ks_.items()}
        edges = np.histogram_bin_edges(np.concatenate(list(finite.values())), bins=15)
        for name, ks in finite.items():
            look = {"color": _COLOURS[name], "linestyle": "-" if name == "lognormal" else "--"}
            label = f"{_LABELS[name]}: median {np.median(ks):.3f}"
            ax.stairs(np.histogram(ks, edges)[0], edges, label=label, linewidth=1.6, **look)
        n_layers = len(finite["chi2"])
        n_better = int((finite["chi2"] < finite["lognormal"]).sum())
        ax.set_title(
            rf"all layers ($\chi^2$ nearer in {n_better} of {n_layers})", fontsize="medium"
        )
        ax.set_xlabel("Kolmogorov-Smirnov distance")
        ax.set_ylabel("layers")
        ax.set_ylim(top=ax.get_ylim()[1] * 1.35)  # room for the legend
        ax.legend(loc="upper right", fontsize="small", borderpad=0.3)


def _fit(marginal: str, squared_norms: np.ndarray, chi2_fit: str) -> ChiSquareJointDensity:
    density = ChiSquareJointDensity(marginal=marginal, dependence="independent", chi2_fit=chi2_fit)
    with warnings.catch_warnings():  # ks_ tells which layers do not vary
        warnings.simplefilter("ignore", UserWarning)
        return density.fit(squared_norms)


def _ks_distances(marginal: ChiSquareJointDensity, squared_norms: np.ndarray) -> np.ndarray:
    n = len(squared_norms)
    probabilities = ndtr(np.sort(marginal.layer_scores(squared_norms), axis=0))
    steps = np.arange(n + 1)[:, None] / n
    distances = np.maximum(steps[1:] - probabilities, probabilities - steps[:-1]).max(axis=0)
    return np.where(marginal.support_, distances, np.nan)


def _lognormal_quantiles(marginal: ChiSquareJointDensity, probabilities: np.ndarray) -> np.ndarray:
    return np.exp(marginal.location_ + marginal.scale_ * ndtri(probabilities)[:, None])


def _chi2_quantiles(marginal: ChiSquareJointDensity, probabilities: np.ndarray) -> np.ndarray:
    quantiles = gammaincinv(marginal.df_ / 2, probabilities[:, None])
    return np.maximum(2 * marginal.scale_ * quantiles, _SMALLEST)


_QUANTILES = {"lognormal": _lognormal_quantiles, "chi2": _chi2_quantiles}


def _varying_columns(
    layers: Sequence[str | int] | None, names: Sequence[str], varies: np.ndarray
) -> list[int]:
    if layers is None:
        among = chosen_columns(None, [names[column] for column in varies], default=_PANELS)
        return varies[among].tolist()
    columns = chosen_columns(layers, names, default=_PANELS)
    constant = [names[column] for column in columns if column not in varies]
    if constant:
        raise ValueError(f"layer {constant[0]!r} does not vary, so that it has no marginal to show")
    return columns


def _shown_rows(n: int) -> np.ndarray:
    """Rows at evenly spaced normal scores: both tails whole, and the middle thinned out."""
    end = ndtri(0.5 / n)
    return np.unique((n * ndtr(np.linspace(end, -end, _POINTS))).astype(int).clip(0, n - 1))

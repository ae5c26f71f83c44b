"""Pictures of the layers' log norms: how they correlate, and how sets of samples differ in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skgradood.inspection._features import check_sets, measure
from skgradood.inspection._panels import chosen_columns, marker, panels, short_title, style

_PANELS = 3
_BINS = 25
# Features of a layer that a sample leaves untouched: the logarithm of the least positive number.
_ZERO_NORM = np.log(np.finfo(np.float64).tiny)


class LayerCorrelationDisplay:
    """Correlation of two layers' log norms against the distance between the layers.

    Over all pairs of layers (l, m) with abs(l - m) = d, mean and standard deviation of the
    correlation of log f_l with log f_m, a curve for each set of samples. The published joint
    density takes all these correlations for zero [1]_.

    Parameters
    ----------
    correlations : mapping of str to ndarray of shape (L, L)
        Correlation matrices by the name of the set; NaN for layers that do not vary.

    Attributes
    ----------
    distances_ : ndarray of shape (L - 1,), int
        1 ... L - 1.
    mean_, spread_ : dict of str to ndarray of shape (L - 1,)
        Mean and standard deviation of the correlation over the pairs at each distance.
    figure_ : matplotlib.figure.Figure
        The figure, after `plot`.
    axes_ : ndarray of matplotlib.axes.Axes
        Of the mean and of the spread.

    References
    ----------
    .. [1] Dauncey, Holmes, Williams and Falck, "Approximations to the Fisher Information Metric of
       Deep Generative Models for Out-Of-Distribution Detection", TMLR 2024.
    """

    def __init__(self, correlations: Mapping[str, np.ndarray]):
        self.correlations = correlations
        n_layers = len(next(iter(correlations.values())))
        self.distances_ = np.arange(1, n_layers)
        by_distance = {
            name: [_finite(np.diagonal(matrix, d)) for d in self.distances_]
            for name, matrix in correlations.items()
        }
        self.mean_ = {name: _each(np.mean, groups) for name, groups in by_distance.items()}
        self.spread_ = {name: _each(np.std, groups) for name, groups in by_distance.items()}

    @classmethod
    def from_features(cls, features: Mapping[str, Any]) -> LayerCorrelationDisplay:
        """Correlate features that are known.

        Parameters
        ----------
        features : mapping of str to array-like of shape (n, L)
            Log norms by the name of the set, for example in-distribution test samples first and
            then out-of-distribution sets; columns in the order of the layers.

        Returns
        -------
        LayerCorrelationDisplay

        Raises
        ------
        ValueError
            If there are fewer than two layers, a set has fewer than two samples, values are not
            finite, or sets differ in their layers.
        """
        arrays, names = check_sets(features, None)
        if len(names) < 2:
            raise ValueError("correlations need at least two layers; got features of one column")
        few = [name for name, array in arrays.items() if len(array) < 2]
        if few:
            raise ValueError(f"correlations need at least two samples; {few[0]!r} has one")
        return cls({name: _correlation(array) for name, array in arrays.items()})

    @classmethod
    def from_estimator(
        cls, estimator: Any, sets: Mapping[str, Any], **options: Any
    ) -> LayerCorrelationDisplay:
        """Measure the log norms of several sets of samples, and correlate them.

        Parameters
        ----------
        estimator : GenerativeNet, FrozenEstimator or nn.Module
            A fitted likelihood model; it is used as it is.
        sets : mapping of str to array-like of shape (n, ...)
            Samples by the name of their set.
        **options
            Options of `skgradood.GradientNormTransformer` other than ``output``.

        Returns
        -------
        LayerCorrelationDisplay
        """
        features, _ = measure(estimator, sets, output="log", **options)
        return cls.from_features(features)

    def plot(self, *, ax: Any = None) -> LayerCorrelationDisplay:
        """Draw mean and spread beside each other, a curve a set; pyplot is not touched.

        Parameters
        ----------
        ax : sequence of two matplotlib.axes.Axes, optional
            Where to draw the mean, and where the spread. A new figure is made without it.

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
        axes = panels(ax, 2, width=3.9, height=3.1)
        axes[0].axhline(0, color="0.7", linewidth=1, zorder=0)
        for panel, values in zip(axes, (self.mean_, self.spread_), strict=True):
            for i, (name, curve) in enumerate(values.items()):
                # In-distribution samples on top.
                panel.plot(self.distances_, curve, label=name, zorder=3 - (i > 0), **style(i))
            panel.set_xlabel("distance between layers $|l - m|$")
            panel.locator_params(axis="x", integer=True)
        axes[0].set_ylabel("mean over pairs")
        axes[1].set_ylabel("standard deviation over pairs")
        axes[1].set_ylim(bottom=0)
        for panel in axes:
            panel.set_title("correlation of log norms", fontsize="medium")
        axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        self.figure_, self.axes_ = axes[0].figure, axes
        return self


class LayerNormDisplay:
    """Histograms of chosen layers' log norms for several sets, and a scatter of two layers.

    Parameters
    ----------
    features : mapping of str to ndarray of shape (n, k)
        Log norms of the k chosen layers by the name of the set; the first set is that of
        in-distribution samples and is filled.
    layer_names : sequence of str
        Names of the k layers.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, after `plot`.
    axes_ : ndarray of matplotlib.axes.Axes
        One a layer, and the scatter last.
    """

    def __init__(self, features: Mapping[str, np.ndarray], *, layer_names: Sequence[str]):
        self.features = features
        self.layer_names = layer_names

    @classmethod
    def from_features(
        cls,
        features: Mapping[str, Any],
        *,
        layer_names: Sequence[str] | None = None,
        layers: Sequence[str | int] | None = None,
    ) -> LayerNormDisplay:
        """Choose layers of features that are known.

        Parameters
        ----------
        features : mapping of str to array-like of shape (n, L)
            Log norms by the name of the set, in-distribution samples first.
        layer_names : sequence of str, optional
            Names of the L columns; those of a DataFrame, or numbers, without it.
        layers : sequence of str or int, optional
            The layers to show, by name or number; by default the first, the middle and the last.

        Returns
        -------
        LayerNormDisplay

        Raises
        ------
        ValueError
            If there is no such layer, values are not finite, or sets differ in their layers.
        """
        arrays, names = check_sets(features, layer_names)
        columns = chosen_columns(layers, names, default=_PANELS)
        return cls(
            {name: array[:, columns] for name, array in arrays.items()},
            layer_names=[names[column] for column in columns],
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        sets: Mapping[str, Any],
        *,
        show: Sequence[str | int] | None = None,
        **options: Any,
    ) -> LayerNormDisplay:
        """Measure the log norms of several sets of samples.

        Parameters
        ----------
        estimator : GenerativeNet, FrozenEstimator or nn.Module
            A fitted likelihood model; it is used as it is.
        sets : mapping of str to array-like of shape (n, ...)
            Samples by the name of their set, in-distribution samples first.
        show : sequence of str or int, optional
            The layers to show, as ``layers`` in `from_features`.
        **options
            Options of `skgradood.GradientNormTransformer` other than ``output``.

        Returns
        -------
        LayerNormDisplay
        """
        features, names = measure(estimator, sets, output="log", **options)
        return cls.from_features(features, layer_names=names, layers=show)

    def plot(self, *, ax: Any = None, pair: bool | tuple[int, int] = True) -> LayerNormDisplay:
        """Draw a histogram a layer, and a scatter; pyplot is not touched.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or sequence of them, optional
            Where to draw: one for each layer, and one more for the scatter. A new figure is made
            without it.
        pair : bool or (int, int), default=True
            Which of the chosen layers the scatter shows; True is the first and the last, False is
            none of them. With a single layer there is none.

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
        n = len(self.layer_names)
        if isinstance(pair, bool):
            chosen = (0, n - 1) if pair and n > 1 else None
        else:
            chosen = (range(n)[pair[0]], range(n)[pair[1]])
        axes = panels(ax, n + (chosen is not None), width=3.7, height=3.0)
        for i in range(n):
            self._histogram(axes[i], i)
        if chosen is not None:
            self._scatter(axes[-1], *chosen)
        self.figure_, self.axes_ = axes[0].figure, axes
        self._legend(axes[-1])
        return self

    def _histogram(self, ax: Any, i: int) -> None:
        columns = [_touched(array[:, i]) for array in self.features.values()]
        pooled = np.concatenate(columns)
        edges = np.histogram_bin_edges(pooled, bins=_BINS) if len(pooled) else np.array([0.0, 1.0])
        for k, column in enumerate(columns):
            if len(column) == 0:
                continue
            density, _ = np.histogram(column, bins=edges, density=True)
            if k == 0:
                ax.stairs(density, edges, fill=True, color="0.75", zorder=1)
            ax.stairs(density, edges, linewidth=1.6, zorder=2, **style(k))
        n_zero = sum(len(array) for array in self.features.values()) - len(pooled)
        note = f"\n({n_zero} norms of zero left out)" if n_zero else ""
        ax.set_title(short_title(self.layer_names[i]), fontsize="medium")
        ax.set_xlabel(f"log squared norm{note}")
        ax.set_ylabel("density")

    def _scatter(self, ax: Any, i: int, j: int) -> None:
        for k, array in enumerate(self.features.values()):
            touched = (array[:, [i, j]] > _ZERO_NORM).all(axis=1)
            ax.scatter(
                array[touched, i],
                array[touched, j],
                s=10,
                alpha=0.6,
                linewidths=0,
                zorder=2 if k else 3,
                **marker(k),
            )
        ax.set_xlabel(f"log squared norm\n{short_title(self.layer_names[i])}", fontsize="medium")
        ax.set_ylabel(f"log squared norm\n{short_title(self.layer_names[j])}", fontsize="medium")
        ax.set_title("two layers", fontsize="medium")

    def _legend(self, ax: Any) -> None:
        """One entry a set, with the line of the histograms and the marker of the scatter."""
        handles = [
            ax.plot([], [], label=name, **(marker(k) | style(k)))[0]
            for k, name in enumerate(self.features)
        ]
        ax.legend(
            handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False,
            handlelength=3.0,
        )  # fmt: skip


def _correlation(array: np.ndarray) -> np.ndarray:
    varies = np.ptp(array, axis=0) > 0  # rounding may give a constant a standard deviation
    matrix = np.full((array.shape[1],) * 2, np.nan)
    if varies.any():
        matrix[np.ix_(varies, varies)] = np.corrcoef(array[:, varies], rowvar=False)
    return matrix


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _each(statistic: Any, groups: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([statistic(group) if len(group) else np.nan for group in groups])


def _touched(column: np.ndarray) -> np.ndarray:
    return column[column > _ZERO_NORM]

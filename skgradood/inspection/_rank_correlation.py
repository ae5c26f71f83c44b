"""Whether two models, or a model and something simpler, put samples in the same order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from skgradood.inspection._panels import marker, panels
from skgradood.inspection._values import check_vectors

_ALL = "all samples"
_KINDS = ("matrix", "scatter")
_DARK = 0.6  # from this magnitude on, the colours of the matrix need white letters


class RankCorrelationDisplay:
    """Spearman's rank correlations between quantities of the same samples.

    Whether a likelihood is about low-level features shows in how it ranks images beside something
    that knows nothing else [1]_: a density of pixel differences, the likelihood of the image that
    gave its Fourier amplitudes, the same scale of a flow trained on other images.

    Parameters
    ----------
    rows : mapping of str to ndarray of shape (n,)
        Quantities of n samples.
    columns : mapping of str to ndarray of shape (n,)
        Those they are compared with, of the same samples.
    groups : ndarray of shape (n,) or None, default=None
        The set that each sample belongs to.

    Attributes
    ----------
    correlations_ : ndarray of shape (n_rows, n_columns)
        Spearman's correlation over all samples, ties having their mean rank; NaN for what does
        not vary.
    by_group_ : dict of str to ndarray of shape (n_rows, n_columns)
        The same within each group. Sets that differ as a whole correlate over all samples however
        little the order within them has in common.
    figure_ : matplotlib.figure.Figure
        The figure, after `plot`.
    axes_ : ndarray of matplotlib.axes.Axes
        One for each matrix, or for each scatter.

    References
    ----------
    .. [1] Schirrmeister, Zhou, Ball and Zhang, "Understanding Anomaly Detection with Deep
       Invertible Networks through Hierarchies of Distributions and Features", NeurIPS 2020.

    Examples
    --------
    >>> from skgradood.inspection import RankCorrelationDisplay
    >>> a, b = [1.0, 2.0, 3.0], [1.0, 8.0, 27.0]
    >>> RankCorrelationDisplay.from_predictions({"a": a}, against={"b": b}).correlations_
    array([[1.]])
    """

    def __init__(
        self,
        rows: Mapping[str, np.ndarray],
        columns: Mapping[str, np.ndarray],
        *,
        groups: np.ndarray | None = None,
    ):
        self.rows = rows
        self.columns = columns
        self.groups = groups
        self.correlations_ = self._correlate(slice(None))
        names = [] if groups is None else list(dict.fromkeys(map(str, groups)))
        self.by_group_ = {name: self._correlate(groups == name) for name in names}

    @classmethod
    def from_predictions(
        cls,
        scores: Mapping[str, Any],
        *,
        against: Mapping[str, Any] | None = None,
        groups: Any = None,
    ) -> RankCorrelationDisplay:
        """Correlate scores that are known.

        Parameters
        ----------
        scores : mapping of str to array-like of shape (n,)
            Log-likelihoods or other quantities of the same n samples, by name; infinite values
            are allowed.
        against : mapping of str to array-like of shape (n,), optional
            What they are compared with; with one another if it is missing.
        groups : array-like of shape (n,), optional
            The name of the set that each sample belongs to.

        Returns
        -------
        RankCorrelationDisplay

        Raises
        ------
        ValueError
            If lengths differ, or something is empty or NaN.
        """
        rows = check_vectors(scores, "scores")
        columns = rows if against is None else check_vectors(against, "against")
        lengths = {name: len(values) for name, values in (rows | columns).items()}
        if groups is not None:
            groups = np.asarray(groups).astype(str)
            lengths["groups"] = len(groups)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"all must be of the same samples, in one order; lengths: {lengths}")
        return cls(rows, columns, groups=groups)

    def plot(self, *, ax: Any = None, kind: str = "matrix") -> RankCorrelationDisplay:
        """Draw the correlations as a matrix, or one pair as a scatter; pyplot is not touched.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or sequence of them, optional
            Where to draw. A new figure is made without it.
        kind : {"matrix", "scatter"}, default="matrix"
            "matrix": all correlations, over all samples and within each group: a panel each, or
            if there is a single row of quantities, a row each of one panel.
            "scatter": ranks of the samples, a panel for each pair of a row and another column,
            coloured by group.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            For another kind, or another number of axes than there are panels.
        """
        if kind not in _KINDS:
            raise ValueError(f"kind must be one of {list(_KINDS)}; got {kind!r}")
        axes = self._matrices(ax) if kind == "matrix" else self._scatters(ax)
        self.figure_, self.axes_ = axes[0].figure, axes
        return self

    def _correlate(self, chosen: Any) -> np.ndarray:
        ranks = [
            np.array([_standardised_ranks(values[chosen]) for values in quantities.values()])
            for quantities in (self.rows, self.columns)
        ]
        return ranks[0] @ ranks[1].T

    def _matrices(self, ax: Any) -> np.ndarray:
        tables = self._tables()
        n_rows, n_columns = next(iter(tables.values()))[1].shape
        width = max(4.4, 2.4 + 0.75 * n_columns)
        axes = panels(ax, len(tables), width=width, height=1.5 + 0.3 * n_rows)
        for panel, (title, (labels, matrix)) in zip(axes, tables.items(), strict=True):
            panel.imshow(
                np.ma.masked_invalid(matrix), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto"
            )
            panel.set_xticks(range(n_columns), labels=list(self.columns), rotation=30, ha="right")
            panel.set_yticks(range(n_rows), labels=labels)
            panel.set_title(title, fontsize="medium")
            for (i, j), value in np.ndenumerate(matrix):
                colour = "white" if abs(value) >= _DARK else "black"
                text = f"{value:.2f}" if np.isfinite(value) else "-"
                panel.text(j, i, text, ha="center", va="center", color=colour)
        return axes

    def _tables(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """Title, labels of rows and entries of each matrix."""
        # A single group is all there is.
        groups = self.by_group_ if len(self.by_group_) > 1 else {}
        matrices = {_ALL: self.correlations_, **groups}
        rows = list(self.rows)
        if len(rows) == 1:
            stacked = np.concatenate(list(matrices.values()))
            return {f"rank correlation with {rows[0]}": (list(matrices), stacked)}
        return {name: (rows, matrix) for name, matrix in matrices.items()}

    def _scatters(self, ax: Any) -> np.ndarray:
        pairs = list(self._pairs())
        axes = panels(ax, len(pairs), width=3.3, height=3.2)
        groups = np.repeat("", self._n_samples) if self.groups is None else self.groups
        for panel, (row, column) in zip(axes, pairs, strict=True):
            x, y = rankdata(self.columns[column]), rankdata(self.rows[row])
            for k, name in enumerate(dict.fromkeys(groups)):
                chosen = groups == name
                panel.scatter(
                    x[chosen], y[chosen], s=9, alpha=0.6, linewidths=0, label=name, **marker(k)
                )  # fmt: skip
            i, j = list(self.rows).index(row), list(self.columns).index(column)
            panel.set_title(f"rank correlation {self.correlations_[i, j]:.2f}", fontsize="medium")
            panel.set_xlabel(f"rank by {column}")
            panel.set_ylabel(f"rank by {row}")
        if self.groups is not None:
            axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        return axes

    def _pairs(self) -> list[tuple[str, str]]:
        """Rows and columns to scatter: each pair once, nothing against itself."""
        within = self.rows is self.columns
        names = list(self.rows)
        return [
            (row, column)
            for i, row in enumerate(self.rows)
            for column in (names[:i] if within else self.columns)
        ]

    @property
    def _n_samples(self) -> int:
        return len(next(iter(self.rows.values())))


def _standardised_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with mean 0 and squares that sum to 1: their products are correlations."""
    centred = rankdata(values) - (len(values) + 1) / 2
    length = np.linalg.norm(centred)
    return centred / length if length > 0 else np.full(len(values), np.nan)

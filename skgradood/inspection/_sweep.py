"""A quantity against a value that is swept: brightness, sample count, width of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skgradood.inspection._panels import marker, panels, style

_SCALES = ("linear", "log")


class SweepDisplay:
    """Curves over a swept value, each with its mean and spread over repetitions.

    What is swept and what is measured are the caller's: for example AUROC against the brightness
    of the images to be detected [1]_, against the number of samples in a Fisher matrix [2]_, or
    against the width of the model.

    Parameters
    ----------
    values : sequence of float
        The k values.
    results : mapping of str to ndarray of shape (k, r)
        By the name of the curve: what was measured at each value in each of r repetitions.
    value_name : str, default="value"
        Label of the horizontal axis.
    result_name : str, default="AUROC"
        Label of the vertical axis.

    Attributes
    ----------
    mean_, spread_ : dict of str to ndarray of shape (k,)
        Mean and standard deviation over repetitions (r - 1 in the denominator; 0 for a single
        one).
    figure_ : matplotlib.figure.Figure
        The figure, after `plot`.
    ax_ : matplotlib.axes.Axes
        Its axes.

    References
    ----------
    .. [1] Dauncey, Holmes, Williams and Falck, "Approximations to the Fisher Information Metric of
       Deep Generative Models for Out-Of-Distribution Detection", TMLR 2024.
    .. [2] J. Choi, C. Yoon, J. Bae, M. Kang, "Robust out-of-distribution detection on deep
       probabilistic generative models", 2021.

    Examples
    --------
    >>> from skgradood.inspection import SweepDisplay
    >>> display = SweepDisplay.from_function(
    ...     lambda value, seed: {"square": value**2}, [1, 2, 3], n_repetitions=2
    ... )
    >>> display.mean_["square"]
    array([1., 4., 9.])
    """

    def __init__(
        self,
        values: Sequence[float],
        results: Mapping[str, np.ndarray],
        *,
        value_name: str = "value",
        result_name: str = "AUROC",
    ):
        self.values = values
        self.results = results
        self.value_name = value_name
        self.result_name = result_name
        self.mean_ = {name: array.mean(axis=1) for name, array in results.items()}
        self.spread_ = {name: _deviation(array) for name, array in results.items()}

    @classmethod
    def from_results(
        cls,
        values: Sequence[float],
        results: Mapping[str, Any],
        *,
        value_name: str = "value",
        result_name: str = "AUROC",
    ) -> SweepDisplay:
        """Take results that are known.

        Parameters
        ----------
        values : sequence of float
            The k values.
        results : mapping of str to array-like of shape (k,) or (k, r)
            By the name of the curve: one result for each value, or r repetitions.
        value_name, result_name : str
            Labels of the axes.

        Returns
        -------
        SweepDisplay

        Raises
        ------
        ValueError
            If there is no curve, or one has another number of rows than there are values.
        """
        if not isinstance(results, Mapping) or not results:
            raise ValueError(
                f"results must be a mapping from names of curves to arrays, not empty; got "
                f"{type(results).__name__}"
            )
        arrays = {}
        for name, result in results.items():
            array = np.asarray(result, dtype=np.float64)
            array = array[:, None] if array.ndim == 1 else array
            if array.ndim != 2 or array.shape[0] != len(values) or array.shape[1] == 0:
                raise ValueError(
                    f"results[{name!r}] must have shape ({len(values)},) or ({len(values)}, r), "
                    f"one row for each value; got {np.shape(result)}"
                )
            arrays[str(name)] = array
        return cls(list(values), arrays, value_name=value_name, result_name=result_name)

    @classmethod
    def from_function(
        cls,
        function: Callable[[Any, int], Mapping[str, float]],
        values: Sequence[Any],
        *,
        n_repetitions: int = 1,
        random_state: Any = None,
        value_name: str = "value",
        result_name: str = "AUROC",
    ) -> SweepDisplay:
        """Measure at every value, as often as asked.

        Parameters
        ----------
        function : callable
            ``(value, seed) -> {name of the curve: result}``. The curves must be the same
            everywhere.
        values : sequence of float
            The values.
        n_repetitions : int, default=1
            Calls for each value. The seeds are those of the first value at all others, so that
            a curve's shape does not owe its bends to chance.
        random_state : int, RandomState or None, default=None
            Where the seeds come from.
        value_name, result_name : str
            Labels of the axes.

        Returns
        -------
        SweepDisplay

        Raises
        ------
        ValueError
            If there is no value or no repetition.
        """
        if len(values) == 0 or n_repetitions < 1:
            raise ValueError(
                f"a sweep needs at least one value and one repetition; got {len(values)} values "
                f"and n_repetitions={n_repetitions}"
            )
        seeds = check_random_state(random_state).randint(2**31, size=n_repetitions)
        measured = [[function(value, int(seed)) for seed in seeds] for value in values]
        results = {
            name: [[result[name] for result in repetitions] for repetitions in measured]
            for name in measured[0][0]
        }
        return cls.from_results(values, results, value_name=value_name, result_name=result_name)

    def plot(
        self,
        *,
        ax: Any = None,
        scale: str = "linear",
        chance: float | None = 0.5,
    ) -> SweepDisplay:
        """Draw means as lines and spreads as bands; pyplot is not touched.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. A new figure is made without it.
        scale : {"linear", "log"}, default="linear"
            Of the horizontal axis.
        chance : float or None, default=0.5
            Where a dashed line marks guessing.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            For another scale.
        """
        if scale not in _SCALES:
            raise ValueError(f"scale must be one of {list(_SCALES)}; got {scale!r}")
        (ax,) = panels(ax, 1, width=7.0, height=3.4)
        if chance is not None:
            ax.axhline(chance, color="0.7", linestyle="--", linewidth=1, zorder=0)
        for i, (name, mean) in enumerate(self.mean_.items()):
            look, spread = marker(i) | style(i), self.spread_[name]
            ax.plot(self.values, mean, markersize=4, label=name, **look)
            ax.fill_between(
                self.values, mean - spread, mean + spread, color=look["color"], alpha=0.15, lw=0
            )
        ax.set_xscale(scale)
        if scale == "log":
            ax.set_xticks(self.values, labels=[f"{value:g}" for value in self.values])
            ax.minorticks_off()
        ax.set_xlabel(self.value_name)
        ax.set_ylabel(self.result_name)
        ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        self.figure_, self.ax_ = ax.figure, ax
        return self


def _deviation(array: np.ndarray) -> np.ndarray:
    return array.std(axis=1, ddof=1) if array.shape[1] > 1 else np.zeros(len(array))

"""What a detector costs beside what it finds."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from skgradood.inspection._panels import marker, panels
from skgradood.metrics import auroc
from skgradood.utils.optional import import_extra


class RuntimeDisplay:
    """Time to score a sample against AUROC, one marker a detector.

    Parameters
    ----------
    seconds : mapping of str to float
        Time to score one sample, by detector.
    aurocs : mapping of str to mapping of str to float
        ``aurocs[ood_set][detector]``, as in ``Comparison.metrics["auroc"]``.

    Attributes
    ----------
    mean_, worst_ : dict of str to float
        Mean and least AUROC over the out-of-distribution (OOD) sets, by detector.
    figure_ : matplotlib.figure.Figure
        The figure, after `plot`.
    ax_ : matplotlib.axes.Axes
        Its axes.
    """

    def __init__(self, seconds: Mapping[str, float], aurocs: Mapping[str, Mapping[str, float]]):
        self.seconds = seconds
        self.aurocs = aurocs
        by_detector = {name: [by_name[name] for by_name in aurocs.values()] for name in seconds}
        self.mean_ = {name: float(np.mean(values)) for name, values in by_detector.items()}
        self.worst_ = {name: min(values) for name, values in by_detector.items()}

    @classmethod
    def from_estimators(
        cls,
        detectors: Mapping[str, Any],
        X_in: Any,
        ood: Mapping[str, Any],
        *,
        n_repetitions: int = 3,
    ) -> RuntimeDisplay:
        """Time fitted detectors, and measure what they find.

        Parameters
        ----------
        detectors : mapping of str to estimator
            Fitted detectors, or density estimators, by name.
        X_in : array-like of shape (n, ...)
            Inliers; the time is that of scoring these.
        ood : mapping of str to array-like of shape (m, ...)
            OOD sets by name.
        n_repetitions : int, default=3
            How often each detector scores the inliers, in turn with the others; the shortest time
            counts, being the least disturbed one.

        Returns
        -------
        RuntimeDisplay

        Raises
        ------
        ValueError
            If there is no detector, no OOD set or no repetition.
        """
        if not detectors or not ood or n_repetitions < 1:
            raise ValueError(
                "at least one detector, one OOD set and one repetition are needed; got "
                f"{len(detectors)}, {len(ood)} and {n_repetitions}"
            )
        seconds = dict.fromkeys(detectors, np.inf)
        scores_in = {}
        for _, (name, detector) in itertools.product(range(n_repetitions), detectors.items()):
            started = time.perf_counter()
            scores_in[name] = detector.score_samples(X_in)
            duration = time.perf_counter() - started
            seconds[name] = min(seconds[name], duration / len(X_in))
        aurocs = {
            ood_name: {
                name: auroc(scores_in[name], detector.score_samples(X_out))
                for name, detector in detectors.items()
            }
            for ood_name, X_out in ood.items()
        }
        return cls(seconds, aurocs)

    def plot(self, *, ax: Any = None) -> RuntimeDisplay:
        """Draw mean AUROCs, with lines down to the worst; pyplot is not touched.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. A new figure is made without it.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        (ax,) = panels(ax, 1, width=7.5, height=3.6)
        ax.axhline(0.5, color="0.7", linestyle="--", linewidth=1, zorder=0)
        for i, (name, seconds) in enumerate(self.seconds.items()):
            milliseconds, look = 1e3 * seconds, marker(i)
            mean, worst = self.mean_[name], self.worst_[name]
            ax.vlines(milliseconds, worst, mean, color=look["color"], linewidth=1.2)
            ax.scatter(milliseconds, worst, s=40, **(look | {"marker": "_"}))
            ax.scatter(milliseconds, mean, s=45, label=name, **look)
        ax.set_xscale("log")
        ticker = import_extra("matplotlib.ticker", extra="plot")
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.set_xlabel("time to score one sample [ms]")
        ax.set_ylabel("AUROC: mean (marker), worst (bar)")
        ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        self.figure_, self.ax_ = ax.figure, ax
        return self

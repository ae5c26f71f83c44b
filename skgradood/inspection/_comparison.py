"""A picture of how several detectors do on several out-of-distribution sets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from skgradood.utils.optional import import_extra

_MARKERS = "Xsv^DPo"
_SPREAD = 0.24  # of the distance between rows
_ROW_HEIGHT = 0.36  # inches


class ComparisonDisplay:
    """Markers on lines: one line an out-of-distribution (OOD) set, one marker a detector.

    Parameters
    ----------
    table : mapping of str to mapping of str to float
        ``table[ood_set][detector]``, as in ``Comparison.metrics["auroc"]``.
    metric_name : str, default="AUROC"
        The label of the axis.
    chance : float or None, default=0.5
        Where a dashed line marks guessing.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, after `plot`.
    ax_ : matplotlib.axes.Axes
        Its axes.
    """

    def __init__(
        self,
        table: Mapping[str, Mapping[str, float]],
        *,
        metric_name: str = "AUROC",
        chance: float | None = 0.5,
    ):
        self.table = table
        self.metric_name = metric_name
        self.chance = chance

    def plot(self, *, ax: Any = None, title: str | None = None) -> ComparisonDisplay:
        """Draw the picture; pyplot is not touched.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. A new figure is made without it.
        title : str, optional
            The title of the axes.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        if ax is None:
            ax = self._new_axes()
        rows = np.arange(len(self.table))
        detectors = list(next(iter(self.table.values())))
        # Beside each other within a row: equal values would hide all markers but one.
        shifts = np.linspace(-_SPREAD, _SPREAD, len(detectors))
        for name, marker, shift in zip(detectors, itertools.cycle(_MARKERS), shifts, strict=False):
            values = [by_detector[name] for by_detector in self.table.values()]
            ax.scatter(values, rows + shift, marker=marker, s=40, zorder=2, label=name)
        if self.chance is not None:
            ax.axvline(self.chance, color="grey", linestyle="--", linewidth=1, zorder=0)
            ax.annotate(
                "guessing",
                (self.chance, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -10),
                textcoords="offset points",
                color="grey",
                fontsize="small",
            )
        ax.set_yticks(rows, labels=[name.replace("_", " ") for name in self.table])
        ax.invert_yaxis()
        ax.grid(axis="y", color="0.9", zorder=0)
        ax.set_axisbelow(True)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel(self.metric_name)
        ax.set_ylabel("out-of-distribution set")
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        if title:
            ax.set_title(title)
        self.figure_, self.ax_ = ax.figure, ax
        return self

    def _new_axes(self) -> Any:
        figures = import_extra("matplotlib.figure", extra="plot")
        height = 1.6 + _ROW_HEIGHT * len(self.table)
        return figures.Figure(figsize=(9, height), layout="constrained").subplots()

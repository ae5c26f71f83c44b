"""Warnings that point at the line of the user."""

from __future__ import annotations

import itertools
import sys
import warnings

# Detectors call each other, through scikit-learn's and joblib's wrappers of them.
_BETWEEN = {"skgradood", "sklearn", "joblib"}


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called the package, however many calls lie between.

    Parameters
    ----------
    message : str
        What to say.
    category : type of Warning, default=UserWarning
        Its kind.
    """
    frame = sys._getframe(1)
    for stacklevel in itertools.count(2):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in _BETWEEN or frame.f_back is None:
            warnings.warn(message, category, stacklevel=stacklevel)
            return
        frame = frame.f_back

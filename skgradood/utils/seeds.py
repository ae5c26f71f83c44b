"""Seeds of what is drawn while a fitted estimator is used."""

from __future__ import annotations

from typing import Any

from sklearn.utils import check_random_state


def fixed_seed(random_state: Any) -> int:
    """Draw a seed that stays the same for as long as an estimator is fitted.

    Parameters
    ----------
    random_state : int, RandomState or None
        The user's seed. None is a fixed one, too: what is computed for a sample draws no fresh
        entropy.

    Returns
    -------
    int
        In [0, 2^31).
    """
    if random_state is None:
        return 0
    return int(check_random_state(random_state).randint(2**31))

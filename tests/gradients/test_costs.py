"""Costs choose the cheapest of all ways to serve several readers of one gradient."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from skgradood.gradients.costs import ReadingCosts, read_factors

# Whole numbers, of which sums are exact.
COSTS = st.integers(0, 10**6).map(float)
READERS = st.lists(
    st.builds(ReadingCosts, st.one_of(COSTS, st.just(math.inf)), COSTS), min_size=1, max_size=4
)


def total(forming, readers, by_factors):
    reading = sum(
        costs.by_factors if is_read else costs.formed
        for costs, is_read in zip(readers, by_factors, strict=True)
    )
    return reading + (0 if all(by_factors) else forming)


@given(forming=COSTS, readers=READERS)
def test_no_other_choice_is_cheaper(forming, readers):
    chosen = read_factors(forming, readers)
    choices = itertools.product([True, False], repeat=len(readers))
    least = min(total(forming, readers, choice) for choice in choices)
    assert total(forming, readers, chosen) == least


@given(forming=COSTS, readers=READERS)
def test_who_reads_factors_among_others_would_do_so_alone(forming, readers):
    """What is shared are formed gradients: they can only draw readers away from factors."""
    for costs, is_read in zip(readers, read_factors(forming, readers), strict=True):
        if is_read:
            assert read_factors(forming, [costs]) == [True]


def test_who_cannot_read_factors_is_not_asked_to():
    assert read_factors(1.0, [ReadingCosts(math.inf, 1.0)]) == [False]
    assert read_factors(1.0, [ReadingCosts(1.0, math.inf)]) == [True]

"""Curves and points can be told apart, and the first set from all others."""

from skgradood.inspection._panels import marker, style


def test_looks_do_not_recur():
    assert len({str(style(i)) for i in range(31)}) == 31
    assert len({str(marker(i)) for i in range(43)}) == 43


def test_the_first_colour_is_that_of_the_first_set_alone():
    for look in (style, marker):
        assert look(0)["color"] not in {look(i)["color"] for i in range(1, 50)}

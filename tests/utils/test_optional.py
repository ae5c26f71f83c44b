from __future__ import annotations

import math

import pytest

from skgradood.utils.optional import import_extra


def test_a_module_that_is_there():
    assert import_extra("math", extra="plot") is math


def test_a_missing_module_names_its_extra():
    with pytest.raises(ImportError, match=r'pip install "skgradood\[codecs\]"'):
        import_extra("no_such_module.inside", extra="codecs")

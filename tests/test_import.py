"""What `import skgradood` brings along, seen from a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

import skgradood

# scikit-learn itself loads pandas and pyarrow where they are installed, so that what we do
# about those two is seen only where they are missing.
TABLES = {"pandas", "pyarrow"}
EXTRAS = {"matplotlib", "PIL", "imagecodecs", "dask", "IPython"}
HEAVY = {"torch", "skorch", "sklearn", "scipy", "numpy"}
ALL_NAMES = "[getattr(skgradood, name) for name in skgradood.__all__]"


def packages_after(*statements: str) -> set[str]:
    """Top-level packages that are loaded after some statements in a new interpreter."""
    code = "; ".join([*statements, "import json, sys", "print(json.dumps(list(sys.modules)))"])
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return {name.partition(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}


def test_the_package_itself_loads_nothing_heavy():
    loaded = packages_after("import skgradood")
    assert "skgradood" in loaded
    assert loaded.isdisjoint(HEAVY | EXTRAS | TABLES)


def test_no_public_name_loads_an_extra():
    loaded = packages_after("import skgradood", ALL_NAMES)
    assert loaded.isdisjoint(EXTRAS)


def test_every_public_name_is_there_without_the_extras():
    missing = f"import sys; sys.modules.update(dict.fromkeys({sorted(EXTRAS | TABLES)}))"
    assert "torch" in packages_after(missing, "import skgradood", ALL_NAMES)


def test_data_and_utilities_work_without_torch():
    loaded = packages_after("import skgradood.utils, skgradood.datasets")
    assert loaded.isdisjoint({"torch", "skorch"} | EXTRAS)


def test_every_public_name_is_there_and_listed_by_dir():
    for name in skgradood.__all__:
        assert getattr(skgradood, name) is not None
    assert set(skgradood.__all__) <= set(dir(skgradood))
    assert len(set(skgradood.__all__)) == len(skgradood.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchDetector"):
        skgradood.NoSuchDetector


def test_the_version_is_the_installed_one():
    assert skgradood.__version__ == metadata.version("skgradood")

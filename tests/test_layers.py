"""The house rules that imports and file sizes can show: floors, extras, one subject a file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_LINES = 400

# A room may import rooms of lower floors, itself, and the neighbours named below.
FLOORS = {
    "gradients": 0,
    "utils": 0,
    "complexity": 0,
    "datasets": 0,
    "fisher": 1,
    "models": 2,
    "model_selection": 2,
    "metrics": 2,
    "objectives": 2,
    "features": 3,
    "detectors": 3,
    "baselines": 4,
    "pipeline": 4,
    "persistence": 4,
    "evaluation": 4,
    "inspection": 4,
    "cli": 5,
    "__main__": 5,
}
NEIGHBOURS = {
    "complexity": {"utils"},
    "datasets": {"utils"},
    "model_selection": {"metrics"},
    "__main__": {"cli"},
}
# gradients/ and fisher/ serve people who use torch and know nothing of scikit-learn.
LIBRARIES = {"gradients": {"numpy", "torch"}, "fisher": {"numpy", "scipy", "torch"}}
CORE = {"numpy", "scipy", "sklearn", "joblib", "torch", "skorch", "tqdm"}
# Utilities and data are of use without a model, and torch takes seconds to import.
NO_TORCH_AT_IMPORT = {"utils", "complexity", "datasets"}


class Import(NamedTuple):
    """One imported module: its dotted name, and whether importing the file imports it."""

    name: str
    line: int
    at_import: bool


def imports_of(path: Path, package: Path) -> Iterator[Import]:
    """Every import in a file, relative ones resolved."""
    inside = list(path.relative_to(package.parent).with_suffix("").parts[:-1])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    delayed = {id(node) for body in _delayed_bodies(tree) for node in ast.walk(body)}
    for node in ast.walk(tree):
        at_import = id(node) not in delayed
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            parents = inside[: len(inside) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                # From the package itself comes a room; from a room, the names do not matter.
                name = f"{origin}.{alias.name}" if origin == package.name else origin
                yield Import(name, node.lineno, at_import)


def _delayed_bodies(tree: ast.Module) -> Iterator[ast.AST]:
    """Function bodies, and blocks that only type checkers read."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from node.body


def violations(package: Path) -> list[str]:
    """What breaks the rules above in a package, one sentence each."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if relative == Path("__init__.py"):
            continue  # it names the rooms in strings and imports them when asked
        room = relative.parts[0].removesuffix(".py")
        if room not in FLOORS:
            found.append(f"{relative}: the room {room!r} has no floor in tests/test_layers.py")
            continue
        for imported in imports_of(path, package):
            complaint = _complaint(room, imported, package.name)
            if complaint:
                found.append(f"{relative}:{imported.line}: {complaint}")
    return found


def _complaint(room: str, imported: Import, package: str) -> str | None:
    top, _, rest = imported.name.partition(".")
    if top == package:
        return _room_complaint(room, rest.split(".")[0])
    if top in sys.stdlib_module_names:
        return None
    if room in LIBRARIES and top not in LIBRARIES[room]:
        return f"{room}/ imports {top}; it may import {sorted(LIBRARIES[room])}"
    if not imported.at_import:
        return None
    if top not in CORE:
        return f"{top} belongs to an extra; import it where it is used, through import_extra"
    if top == "torch" and room in NO_TORCH_AT_IMPORT:
        return f"{room}/ must be importable without torch"
    return None


def _room_complaint(room: str, target: str) -> str | None:
    if target in (room, "__version__") or target in NEIGHBOURS.get(room, ()):
        return None
    if target not in FLOORS:
        return f"imports {target!r} of the package, which has no floor"
    if FLOORS[target] >= FLOORS[room]:
        return f"{room} (floor {FLOORS[room]}) imports {target} (floor {FLOORS[target]})"
    return None


def test_the_package_keeps_to_its_floors():
    assert violations(REPOSITORY / "skgradood") == []


@pytest.mark.parametrize("folder", ["skgradood", "tests", "benchmarks"])
def test_files_have_one_subject_and_stay_short(folder):
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (REPOSITORY / folder).rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


BAD_FILES = {
    "higher floor": ("models/vae.py", "from skgradood.features import norms", "imports features"),
    "sibling room": ("features/norms.py", "import skgradood.detectors.base", "imports detectors"),
    "relative": ("gradients/loop.py", "from ..utils import validation", "imports utils"),
    "relative room": ("gradients/loop.py", "from .. import utils", "imports utils"),
    "inside a function": (
        "metrics.py",
        "def f():\n    from skgradood import pipeline",
        "imports pipeline",
    ),
    "through the public package": (
        "metrics.py",
        "from skgradood import VAE",
        "imports 'VAE'",
    ),
    "scikit-learn in the engine": (
        "gradients/loop.py",
        "def f():\n    import sklearn.utils",
        "gradients/ imports sklearn",
    ),
    "an extra": ("cli.py", "import pandas as pd", "pandas belongs to an extra"),
    "an extra, tried": (
        "features/codecs.py",
        "try:\n    from PIL import Image\nexcept ImportError:\n    pass",
        "PIL belongs to an extra",
    ),
    "torch in utilities": ("utils/validation.py", "import torch", "importable without torch"),
    "no floor": ("attic.py", "", "'attic' has no floor"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_the_check_sees(tmp_path, case):
    path, source, complaint = BAD_FILES[case]
    package = _made_up_package(tmp_path, {path: source})
    (found,) = violations(package)
    assert complaint in found


GOOD_FILES = {
    "models/vae.py": "import torch\nfrom skgradood.gradients import loop\nfrom . import flow",
    "features/codecs.py": "def encode(x):\n    import PIL.Image\n    return PIL.Image",
    "datasets/digits.py": "from skgradood.utils.groups import make_groups\nimport sklearn",
    "utils/validation.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
    "persistence.py": "from skgradood import __version__, detectors, features\nimport joblib",
    "__main__.py": "from skgradood.cli import main",
}


def test_the_check_lets_right_imports_pass(tmp_path):
    assert violations(_made_up_package(tmp_path, GOOD_FILES)) == []


def _made_up_package(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "skgradood"
    for name, source in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return package

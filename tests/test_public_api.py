"""What users can import: documented where they look, and shaped as they expect."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

import skgradood

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "api.md"


def public_modules() -> list[str]:
    """The package and its rooms."""
    rooms = [info.name for info in pkgutil.iter_modules(skgradood.__path__)]
    # Importing __main__ would run it; the command line is documented by its --help.
    public = [room for room in rooms if not room.startswith("_") and room != "cli"]
    return ["skgradood", *(f"skgradood.{room}" for room in public)]


def exports(name: str) -> set[str]:
    """``__all__`` of a package; the public classes and functions defined in a plain module."""
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        return set(module.__all__) - {"__version__"}
    return {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == name
    }


def documented() -> dict[str, set[str]]:
    """Names in the autosummary lists of docs/api.md, by the module they are listed under."""
    found: dict[str, set[str]] = {}
    module = ""
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"\.\. currentmodule:: (\S+)$", line):
            module = heading[1]
        elif entry := re.match(r"   (\w+)$", line):
            found.setdefault(module, set()).add(entry[1])
    return found


def public_objects() -> dict[str, object]:
    return {
        f"{module}.{name}": getattr(importlib.import_module(module), name)
        for module in public_modules()
        for name in sorted(exports(module))
    }


OBJECTS = public_objects()
CALLABLES = {name: item for name, item in OBJECTS.items() if callable(item)}
ESTIMATORS = {
    name: item
    for name, item in CALLABLES.items()
    if inspect.isclass(item) and issubclass(item, BaseEstimator)
}


def test_the_reference_lists_what_the_package_exports():
    top = exports("skgradood")
    for module in public_modules():
        # A name that the package re-exports is documented once, at the top.
        expected = top if module == "skgradood" else exports(module) - top
        assert documented().get(module, set()) == expected, module


def test_the_reference_lists_no_other_modules():
    assert set(documented()) <= set(public_modules())


def test_reexported_names_are_the_same_objects():
    for name in exports("skgradood"):
        homes = [m for m in public_modules()[1:] if name in exports(m)]
        for home in homes:
            assert getattr(importlib.import_module(home), name) is getattr(skgradood, name)


@pytest.mark.parametrize("name", CALLABLES)
def test_docstrings_list_the_parameters_of_the_signature(name):
    doc = inspect.getdoc(CALLABLES[name])
    assert doc, f"{name} has no docstring"
    assert listed_parameters(doc) == signature_parameters(CALLABLES[name])


@pytest.mark.parametrize("name", [n for n, item in CALLABLES.items() if inspect.isclass(item)])
def test_public_methods_are_documented(name):
    """An inherited docstring counts, torch's and scikit-learn's included."""
    methods = {
        method: inspect.getdoc(getattr(CALLABLES[name], method))
        for method, value in vars(CALLABLES[name]).items()
        if not method.startswith("_") and (callable(value) or isinstance(value, property))
    }
    assert [method for method, doc in methods.items() if not doc] == []


def listed_parameters(doc: str) -> list[str]:
    """Names in a numpydoc Parameters section, `a, b : int` counting as two."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-{3,}$|\Z)", doc, re.M | re.S)
    if section is None:
        return []
    entries = re.findall(r"^(\S.*?)(?: :.*)?$", section[1], re.MULTILINE)
    return [name.lstrip("*") for entry in entries for name in entry.split(", ")]


def signature_parameters(item: object) -> list[str]:
    parameters = inspect.signature(item).parameters.values()
    return [p.name for p in parameters if not p.name.startswith("_")]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_options_of_estimators_are_keyword_only(name):
    parameters = inspect.signature(ESTIMATORS[name]).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert all(p.default is p.empty for p in positional)
    assert len(positional) <= 2


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_check_their_parameters_in_fit(name):
    """Each parameter has a constraint, so that a wrong one is refused with a readable error."""
    constraints = ESTIMATORS[name]._parameter_constraints
    named = [
        p.name
        for p in inspect.signature(ESTIMATORS[name]).parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]
    assert set(constraints) == set(named)


DOCSTRING = """One line.

Parameters
----------
a, b : int
    First.
**rest
    More.

Returns
-------
c : int
"""


def test_the_reading_of_docstrings_can_fail():
    assert listed_parameters(DOCSTRING) == ["a", "b", "rest"]
    assert listed_parameters("One line.") == []

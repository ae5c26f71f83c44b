"""What users can import: documented where they look, and shaped as they expect."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Protocol

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
CLASSES = {name: item for name, item in CALLABLES.items() if inspect.isclass(item)}
PROTOCOLS = [item for item in CLASSES.values() if Protocol in item.__bases__]
# What a protocol says of a method need not be said again by those who follow it.
PROTOCOL_METHODS = {name for protocol in PROTOCOLS for name in vars(protocol)}
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
    item = CALLABLES[name]
    doc = inspect.getdoc(item)
    assert doc, f"{name} has no docstring"
    if item in PROTOCOLS or (inspect.isclass(item) and issubclass(item, Exception)):
        return
    section = "Attributes" if is_dataclass(item) else "Parameters"
    assert sorted(listed(doc, section)) == sorted(inspect.signature(item).parameters)


# Under one name each, of those that it is public by.
EXAMPLES = {item: name for name, item in CALLABLES.items() if ">>>" in (inspect.getdoc(item) or "")}


@pytest.mark.parametrize("name", EXAMPLES.values())
def test_examples_in_docstrings_give_what_they_show(name):
    item = CALLABLES[name]
    home = inspect.getmodule(item)
    (example,) = doctest.DocTestFinder(recurse=False).find(item, name, module=home, globs={})
    told: list[str] = []
    doctest.DocTestRunner().run(example, out=told.append)
    assert not told, "".join(told)


@pytest.mark.parametrize("name", CLASSES)
def test_public_methods_are_documented(name):
    """An inherited docstring counts, and for properties the list of attributes."""
    item = CLASSES[name]
    attributes = listed(inspect.getdoc(item), "Attributes")
    public = {
        key: getattr(item, key)
        for key, value in vars(item).items()
        if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }
    documented = {key for key, value in public.items() if inspect.getdoc(value)}
    assert set(public) - documented - PROTOCOL_METHODS - set(attributes) == set()


def listed(doc: str, section: str) -> list[str]:
    """Names in a section of a numpydoc docstring, `a, b : int` counting as two."""
    body = re.search(rf"^{section}\n-+\n(.*?)(?=^\w[\w ]*\n-{{3,}}$|\Z)", doc, re.M | re.S)
    if body is None:
        return []
    entries = re.findall(r"^(\S.*?)(?: :.*)?$", body[1], re.MULTILINE)
    return [name.lstrip("*") for entry in entries for name in entry.split(", ")]


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
    assert listed(DOCSTRING, "Parameters") == ["a", "b", "rest"]
    assert listed(DOCSTRING, "Attributes") == []

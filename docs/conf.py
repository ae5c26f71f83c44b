"""Sphinx configuration; `make docs` builds with warnings as errors."""

from __future__ import annotations

import skgradood

project = "skgradood"
author = "The skgradood developers"
copyright = "2026, the skgradood developers"
version = release = skgradood.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_default_options = {"members": True, "inherited-members": False}
autodoc_typehints = "none"  # the docstrings name types, and shapes besides
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"skgradood {release}"

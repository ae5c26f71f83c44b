"""The README's examples run as written, and the commands it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_python_examples_run_as_written(tmp_path, monkeypatch):
    """In order and in one namespace, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    blocks = list(BLOCK.finditer(README))
    assert len(blocks) >= 4
    namespace = {"__name__": "readme"}
    for block in blocks:
        lines_before = README[: block.start(1)].count("\n")
        source = "\n" * lines_before + block.group(1)  # so that a traceback names README's line
        exec(compile(source, str(REPOSITORY / "README.md"), "exec"), namespace)


def test_no_python_example_escapes_the_test():
    assert README.count("```python") == len(BLOCK.findall(README))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z]+)\b`", README))))
def test_make_targets_exist(target):
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)", README))))
def test_links_within_the_repository_lead_somewhere(link):
    assert (REPOSITORY / link).exists()

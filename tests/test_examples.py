"""The scripts of docs/examples run as written, and the documentation names each."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((REPOSITORY / "docs" / "examples").glob("*.py"))
PAGE = (REPOSITORY / "docs" / "inspection.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_as_written_and_save_a_figure(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    (figure,) = tmp_path.iterdir()
    assert figure.name == f"{path.stem}.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    printed = [float(number) for number in re.findall(r"-?\d+\.\d+", capsys.readouterr().out)]
    assert printed
    assert all(abs(number) < 1e4 for number in printed)


def test_the_documentation_names_every_example():
    assert len(EXAMPLES) >= 8
    named = re.findall(r"examples/(\w+\.py)", PAGE)
    assert sorted(set(named)) == [path.name for path in EXAMPLES]

"""docs/inspection.md runs as written, and its committed figures are small."""

import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "inspection.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"\]\(figures/(\w+\.png)\)", PAGE)


@pytest.mark.slow
def test_the_page_draws_its_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "inspection"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(DOCS / "inspection.md"), "exec"), namespace)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SHOWN)
    for name in SHOWN:
        assert np.ptp(matplotlib.image.imread(tmp_path / name)) > 0.5


def test_committed_figures_are_those_of_the_pages_and_small():
    sizes = {path.name: path.stat().st_size for path in (DOCS / "figures").glob("*.png")}
    pages = " ".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    assert sizes.keys() == set(re.findall(r"figures/([\w-]+\.png)", pages)) >= set(SHOWN)
    assert max(sizes.values()) < 60_000

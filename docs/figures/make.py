"""Draw the figures of docs/inspection.md: python docs/figures/make.py runs its Python blocks."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from PIL import Image

FIGURES = Path(__file__).resolve().parent
PAGE = FIGURES.parent / "inspection.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLOURS = 128


def main() -> None:
    """Run the page in this folder, then bring its PNG files to a palette, a third of the size."""
    os.chdir(FIGURES)
    namespace: dict[str, Any] = {"__name__": "inspection"}
    for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        exec(compile(block, str(PAGE), "exec"), namespace)
    for path in FIGURES.glob("*.png"):
        with Image.open(path) as figure:
            small = figure.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        small.save(path, optimize=True)


if __name__ == "__main__":
    main()

"""A folder of image files into one array."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skgradood.datasets._decoding import IMAGE_SUFFIXES, Header, decode, read_header


def load_folder(root: Path, *, size: tuple[int, int] | None, mode: str, on_error: str) -> Bunch:
    """Decode every image below a folder, in sorted order, straight into one array."""
    paths, n_ignored = _find_images(root)
    if not paths:
        raise ValueError(
            f"{root} holds no image files ({n_ignored} other files were ignored); "
            f"known endings: {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return load_files(
        paths, root=root, size=size, mode=mode, on_error=on_error, n_ignored=n_ignored
    )


def load_files(
    paths: Sequence[Path],
    *,
    root: Path,
    size: tuple[int, int] | None,
    mode: str,
    on_error: str,
    n_ignored: int = 0,
) -> Bunch:
    """Decode image files: a first pass over the headers gives the shape of the array."""
    errors: dict[Path, Exception] = {}
    headers = _read_headers(paths, errors, on_error)
    size = size or _common_size(headers, root)
    grey = mode == "grey" or (mode == "auto" and all(header.is_grey for header in headers.values()))
    images, kept = _decode_all(list(headers), errors, on_error, grey=grey, size=size)
    if not kept:
        raise ValueError(f"none of the {len(paths)} image files in {root} could be read")
    _warn_of_losses(headers, errors)
    return Bunch(
        data=images,
        names=[path.relative_to(root).as_posix() for path in kept],
        skipped=[path.relative_to(root).as_posix() for path in errors],
        n_ignored=n_ignored,
    )


def _find_images(root: Path) -> tuple[list[Path], int]:
    """Image files in sorted order, and the number of other files (hidden ones among them)."""
    # A link that leads nowhere is a file that cannot be read, not none.
    files = [path for path in root.rglob("*") if path.is_file() or not path.exists()]
    images = [
        path
        for path in files
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    images.sort(key=lambda path: path.relative_to(root).as_posix())
    return images, len(files) - len(images)


def _read_headers(
    paths: Sequence[Path], errors: dict[Path, Exception], on_error: str
) -> dict[Path, Header]:
    headers = {}
    for path in paths:
        try:
            headers[path] = read_header(path)
        except (ValueError, OSError) as error:
            if on_error == "raise":
                raise
            errors[path] = error
    return headers


def _common_size(headers: dict[Path, Header], root: Path) -> tuple[int, int]:
    first: tuple[Path, Header] | None = None
    for path, header in headers.items():
        if first is None:
            first = path, header
        elif header.size != first[1].size:
            raise ValueError(
                f"the images in {root} differ in size: {first[0].name} has "
                f"{first[1].size[0]} x {first[1].size[1]} pixels (H x W), {path.name} has "
                f"{header.size[0]} x {header.size[1]}; give size=(H, W) to resize them all"
            )
    return first[1].size if first else (0, 0)


def _decode_all(
    paths: Sequence[Path],
    errors: dict[Path, Exception],
    on_error: str,
    *,
    grey: bool,
    size: tuple[int, int],
) -> tuple[np.ndarray, list[Path]]:
    images = np.empty((len(paths), *size) if grey else (len(paths), *size, 3), np.uint8)
    kept: list[Path] = []
    for path in paths:
        try:
            images[len(kept)] = decode(path, grey=grey, size=size)
        except (ValueError, OSError) as error:
            if on_error == "raise":
                raise
            errors[path] = error
        else:
            kept.append(path)
    return images[: len(kept)], kept


def _warn_of_losses(headers: dict[Path, Header], errors: dict[Path, Exception]) -> None:
    if errors:
        path, error = next(iter(errors.items()))
        warnings.warn(
            f"{len(errors)} image files could not be read and were skipped, among them "
            f"{path.name}: {error}",
            stacklevel=5,
        )
    animated = [path for path, header in headers.items() if header.n_frames > 1]
    if animated:
        warnings.warn(
            f"{len(animated)} files hold several frames, among them {animated[0].name}; only the "
            "first frame of each was read",
            stacklevel=5,
        )

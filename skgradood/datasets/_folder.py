"""A folder of image files into one array."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.utils import Bunch

from skgradood.datasets._decoding import IMAGE_SUFFIXES, Header, decode, read_header


class Search(NamedTuple):
    """What a folder and its subfolders hold."""

    images: list[Path]  # in sorted order
    n_ignored: int  # other files, and hidden ones
    n_links: int  # links to folders
    errors: list[OSError]  # of folders that may not be read


def load_folder(root: Path, *, size: tuple[int, int] | None, mode: str, on_error: str) -> Bunch:
    """Decode every image below a folder, in sorted order, straight into one array."""
    found = _search(root)
    if found.errors and on_error == "raise":
        raise found.errors[0]
    if not found.images:
        links = f"; {found.n_links} links to folders were not followed" if found.n_links else ""
        raise ValueError(
            f"{root} holds no image files ({found.n_ignored} other files were ignored{links}); "
            f"known endings: {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    bunch = load_files(found.images, root=root, size=size, mode=mode, on_error=on_error)
    unread = [_name(Path(error.filename), root) for error in found.errors]
    bunch.update(skipped=bunch.skipped + unread, n_ignored=found.n_ignored, n_links=found.n_links)
    return bunch


def load_files(
    paths: Sequence[Path],
    *,
    root: Path,
    size: tuple[int, int] | None,
    mode: str,
    on_error: str,
) -> Bunch:
    """Decode image files: a first pass over the headers gives the shape of the array."""
    errors: dict[Path, Exception] = {}
    headers = _read_headers(paths, errors, on_error)
    size = size or _common_size(headers, root)
    grey = mode == "grey" or (mode == "auto" and all(header.is_grey for header in headers.values()))
    images, kept = _decode_all(list(headers), errors, on_error, grey=grey, size=size)
    if not kept:
        raise ValueError(f"none of the {len(paths)} image files in {root} could be read")
    _warn_of_losses(headers, errors, root)
    return Bunch(
        data=images,
        names=[_name(path, root) for path in kept],
        skipped=[_name(path, root) for path in errors],
    )


def _search(root: Path) -> Search:
    errors: list[OSError] = []
    images, n_ignored, n_links = [], 0, 0
    for folder, subfolders, files in os.walk(root, onerror=errors.append):
        n_links += sum(Path(folder, name).is_symlink() for name in subfolders)
        paths = [path for name in files if _is_file(path := Path(folder, name))]
        chosen = [path for path in paths if _is_image(path) and not _is_hidden(path, root)]
        images += chosen
        n_ignored += len(paths) - len(chosen)
    images.sort(key=lambda path: _name(path, root))
    visible = [error for error in errors if not _is_hidden(Path(error.filename), root)]
    return Search(images, n_ignored, n_links, visible)


def _is_file(path: Path) -> bool:
    # A link that leads nowhere is a file that cannot be read, not none.
    return path.is_file() or not path.exists()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


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
                f"the images in {root} differ in size: {_name(first[0], root)} has "
                f"{first[1].size[0]} x {first[1].size[1]} pixels (H x W), {_name(path, root)} has "
                f"{header.size[0]} x {header.size[1]}; give size=(H, W) to resize them all (on the "
                "command line: --size H W)"
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


def _warn_of_losses(headers: dict[Path, Header], errors: dict[Path, Exception], root: Path) -> None:
    if errors:
        path, error = next(iter(errors.items()))
        warnings.warn(
            f"{len(errors)} image files could not be read and were skipped, among them "
            f"{_name(path, root)}: {error}",
            stacklevel=5,
        )
    animated = [path for path, header in headers.items() if header.n_frames > 1]
    if animated:
        warnings.warn(
            f"{len(animated)} files hold several frames, among them "
            f"{_name(animated[0], root)}; only the first frame of each was read",
            stacklevel=5,
        )

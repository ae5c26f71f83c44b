"""``save`` and ``load``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from skgradood.persistence._archive import ArchiveReader, write_archive
from skgradood.persistence._decode import Decoder
from skgradood.persistence._encode import Encoder

FORMAT = "skgradood detector"
FORMAT_VERSION = 1
_PACKAGES = ("skgradood", "scikit-learn", "torch", "numpy", "scipy")


def save(detector: Any, path: str | PathLike[str]) -> None:
    """Save a fitted detector, pipeline or model as a zip of JSON and ``.npy`` arrays.

    The file appears in one step: a crash leaves no half-written file, and the former one in place.

    Parameters
    ----------
    detector : estimator
        Made of this package's estimators and modules, and those of scikit-learn whose fitted
        state is numbers and arrays (Pipeline, ColumnTransformer, FrozenEstimator, scalers, PCA,
        OneClassSVM, GaussianMixture, covariance estimators). torch modules of your own can be in
        it if they keep their constructor's arguments as attributes of the same names. A
        Pipeline's ``memory`` is not saved.
    path : path-like
        The file to write, by convention ending in ``.skg``.

    Raises
    ------
    TypeError
        If something in the detector cannot be saved without pickling; its class is named.
    OSError
        If the file cannot be written.

    See Also
    --------
    load
    """
    encoder = Encoder()
    root = encoder.encode(detector)
    if not isinstance(root, dict) or "object" not in root:
        raise TypeError(f"save expects an estimator; got {type(detector).__name__}")
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "packages": {name: _installed_version(name) for name in _PACKAGES},
        "root": root,
    }
    write_archive(Path(path), manifest, encoder.arrays)


def load(path: str | PathLike[str], *, modules: Sequence[type[torch.nn.Module]] = ()) -> Any:
    """Load what `save` wrote; no code from the file runs, whoever made it.

    Names in the file are looked up in a fixed list, never imported; nothing is unpickled. Modules
    come back on the CPU.

    Parameters
    ----------
    path : path-like
        The file.
    modules : sequence of type, default=()
        Your own torch modules that the detector holds, as classes.

    Returns
    -------
    estimator
        Its scores equal those of the saved one bit for bit on the same machine.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a saved detector, is truncated or damaged, was written by a newer
        version, or names a class or function that is not known.

    Warns
    -----
    UserWarning
        If it was written with another version of scikit-learn.
    """
    path = Path(path)
    with ArchiveReader(path) as archive:
        manifest = archive.read_manifest()
        _check_header(manifest, path)
        decoder = Decoder(archive.read_array, modules)
        try:
            detector = decoder.decode(manifest["root"])
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path} cannot be loaded: {error}") from error
    if not hasattr(detector, "get_params"):
        raise ValueError(f"{path} holds no estimator, but {type(detector).__name__}")
    return detector


def _check_header(manifest: dict[str, Any], path: Path) -> None:
    if manifest.get("format") != FORMAT or "root" not in manifest:
        raise ValueError(f"{path} is not a saved detector")
    if manifest.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has version {manifest.get('version')!r} of the format, and this release reads "
            f"version {FORMAT_VERSION}; update skgradood"
        )
    packages = manifest.get("packages")
    saved = packages.get("scikit-learn") if isinstance(packages, dict) else None
    installed = _installed_version("scikit-learn")
    if saved != installed:
        warnings.warn(
            f"{path} was saved with scikit-learn {saved}, and {installed} is installed; parts of "
            "scikit-learn in it may not work, or work differently",
            stacklevel=3,
        )


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

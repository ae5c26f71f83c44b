"""Imports of packages that are not core dependencies."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_extra(module: str, *, extra: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Parameters
    ----------
    module : str
        Dotted module name, for example ``"PIL.Image"``.
    extra : str
        The extra of this package that installs it, for example ``"codecs"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If the module is missing; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this needs the module {module!r}, which is not installed; "
            f'install it with: pip install "skgradood[{extra}]"'
        ) from error

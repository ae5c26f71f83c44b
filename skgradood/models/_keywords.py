"""Keyword arguments that a `GenerativeNet` hands on, and to what."""

from __future__ import annotations

from collections.abc import Iterable

#: Arguments that go to a component of the training loop, as ``prefix__name``.
PREFIXES = ("module", "optimizer", "iterator_train", "iterator_valid", "dataset", "callbacks")
#: Options of a skorch net that are handed to it as they are.
NET_OPTIONS = ("train_split", "iterator_train", "iterator_valid", "dataset")


def is_handed_on(key: str) -> bool:
    """Whether an argument is meant for the module, the optimizer or the skorch net."""
    prefix, separator, name = key.partition("__")
    return key in NET_OPTIONS or bool(prefix in PREFIXES and separator and name)


def check_keywords(keys: Iterable[str]) -> None:
    """Refuse arguments that nothing takes.

    Parameters
    ----------
    keys : iterable of str
        Names of the keyword arguments.

    Raises
    ------
    TypeError
        Naming the argument and, where one is near, what may have been meant.
    """
    for key in keys:
        if not is_handed_on(key):
            raise TypeError(
                f"GenerativeNet() got an unexpected argument {key!r}, {_suggestion(key)}"
            )


def arguments_for(prefix: str, keywords: dict[str, object]) -> dict[str, object]:
    """The arguments of one component, without its prefix."""
    start = f"{prefix}__"
    return {key.removeprefix(start): v for key, v in keywords.items() if key.startswith(start)}


def _suggestion(key: str) -> str:
    for prefix in PREFIXES:
        name = key.removeprefix(prefix).lstrip("_")
        if key.startswith(prefix) and name:
            return f"did you mean {prefix}__{name}?"
    return (
        f"did you mean module__{key}? Arguments of the module, the optimizer and the data loaders "
        f"take the prefixes {', '.join(f'{prefix}__' for prefix in PREFIXES)}; "
        f"options of the net are {', '.join(NET_OPTIONS)}."
    )

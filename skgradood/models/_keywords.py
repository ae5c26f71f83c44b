"""Keyword arguments that a `GenerativeNet` hands on, and to what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from sklearn.base import BaseEstimator

Net = TypeVar("Net", bound="HandsOn")

#: Arguments that go to a component of the training loop, as ``prefix__name``.
PREFIXES = (
    "module", "optimizer", "iterator_train", "iterator_valid", "dataset", "callbacks", "outliers",
)  # fmt: skip
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


class HandsOn(BaseEstimator):
    """An estimator with parameters of its own, and others that it hands on."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of this estimator, those that are handed on included.

        Parameters
        ----------
        deep : bool, default=True
            Part of scikit-learn's convention.

        Returns
        -------
        dict
        """
        return super().get_params(deep=deep) | self._handed_on()

    def set_params(self: Net, **params: Any) -> Net:
        """Set parameters; those that are handed on need not have been given before.

        Parameters
        ----------
        **params
            As in the constructor.

        Returns
        -------
        self
        """
        handed_on = {key: value for key, value in params.items() if is_handed_on(key)}
        self.__dict__.update(handed_on)
        super().set_params(**{key: v for key, v in params.items() if key not in handed_on})
        return self

    def _handed_on(self) -> dict[str, Any]:
        own = self._get_param_names()
        return {
            key: value
            for key, value in vars(self).items()
            if not (key in own or key.startswith("_") or key.endswith("_"))
        }

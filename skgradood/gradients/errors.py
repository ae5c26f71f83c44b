"""Exceptions and warnings of the engine."""

from __future__ import annotations


class StrategyRefused(RuntimeError):
    """A strategy cannot prove that it would measure this model rightly."""


class EngineWarning(UserWarning):
    """The engine fell back to a slower strategy."""

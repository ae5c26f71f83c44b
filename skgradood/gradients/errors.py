"""Exceptions and warnings of the engine."""

from __future__ import annotations


class StrategyRefused(RuntimeError):
    """A strategy cannot prove that it would measure this model rightly."""


class LogLikelihoodError(TypeError):
    """What should be a log-likelihood does not return one number a sample."""


class EngineWarning(UserWarning):
    """The engine fell back to a slower strategy."""

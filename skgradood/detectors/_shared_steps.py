"""Detectors over the same samples: the steps with which their Pipelines begin alike, run once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.parallel import Parallel, delayed

from skgradood.models._portable import portable
from skgradood.utils.scores import normality_scores

Step = tuple[str, Any]


def fit_detectors(
    detectors: Sequence[Any], X: Any, *, seed: int | None, n_jobs: int | None
) -> list[Any]:
    """Fit clones of detectors; steps that begin several Pipelines alike are fitted once.

    Steps are alike if they are of one class and all their parameters are equal, modules and arrays
    by their content. What is in a FrozenEstimator, or cannot be pickled, equals only itself.

    Parameters
    ----------
    detectors : sequence of estimator
        Detectors or Pipelines; not changed.
    X : array-like of shape (n, ...)
        Samples.
    seed : int or None
        Given to every ``random_state=None`` inside the clones; None leaves those as they are.
    n_jobs : int or None
        Workers, where the Pipelines part.

    Returns
    -------
    list of estimator
        In the order given. Common steps are the same objects in all Pipelines that have them.
    """
    chains = [_Chain.of(i, detector, _pipeline_of) for i, detector in enumerate(detectors)]
    fitted = _fit_branches(chains, X, seed, n_jobs)
    return [_assemble(detector, fitted[i]) for i, detector in enumerate(detectors)]


def score_detectors(detectors: Sequence[Any], X: Any, *, n_jobs: int | None) -> list[np.ndarray]:
    """Score samples with fitted detectors; transformers that are the same object run once.

    Parameters
    ----------
    detectors : sequence of K estimators
        Fitted; Pipelines may be inside FrozenEstimator.
    X : array-like of shape (n, ...)
        Samples.
    n_jobs : int or None
        Workers, where the Pipelines part.

    Returns
    -------
    list of K ndarrays of shape (n,), float64
        Higher is more normal; NaN has become -inf.
    """
    chains = [_Chain.of(i, detector, _fitted_pipeline_of) for i, detector in enumerate(detectors)]
    scores = _score_branches(chains, X, n_jobs)
    return [scores[i] for i in range(len(detectors))]


@dataclass(frozen=True)
class _Chain:
    """The steps of a detector that are still to be run.

    Parameters
    ----------
    index : int
        The detector's place among all.
    transformers : tuple of (name, transformer)
        Without those that pass samples through.
    detector : estimator
        The last step.
    memory : str, joblib.Memory or None
        The Pipeline's cache of fitted transformers.
    """

    index: int
    transformers: tuple[Step, ...]
    detector: Any
    memory: Any = None

    @classmethod
    def of(cls, index: int, detector: Any, pipeline_of: Callable[[Any], Pipeline | None]) -> _Chain:
        pipeline = pipeline_of(detector)
        if pipeline is None:
            return cls(index, (), detector)
        *steps, (_, last) = pipeline.steps
        transformers = tuple(step for step in steps if not _passes_through(step[1]))
        return cls(index, transformers, last, pipeline.memory)

    @property
    def rest(self) -> _Chain:
        """What is left after the first transformer."""
        return replace(self, transformers=self.transformers[1:])


def _pipeline_of(detector: Any) -> Pipeline | None:
    """The detector, if it is a plain Pipeline, whose steps may be run by others."""
    plain = type(detector) is Pipeline and getattr(detector, "transform_input", None) is None
    return detector if plain else None


def _fitted_pipeline_of(detector: Any) -> Pipeline | None:
    return _pipeline_of(_thawed(detector))


def _thawed(estimator: Any) -> Any:
    return _thawed(estimator.estimator) if isinstance(estimator, FrozenEstimator) else estimator


def _passes_through(step: Any) -> bool:
    return step is None or (isinstance(step, str) and step == "passthrough")


def _branches(
    chains: list[_Chain], key_of: Callable[[Any], Hashable]
) -> list[tuple[_Chain, list[_Chain]]]:
    """Group detectors by their next step; each group with the first of its members."""
    groups: dict[Hashable, list[_Chain]] = {}
    for chain in chains:
        # Where only the detector itself is left, there is nothing to share.
        key = key_of(chain.transformers[0][1]) if chain.transformers else (_Chain, chain.index)
        groups.setdefault(key, []).append(chain)
    return [(group[0], group) for group in groups.values()]


def _merged(
    run: Callable[..., dict],
    branches: list,
    X: Any,
    *options: Any,
    n_jobs: Any,
    is_step_output: bool,
) -> dict:
    """Run every branch, in parallel if there are several, and merge what they return."""
    alone = len(branches) == 1
    # What a common step has made belongs to every Pipeline alone, whose next step may write on it.
    is_copied = is_step_output and not alone
    results = Parallel(n_jobs=None if alone else n_jobs)(
        delayed(run)(
            first,
            group,
            copy.deepcopy(X) if is_copied else X,
            *options,
            n_jobs=n_jobs if alone else None,
        )
        for first, group in branches
    )
    return {index: value for result in results for index, value in result.items()}


def _fit_branches(
    chains: list[_Chain],
    X: Any,
    seed: int | None,
    n_jobs: int | None,
    *,
    is_step_output: bool = False,
) -> dict[int, list]:
    """Fit what is left of each detector; the fitted steps by the detector's index."""
    branches = _branches(chains, _structure)
    return _merged(_fit_branch, branches, X, seed, n_jobs=n_jobs, is_step_output=is_step_output)


def _fit_branch(
    first: _Chain, group: list[_Chain], X: Any, seed: int | None, n_jobs: int | None
) -> dict[int, list]:
    if not first.transformers:
        # Without y a FrozenEstimator would refuse.
        return {first.index: [_seeded_clone(first.detector, seed).fit(X, None)]}
    name, transformer = first.transformers[0]
    # The Pipeline's own way of fitting a transformer that is not its last step: from its cache.
    single = Pipeline(
        [(name, _seeded_clone(transformer, seed)), ("detector", "passthrough")],
        memory=first.memory,
    )
    transformed = single.fit_transform(X)
    fitted = single.steps[0][1]
    left = [chain.rest for chain in group]
    rest = _fit_branches(left, transformed, seed, n_jobs, is_step_output=True)
    return {index: [fitted, *steps] for index, steps in rest.items()}


def _score_branches(
    chains: list[_Chain], X: Any, n_jobs: int | None, *, is_step_output: bool = False
) -> dict[int, np.ndarray]:
    branches = _branches(chains, lambda step: id(_thawed(step)))
    return _merged(_score_branch, branches, X, n_jobs=n_jobs, is_step_output=is_step_output)


def _score_branch(
    first: _Chain, group: list[_Chain], X: Any, n_jobs: int | None
) -> dict[int, np.ndarray]:
    if not first.transformers:
        return {first.index: normality_scores(first.detector, X)}
    transformed = first.transformers[0][1].transform(X)
    left = [chain.rest for chain in group]
    return _score_branches(left, transformed, n_jobs, is_step_output=True)


def _seeded_clone(estimator: Any, seed: int | None) -> Any:
    own = clone(estimator)
    if seed is not None:
        unseeded = [
            name
            for name, value in own.get_params(deep=True).items()
            if value is None and name.split("__")[-1] == "random_state"
        ]
        own.set_params(**dict.fromkeys(unseeded, seed))
    return own


def _assemble(detector: Any, fitted: list[Any]) -> Any:
    """Put fitted steps in the places of those of the Pipeline that they come from."""
    pipeline = _pipeline_of(detector)
    if pipeline is None:
        return fitted[0]
    remaining = iter(fitted)
    steps = [
        (name, step if _passes_through(step) else next(remaining)) for name, step in pipeline.steps
    ]
    options = pipeline.get_params(deep=False) | {"steps": steps}
    return Pipeline(**options)


def _structure(value: Any) -> Hashable:
    """A key that is equal for steps that will do the same once fitted on the same samples."""
    if isinstance(value, FrozenEstimator):
        return FrozenEstimator, id(value.estimator)
    if hasattr(value, "get_params") and not isinstance(value, type):
        parameters = sorted(value.get_params(deep=False).items())
        output = repr(vars(value).get("_sklearn_output_config"))
        return type(value), output, tuple((name, _structure(item)) for name, item in parameters)
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_structure(item) for item in value)
    if isinstance(value, dict):
        return dict, tuple((key, _structure(item)) for key, item in value.items())
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        return type(value), repr(value)
    try:
        return joblib.hash(portable(value))
    except Exception:  # whatever a user's object raises when it is pickled
        return id(value)

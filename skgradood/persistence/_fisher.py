"""The state of Fisher matrices: numbers, names and arrays that fit together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skgradood.fisher import APPROXIMATIONS, Approximation, FisherEstimate, FisherOptions
from skgradood.fisher.basis import KroneckerBasis
from skgradood.fisher.halves import Halves
from skgradood.fisher.rotated import Rotated

_Check = Callable[[Any], bool]


def export_part(part: Any) -> dict[str, Any]:
    """Take the state of one of `FISHER_CLASSES`, without what can be computed from it."""
    return {name: value for name, value in vars(part).items() if name != "_converted"}


def restore_part(part: Any, state: dict[str, Any]) -> None:
    """Give a state to an empty instance; ValueError unless it is one that `export_part` takes."""
    kind = type(part)
    is_approximation = isinstance(part, Approximation)
    checks = _APPROXIMATION if is_approximation else _CHECKS[kind]
    optional = _WHERE_COMPLETE if is_approximation else _NOT_IN_OLD_FILES.get(kind, {})
    wrong = checks.keys() - state.keys() | state.keys() - checks.keys() - optional.keys()
    wrong |= {
        name for name, check in (checks | optional).items()
        if name in state and not check(state[name])
    }  # fmt: skip
    if wrong:
        raise ValueError(f"the state of {kind.__name__} is wrong in: {', '.join(sorted(wrong))}")
    vars(part).update(state)
    if isinstance(part, Rotated):
        part._converted = {}
    if isinstance(part, Approximation):
        _check_fit(part)


def _check_fit(approximation: Approximation) -> None:
    """Compare the sizes of what an approximation computes with."""
    state = vars(approximation)
    basis, eigenvalues = state.get("basis"), state.get("eigenvalues")
    n_coordinates = math.prod(approximation.shape)
    if basis is not None and not _is_basis_of(basis, n_coordinates):
        raise ValueError(f"the basis of {approximation.name!r} does not fit its shape")
    if approximation.key == "sketch" and basis is not None:
        n_coordinates = math.prod(v.shape[1] for v in basis.vectors if v is not None)
    if eigenvalues is not None and eigenvalues.numel() != n_coordinates:
        raise ValueError(f"the eigenvalues of {approximation.name!r} do not fit its shape")
    needs = approximation.key != "identity" and approximation.complete
    if needs and (basis is None or eigenvalues is None):
        raise ValueError(f"{approximation.name!r} is said to be complete, and is not")


def _is_basis_of(basis: KroneckerBasis, n_coordinates: int) -> bool:
    fits = len(basis.sizes) == len(basis.vectors) and math.prod(basis.sizes) == n_coordinates
    return fits and all(
        vectors is None or (vectors.ndim == 2 and len(vectors) == size)
        for size, vectors in zip(basis.sizes, basis.vectors, strict=True)
    )


def _of(*kinds: type) -> _Check:
    return lambda value: type(value) in kinds


def _is_tensor(value: Any) -> bool:
    return type(value) is torch.Tensor and value.dtype == torch.float64


def _is_tuple_of_sizes(value: Any) -> bool:
    return type(value) is tuple and all(type(size) is int and size >= 0 for size in value)


def _are_sums(value: Any) -> bool:
    return type(value) is dict and all(
        type(name) is str and _is_tensor(tensor) for name, tensor in value.items()
    )


def _are_vectors(value: Any) -> bool:
    return type(value) is tuple and all(v is None or _is_tensor(v) for v in value)


def _are_members(value: Any) -> bool:
    return type(value) is dict and all(
        type(name) is str and type(members) is list
        and all(isinstance(member, Approximation) for member in members)
        for name, members in value.items()
    )  # fmt: skip


def _are_keys(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.int64 and value.ndim == 1


_APPROXIMATION: dict[str, _Check] = {
    "name": _of(str),
    "shape": _is_tuple_of_sizes,
    "options": _of(FisherOptions),
    "n_samples": _of(int),
    "sums": _are_sums,
    "complete": _of(bool),
}
_WHERE_COMPLETE: dict[str, _Check] = {
    "basis": _of(KroneckerBasis),
    "eigenvalues": _is_tensor,
    "directions": _is_tensor,
    "sizes": _is_tuple_of_sizes,
    "size": _of(int),
}
_CHECKS: dict[type, dict[str, _Check]] = {
    FisherEstimate: {"by_parameter": _are_members, "n_samples": _of(int)},
    FisherOptions: {
        "damping": _of(float, int),
        "power": _of(float, int),
        "damping_scale": _of(str),
        "basis": _of(str),
        "max_factor_size": _of(int),
        "max_block_size": _of(int),
        "sketch_size": _of(int),
        "random_state": _of(int),
    },
    KroneckerBasis: {"sizes": _is_tuple_of_sizes, "vectors": _are_vectors},
    Halves: {"seed": _of(int), "first": _are_keys, "second": _are_keys},
}
# What a file of before lacks is the default of the class.
_NOT_IN_OLD_FILES: dict[type, dict[str, _Check]] = {Halves: {"grouped": _of(bool)}}
FISHER_CLASSES = (*APPROXIMATIONS.values(), *_CHECKS)

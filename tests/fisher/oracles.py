"""Fisher approximations by the plainest code there is: dense gradients, NumPy, and no package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.fisher import FisherEstimate, FisherOptions, QuadraticForms
from skgradood.gradients import GradientEngine, layer_layout


def dense_gradients(module: nn.Module, X: Tensor) -> dict[str, np.ndarray]:
    """Per-sample gradients of every trainable parameter, (n, *shape); complex ones as pairs."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in parameters}
    for i in range(len(X)):
        value = module.log_prob(X[i : i + 1]).sum()
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
            g = torch.zeros_like(parameter) if gradient is None else gradient
            g = torch.view_as_real(g) if g.is_complex() else g
            rows[name].append(g.detach().double().numpy())
    return {name: np.stack(values) for name, values in rows.items()}


def damped(eigenvalues: np.ndarray, damping: float) -> np.ndarray:
    return eigenvalues + damping * eigenvalues.mean()


def form(coordinates: np.ndarray, eigenvalues: np.ndarray, damping: float) -> np.ndarray:
    """Σ c²/(λ + δ), with nothing where both are zero."""
    total = damped(eigenvalues, damping)
    squares = coordinates.reshape(len(coordinates), -1) ** 2
    flat = total.reshape(-1)
    return (squares[:, flat > 0] / flat[flat > 0]).sum(1)


def identity(fitted: np.ndarray, measured: np.ndarray, damping: float) -> np.ndarray:
    return (flat(measured) ** 2).sum(1)


def diagonal(fitted: np.ndarray, measured: np.ndarray, damping: float) -> np.ndarray:
    return form(flat(measured), (flat(fitted) ** 2).mean(0), damping)


def block(fitted: np.ndarray, measured: np.ndarray, damping: float) -> np.ndarray:
    """By a solve with the damped matrix, without any eigenvector."""
    g, F = flat(measured), second_moments(flat(fitted))
    F = F + damping * np.trace(F) / len(F) * np.eye(len(F))
    if not F.any():
        return np.zeros(len(g))
    return np.einsum("ij,ij->i", g, np.linalg.solve(F, g.T).T)


def mode_matrices(
    gradients: np.ndarray, sizes: Sequence[int], max_size: int | None = None
) -> list[np.ndarray]:
    """E[G₍ₖ₎ G₍ₖ₎ᵀ] of every mode; only the diagonal of those that are too large."""
    G = gradients.reshape(len(gradients), *sizes)
    matrices = []
    for mode, size in enumerate(sizes):
        unfolded = np.moveaxis(G, mode + 1, 1).reshape(len(G), size, -1)
        matrix = np.einsum("nij,nkj->ik", unfolded, unfolded) / len(G)
        too_large = max_size is not None and size > max_size
        matrices.append(np.diag(np.diag(matrix)) if too_large else matrix)
    return matrices


def kfac(
    fitted: np.ndarray,
    measured: np.ndarray,
    damping: float,
    sizes: Sequence[int],
    max_size: int | None = None,
) -> np.ndarray:
    matrices = mode_matrices(fitted, sizes, max_size)
    trace = np.trace(matrices[0])
    if trace == 0:
        return np.zeros(len(measured))
    values, vectors = zip(*(np.linalg.eigh(matrix) for matrix in matrices), strict=True)
    product = np.ones(())
    for own in values:
        product = np.multiply.outer(product, np.clip(own, 0, None))
    coordinates = along(measured.reshape(len(measured), *sizes), vectors)
    return form(coordinates, product / trace ** (len(sizes) - 1), damping)


def ekfac(
    fitted: np.ndarray,
    measured: np.ndarray,
    damping: float,
    sizes: Sequence[int],
    max_size: int | None = None,
) -> np.ndarray:
    matrices = mode_matrices(fitted, sizes, max_size)
    vectors = [
        np.eye(len(matrix)) if max_size is not None and len(matrix) > max_size
        else np.linalg.eigh(matrix)[1]
        for matrix in matrices
    ]  # fmt: skip
    own = along(fitted.reshape(len(fitted), *sizes), vectors)
    others = along(measured.reshape(len(measured), *sizes), vectors)
    return form(others, (own**2).mean(0), damping)


def sketch(
    fitted: np.ndarray, measured: np.ndarray, damping: float, directions: Sequence[np.ndarray]
) -> np.ndarray:
    """The exact block of the projections onto Kronecker products of these columns."""
    projection = np.ones((1, 1))
    for columns in directions:
        projection = np.kron(projection, columns)
    return block(flat(fitted) @ projection, flat(measured) @ projection, damping)


def along(tensors: np.ndarray, vectors: Sequence[np.ndarray]) -> np.ndarray:
    for mode, columns in enumerate(vectors):
        tensors = np.moveaxis(np.tensordot(tensors, columns, axes=(mode + 1, 0)), -1, mode + 1)
    return tensors


def second_moments(g: np.ndarray) -> np.ndarray:
    return g.T @ g / len(g)


def flat(gradients: np.ndarray) -> np.ndarray:
    return gradients.reshape(len(gradients), -1)


def estimated(
    module: nn.Module,
    X: Tensor,
    kinds: Sequence[str],
    *,
    engine: str = "auto",
    batch_size: int | str = "auto",
    verify: bool = True,
    layers: str = "parameter",
    **options: object,
) -> FisherEstimate:
    """The package's estimate from rows."""
    layout = layer_layout(module, layers)
    estimate = FisherEstimate.of_module(module, layout, kinds, FisherOptions(**options))
    runner = GradientEngine(module, engine=engine, batch_size=batch_size, verify=verify)
    return estimate.fit(lambda reducer: runner.run(X, reducer))


def statistics(
    module: nn.Module,
    X: Tensor,
    estimate: FisherEstimate,
    *,
    engine: str = "auto",
    batch_size: int | str = "auto",
    verify: bool = True,
    layers: str = "parameter",
) -> np.ndarray:
    """The package's quadratic forms, (number of kinds, n, L)."""
    forms = QuadraticForms(layer_layout(module, layers), estimate.by_parameter)
    runner = GradientEngine(module, engine=engine, batch_size=batch_size, verify=verify)
    runner.run(X, forms)
    return forms.result()


def matrix_of(approximation: object) -> np.ndarray:
    """The whole matrix U diag(λ) Uᵀ of an approximation in Kronecker products of bases."""
    U = np.ones((1, 1))
    for size, vectors in zip(approximation.basis.sizes, approximation.basis.vectors, strict=True):
        U = np.kron(U, np.eye(size) if vectors is None else vectors.numpy())
    return (U * approximation.eigenvalues.reshape(-1).numpy()) @ U.T

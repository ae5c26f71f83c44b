"""A picture of how a layer's parameters share what the score tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.gradients import LayerGradient, per_sample_gradients
from skgradood.gradients.layers import trainable_parameters
from skgradood.gradients.precision import in_float64
from skgradood.inspection._features import frozen
from skgradood.inspection._panels import panels, short_title, unknown_layer
from skgradood.models._batches import draw_seed, resolve_device, sample_in_batches
from skgradood.models._fitted import LikelihoodModel, fit_likelihood

_FISHERS = ("model", "empirical")
_SAMPLING_BATCH = 128


class FisherDisplay:
    """Windows of layers' Fisher information matrices, normalised to a unit diagonal.

    Entry (a, b) is F_ab / √(F_aa F_bb) with F = E[g gᵀ], the mean over samples of the outer
    product of the score g with itself (Figure 2 of [1]_). A diagonal approximation takes all
    other entries for zero. They are estimates: entries whose true value is zero scatter around it
    with a standard deviation of about 1/√n for n samples.

    Parameters
    ----------
    matrices : mapping of str to ndarray of shape (w, w)
        Normalised windows by the name of the layer; NaN where a parameter's gradient is always
        zero (shown in grey). `from_matrix` normalises.
    n_parameters : mapping of str to int, optional
        Parameters of the whole layer.

    Attributes
    ----------
    off_diagonal_ : dict of str to float
        Mean magnitude of the entries off the diagonal, NaN left out; 0 for a diagonal matrix.
    figure_ : matplotlib.figure.Figure
        The figure, after `plot`.
    axes_ : ndarray of matplotlib.axes.Axes
        One a layer.

    References
    ----------
    .. [1] Dauncey, Holmes, Williams and Falck, "Approximations to the Fisher Information Metric of
       Deep Generative Models for Out-Of-Distribution Detection", TMLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood.inspection import FisherDisplay
    >>> display = FisherDisplay.from_matrix([[4.0, 1.0], [1.0, 1.0]], layer="weight")
    >>> display.matrices["weight"]
    array([[1. , 0.5],
           [0.5, 1. ]])
    """

    def __init__(
        self, matrices: Mapping[str, np.ndarray], *, n_parameters: Mapping[str, int] | None = None
    ):
        self.matrices = matrices
        self.n_parameters = n_parameters
        self.off_diagonal_ = {name: _off_diagonal(m) for name, m in matrices.items()}

    @classmethod
    def from_matrix(
        cls, matrix: Any, *, layer: str = "layer", window: int | Sequence[int] = 64
    ) -> FisherDisplay:
        """Show a window of a Fisher matrix that is known.

        Parameters
        ----------
        matrix : array-like of shape (d, d), or mapping of str to such
            Fisher information matrix, or several by the names of their layers.
        layer : str, default="layer"
            The name of the layer, for one matrix.
        window : int or sequence of int, default=64
            How many of the first coordinates to show, or which ones.

        Returns
        -------
        FisherDisplay

        Raises
        ------
        ValueError
            If a matrix is not square, symmetric and finite, has a negative diagonal, or lacks a
            coordinate of the window.
        """
        given = matrix if isinstance(matrix, Mapping) else {layer: matrix}
        matrices, sizes = {}, {}
        for name, values in given.items():
            fisher = _check_fisher(values, name)
            coordinates = _coordinates(window, len(fisher), name)
            matrices[name] = _normalise(fisher[np.ix_(coordinates, coordinates)])
            sizes[name] = len(fisher)
        return cls(matrices, n_parameters=sizes)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        layer: str | Sequence[str],
        n_samples: int = 1024,
        fisher: str = "model",
        window: int | Sequence[int] = 64,
        log_likelihood: Any = "log_prob",
        engine: str = "auto",
        batch_size: int | str = "auto",
        device: Any = "auto",
        verify: bool = True,
        random_state: Any = None,
    ) -> FisherDisplay:
        """Estimate windows of layers' Fisher matrices from per-sample gradients.

        Parameters
        ----------
        estimator : GenerativeNet, FrozenEstimator or nn.Module
            A fitted likelihood model; it is used as it is.
        X : array-like of shape (n, ...), optional
            Samples, for ``fisher="empirical"``.
        layer : str or sequence of str
            Names of parameter tensors (`skgradood.layer_names`), a panel each.
        n_samples : int, default=1024
            How many samples to draw from the model, or at most to take from X.
        fisher : {"model", "empirical"}, default="model"
            Mean over samples that the model draws, or over those of X.
        window : int or sequence of int, default=64
            How many of a layer's first coordinates to show, or which ones, counted as in
            ``parameter.flatten()``.
        log_likelihood, engine, batch_size, device, verify
            See `skgradood.GradientNormTransformer`.
        random_state : int, RandomState or None, default=None
            Seed of the samples, and of whatever noise the log-likelihood draws.

        Returns
        -------
        FisherDisplay

        Raises
        ------
        TypeError
            If ``estimator`` is no likelihood model.
        ValueError
            If there is no such layer or coordinate, the model cannot draw samples, or X is
            missing, not needed, or not what the model takes.
        """
        if fisher not in _FISHERS:
            raise ValueError(f"fisher must be one of {list(_FISHERS)}; got {fisher!r}")
        model = fit_likelihood(frozen(estimator), None, log_likelihood=log_likelihood)
        windows = _windows(model.module, [layer] if isinstance(layer, str) else layer, window)
        seed = draw_seed(random_state)
        samples = _draw(model, X, fisher, n_samples, seed)
        products = _OuterProducts(windows)
        per_sample_gradients(
            model.module,
            samples,
            products,
            log_likelihood=log_likelihood,
            engine=engine,
            batch_size=batch_size,
            verify=verify,
            device=resolve_device(device),
            random_state=seed,
        )
        sizes = {name: p.numel() for name, p in trainable_parameters(model.module).items()}
        return cls(
            products.matrices(),
            n_parameters={name: sizes[name] for name in windows},
        )

    def plot(self, *, ax: Any = None, cmap: str = "RdBu_r") -> FisherDisplay:
        """Draw a panel a layer; pyplot is not touched.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or sequence of them, optional
            Where to draw, one for each layer. A new figure is made without it.
        cmap : str, default="RdBu_r"
            A diverging colour map.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If the number of axes is not that of layers.
        """
        axes = panels(ax, len(self.matrices), width=3.1, height=3.4)
        for panel, (name, matrix) in zip(axes, self.matrices.items(), strict=True):
            panel.set_facecolor("0.75")  # seen where entries are masked
            image = panel.imshow(
                np.ma.masked_invalid(matrix), cmap=cmap, vmin=-1, vmax=1, interpolation="nearest"
            )
            panel.set_title(short_title(name), fontsize="medium")
            panel.set_xlabel(self._caption(name), fontsize="small")
            panel.locator_params(nbins=5, integer=True)
        figure = axes[0].figure
        bar = figure.colorbar(image, ax=list(axes), shrink=0.75, aspect=25)
        bar.set_label(r"$F_{ab}\,/\,\sqrt{F_{aa}F_{bb}}$")
        self.figure_, self.axes_ = figure, axes
        return self

    def _caption(self, name: str) -> str:
        matrix = self.matrices[name]
        n_dead = int(np.isnan(np.diag(matrix)).sum())
        shown = f"{len(matrix)}"
        if self.n_parameters is not None:
            shown += f" of {self.n_parameters[name]:,}"
        lines = [f"{shown} parameters"]
        if np.isfinite(self.off_diagonal_[name]):
            lines.append(f"mean magnitude off the diagonal {self.off_diagonal_[name]:.2f}")
        if n_dead:
            lines.append(f"{n_dead} without gradient (grey)")
        return "\n".join(lines)


class _OuterProducts:
    """A reducer that adds up g gᵀ over samples, for chosen coordinates of chosen tensors."""

    def __init__(self, windows: Mapping[str, np.ndarray]) -> None:
        self.coordinates = {name: torch.as_tensor(window) for name, window in windows.items()}
        self.sums = {
            name: torch.zeros(len(window), len(window), dtype=torch.float64)
            for name, window in windows.items()
        }

    def begin(self, n: int, device: torch.device) -> None:
        self._batch: dict[str, Tensor] = {}

    def update(self, gradient: LayerGradient) -> None:
        if gradient.name not in self.coordinates:
            return
        coordinates = self.coordinates[gradient.name].to(gradient.device)
        for _, block in gradient.blocks():
            scores = in_float64(block.flatten(1)[:, coordinates])
            product = scores.T @ scores
            self._batch[gradient.name] = self._batch.get(gradient.name, 0) + product

    def commit(self) -> None:
        for name, product in self._batch.items():
            self.sums[name] += product.cpu()

    def matrices(self) -> dict[str, np.ndarray]:
        """Normalised sums: the number of samples cancels."""
        return {name: _normalise(total.numpy()) for name, total in self.sums.items()}


def _windows(
    module: nn.Module, layers: Sequence[str], window: int | Sequence[int]
) -> dict[str, np.ndarray]:
    parameters = trainable_parameters(module)
    for name in layers:
        if name not in parameters:
            raise ValueError(unknown_layer(name, list(parameters)))
    if not layers:
        raise ValueError("layer must name at least one layer; got an empty sequence")
    return {name: _coordinates(window, parameters[name].numel(), name) for name in layers}


def _coordinates(window: int | Sequence[int], size: int, name: str) -> np.ndarray:
    if isinstance(window, int | np.integer):
        if window < 1:
            raise ValueError(f"window must be at least 1; got {window}")
        return np.arange(min(int(window), size))
    coordinates = np.asarray(window)
    if coordinates.ndim != 1 or coordinates.dtype.kind not in "iu" or len(coordinates) == 0:
        raise ValueError(f"window must be a whole number or a list of such; got {window!r}")
    if coordinates.min() < 0 or coordinates.max() >= size:
        raise ValueError(
            f"layer {name!r} has the coordinates 0 ... {size - 1}, but window asks for "
            f"{coordinates.min()} ... {coordinates.max()}"
        )
    return coordinates.astype(np.int64)


def _draw(model: LikelihoodModel, X: Any, fisher: str, n_samples: int, seed: int) -> Tensor:
    if fisher == "model":
        if X is not None:
            raise ValueError('X is not used with fisher="model"; pass fisher="empirical"')
        if not callable(getattr(model.module, "sample", None)):
            raise ValueError(
                f"{type(model.module).__name__} has no method sample(n, generator=None), which "
                'fisher="model" needs; pass samples X and fisher="empirical"'
            )
        batch_size = min(n_samples, _SAMPLING_BATCH)
        X = sample_in_batches(model.module, n_samples, batch_size=batch_size, seed=seed)
        return model.prepare(X)
    if X is None:
        raise ValueError('fisher="empirical" needs samples X; pass them, or use fisher="model"')
    samples = model.prepare(X)
    if len(samples) <= n_samples:
        return samples
    rows = np.random.default_rng(seed).choice(len(samples), n_samples, replace=False)
    return samples[torch.from_numpy(np.sort(rows))]


def _check_fisher(values: Any, name: str) -> np.ndarray:
    matrix = np.array(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"the matrix of {name!r} must be square; got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"the matrix of {name!r} holds NaN or infinity")
    if not np.allclose(matrix, matrix.T, rtol=1e-5, atol=1e-8 * np.abs(matrix).max()):
        raise ValueError(f"the matrix of {name!r} is not symmetric, so it is no Fisher matrix")
    if (np.diag(matrix) < 0).any():
        raise ValueError(f"the matrix of {name!r} has a negative diagonal; expected E[g gᵀ]")
    return matrix


def _normalise(matrix: np.ndarray) -> np.ndarray:
    deviations = np.sqrt(np.diag(matrix))
    deviations[deviations == 0] = np.nan
    # One after the other: the product of two small deviations may underflow.
    return matrix / deviations[:, None] / deviations


def _off_diagonal(matrix: np.ndarray) -> float:
    entries = np.abs(matrix[~np.eye(len(matrix), dtype=bool)])
    entries = entries[np.isfinite(entries)]
    return float(entries.mean()) if len(entries) else float("nan")

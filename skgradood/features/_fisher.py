"""The transformer from samples to Fisher-preconditioned statistics of every layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skgradood.features._layer_features import LayerFeatures
from skgradood.fisher import (
    AUTO_DAMPING,
    BASES,
    DAMPING_SCALES,
    FisherEstimate,
    FisherOptions,
    QuadraticForms,
    kinds_of,
)
from skgradood.fisher.halves import Halves
from skgradood.gradients.layers import Layers
from skgradood.utils.atomic import untouched_by_failure


def _learns_from_rows(preconditioner: Any) -> bool:
    return preconditioner.fisher == "empirical"


class FisherPreconditioner(LayerFeatures):
    """Turn images or rows into Fisher-preconditioned score statistics, layer by layer.

    The statistic of layer l is gᵀ F⁻¹ g, with g = ∂ log p(x) / ∂θ_l and F an approximation of the
    Fisher information E[g gᵀ]: the natural size of a score (Rao's score test), on average the
    number of the layer's live parameters on data that the model knows. With ``power=2`` it is
    λ̄ ‖F⁻¹ g‖², the squared norm of the natural gradient.

    A statistic is biased on the rows that its Fisher matrix was fitted on. So ``fit`` estimates
    two, on disjoint halves of the rows; ``transform`` measures rows of the first half, recognised
    by their content, with the second, and all others with the first. What a detector sees of its
    training rows is then distributed as on fresh rows.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model; see `GradientNormTransformer`.
    approximation : str or sequence of str, default="diagonal"
        One or several of the following; several cost one backward pass together.

        - "identity": no Fisher matrix; the statistic is the squared norm.
        - "diagonal": E[g²].
        - "kfac": a Kronecker product of one factor a mode of the parameter tensor.
        - "ekfac": the same eigenbasis, with the exact second moments along it.
        - "block": the exact matrix of every tensor, for small ones.
        - "sketch": the exact matrix of a random projection.

        Every parameter tensor has a matrix of its own (a bias apart from its weight); a layer of
        several tensors adds their statistics up.
    fisher : {"empirical", "model"}, default="empirical"
        Whether the expectation is over the rows of ``fit`` or over samples drawn from the model.
        The latter have no bias on any row, so that one estimate serves.
    damping : float or "auto", default="auto"
        Added to every eigenvalue before it is inverted, so that coordinates in which no row of
        ``fit`` has a gradient weigh much, but finitely. 0 leaves such coordinates out. "auto" is
        0.003 times the tensor's mean eigenvalue.
    power : float, default=1.0
        The statistic is λ̄^(power - 1) gᵀ F^(-power) g, λ̄ the tensor's mean eigenvalue: without
        unit. A larger power looks more at directions in which rows of ``fit`` have little gradient.
    damping_scale : {"mean", "absolute"}, default="mean"
        Whether ``damping`` is a multiple of the tensor's mean eigenvalue, or in its unit.
    basis : {"gradients", "activations"}, default="gradients"
        Where "kfac" and "ekfac" take their eigenbases from: second moments of the gradients as
        matrices, or of activations and output gradients as in the literature.
    n_fisher_samples : int or None, default=None
        Most rows, or samples, that a matrix is estimated from. None: all rows that there are
        (half of them for each of two).
    cross_fit : bool, default=True
        False estimates a single matrix, from all rows: for rows that no detector is fitted on.
    max_factor_size : int, default=1024
        Largest Kronecker factor over input channels and kernel of a convolution together; where
        they would be more, each has its own. Any other dimension that is larger is not rotated.
    max_block_size : int, default=2048
        Largest tensor for "block".
    sketch_size : int, default=256
        Most coordinates of a "sketch".
    layers : str, re.Pattern, callable or dict, default="parameter"
        What is one layer; see `GradientNormTransformer`. "channel" divides ‖F^(-power/2) g‖².
    output : {"quadratic_form", "log"}, default="quadratic_form"
        Statistics, or their logarithms (zero counts as 2.2e-308).
    log_likelihood, log_likelihood_column, engine, batch_size, device, verify, random_state
        See `GradientNormTransformer`. ``random_state`` also divides the rows, draws the model's
        samples and the projections of "sketch".
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...). The statistic is (1/B) Uᵀ F⁻¹ U, with U the
        sum of the group's scores and F that of single samples.
    autocast : {None, "bfloat16", "float16"}, default=None
        See `GradientNormTransformer`.

    Attributes
    ----------
    likelihood_model_ : LikelihoodModel
        The fitted model.
    fisher_ : FisherEstimate
        The matrices that fresh rows are measured with.
    held_out_fisher_ : FisherEstimate or None
        Those that the rows of ``fisher_`` are measured with.
    halves_ : Halves
        Which rows are those of ``fisher_``.
    layer_names_ : list of str
        Names of the L layers.
    n_parameters_ : ndarray of shape (L,), int64
        Scalar parameters in each layer.
    effective_dim_ : ndarray of shape (K * L,), float64
        For each column of a statistic, Σ λ/(λ + damping): the mean of gᵀ F⁻¹ g over the rows that
        ``fisher_`` was estimated from. Without damping, the number of live coordinates.
    n_fisher_samples_ : int
        Rows, or samples, in ``fisher_``.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    References
    ----------
    .. [1] Rao, "Large sample tests of statistical hypotheses concerning several parameters with
       applications to problems of estimation", 1948.
    .. [2] George, Laurent, Bouthillier, Ballas and Vincent, "Fast Approximate Natural Gradient
       Descent in a Kronecker Factored Eigenbasis", NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import FisherPreconditioner, GenerativeNet
    >>> from skgradood.models import DiagonalGaussian
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    >>> FisherPreconditioner(net, approximation=("identity", "ekfac")).fit_transform(X).shape
    (200, 4)
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **LayerFeatures._parameter_constraints,
        "approximation": [str, Sequence],
        "fisher": [StrOptions({"empirical", "model"})],
        "damping": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "power": [Interval(Real, 0, None, closed="neither")],
        "damping_scale": [StrOptions(set(DAMPING_SCALES))],
        "basis": [StrOptions(set(BASES))],
        "n_fisher_samples": [Interval(Integral, 1, None, closed="left"), None],
        "cross_fit": ["boolean"],
        "max_factor_size": [Interval(Integral, 1, None, closed="left")],
        "max_block_size": [Interval(Integral, 1, None, closed="left")],
        "sketch_size": [Interval(Integral, 1, None, closed="left")],
        "output": [StrOptions({"quadratic_form", "log"})],
    }

    fisher_: FisherEstimate
    held_out_fisher_: FisherEstimate | None
    halves_: Halves

    def __init__(
        self,
        estimator: Any,
        *,
        approximation: str | Sequence[str] = "diagonal",
        fisher: str = "empirical",
        damping: float | str = "auto",
        power: float = 1.0,
        damping_scale: str = "mean",
        basis: str = "gradients",
        n_fisher_samples: int | None = None,
        cross_fit: bool = True,
        max_factor_size: int = 1024,
        max_block_size: int = 2048,
        sketch_size: int = 256,
        layers: Layers = "parameter",
        output: str = "quadratic_form",
        log_likelihood: str | Callable = "log_prob",
        log_likelihood_column: bool = False,
        engine: str = "auto",
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        verify: bool = True,
        random_state: Any = None,
        grouped: bool = False,
        autocast: str | None = None,
    ) -> None:
        self.estimator = estimator
        self.approximation = approximation
        self.fisher = fisher
        self.damping = damping
        self.power = power
        self.damping_scale = damping_scale
        self.basis = basis
        self.n_fisher_samples = n_fisher_samples
        self.cross_fit = cross_fit
        self.max_factor_size = max_factor_size
        self.max_block_size = max_block_size
        self.sketch_size = sketch_size
        self.layers = layers
        self.output = output
        self.log_likelihood = log_likelihood
        self.log_likelihood_column = log_likelihood_column
        self.engine = engine
        self.batch_size = batch_size
        self.device = device
        self.verify = verify
        self.random_state = random_state
        self.grouped = grouped
        self.autocast = autocast

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> FisherPreconditioner:
        """Fit the likelihood model, unless it comes fitted, and estimate its Fisher matrices.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, H, W), (n, C, H, W) or (n, H, W, C)
            Rows, or uint8 images; groups of them, (n, B, ...), under ``grouped=True``.
        y : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If ``estimator`` is none of what is expected, or has no such log-likelihood; or under
            ``fisher="model"`` cannot be sampled from.
        ValueError
            If X is not what the model takes, or an option does not fit the model's parameters.
        """
        kinds = kinds_of(self.approximation)
        with untouched_by_failure(self):
            inputs = self._fit_model(X)
            self._start(kinds, inputs)
            if self.fisher == "model":
                n_samples = self.n_fisher_samples or len(inputs) * self._group_size(inputs)
                self._estimate(self.fisher_, self.likelihood_model_.sample(n_samples, self._seed))
            else:
                self._add(inputs)
            self._summarise()
        return self

    @available_if(_learns_from_rows)
    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X: Any, y: Any = None) -> FisherPreconditioner:
        """Add rows to the sums that the Fisher matrices are made of.

        The first call is one of `fit`. The eigenbases of "ekfac" stay those of its rows;
        eigenvalues, and all else, follow the rows of all calls; a row that comes again counts
        again. Not there under ``fisher="model"``, which learns nothing from rows.

        Parameters
        ----------
        X : array-like
            As in `fit`.
        y : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `fit`.
        """
        if not hasattr(self, "fisher_"):
            return self.fit(X)
        with untouched_by_failure(self):
            inputs = self._model_inputs(X)
            self.halves_ = copy.copy(self.halves_)
            self.fisher_ = self.fisher_.copy()
            if self.held_out_fisher_ is not None:
                self.held_out_fisher_ = self.held_out_fisher_.copy()
            self._add(inputs)
            self._summarise()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the statistics of samples.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, K * L) or (n, K * L + 1), float64
            All layers under the first approximation, then under the next; then the log-likelihood
            in nats if it was asked for.

        Raises
        ------
        ValueError
            If X is not what the model takes.
        """
        check_is_fitted(self)
        inputs = self._model_inputs(X)
        n_columns = len(kinds_of(self.approximation)) * len(self.layer_names_)
        statistics = np.empty((len(inputs), n_columns))
        log_likelihoods = np.empty(len(inputs))
        seen = self.halves_.in_first(inputs)
        for mask, estimate in ((~seen, self.fisher_), (seen, self.held_out_fisher_)):
            if estimate is not None and mask.any():
                rows = inputs if mask.all() else inputs[torch.from_numpy(mask)]
                forms = QuadraticForms(self._layout(), estimate.by_parameter)
                engine = self._gradient_engine(grouped=self.grouped)
                log_likelihoods[mask] = engine.run(rows, forms)
                statistics[mask] = np.concatenate(list(forms.result()), axis=1)
        statistics /= self._group_size(inputs)
        return self._table(statistics, log_likelihoods, self.output == "log")

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns.

        Parameters
        ----------
        input_features : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        ndarray of str
            ``<layer>__<approximation>``.
        """
        check_is_fitted(self)
        kinds = kinds_of(self.approximation)
        return self._names([f"{layer}__{kind}" for kind in kinds for layer in self.layer_names_])

    def _start(self, kinds: list[str], inputs: Tensor) -> None:
        """Estimates of no samples, and halves of no rows."""
        options = FisherOptions(
            damping=AUTO_DAMPING if self.damping == "auto" else float(self.damping),
            power=float(self.power),
            damping_scale="mean" if self.damping == "auto" else self.damping_scale,
            basis=self.basis,
            max_factor_size=self.max_factor_size,
            max_block_size=self.max_block_size,
            sketch_size=self.sketch_size,
            random_state=self._seed,
        )
        module, layout = self.likelihood_model_.module, self._layout()
        two = self.cross_fit and self.fisher == "empirical" and len(inputs) > 1
        self.fisher_ = FisherEstimate.of_module(module, layout, kinds, options)
        other = FisherEstimate.of_module(module, layout, kinds, options) if two else None
        self.held_out_fisher_ = other
        self.halves_ = Halves(self._seed, grouped=self.grouped)

    def _add(self, inputs: Tensor) -> None:
        """Take new rows into the estimates, each into one."""
        both = (self.fisher_, self.held_out_fisher_)
        estimates = [estimate for estimate in both if estimate is not None]
        rooms = [self._room(estimate, self._group_size(inputs)) for estimate in estimates]
        for rows, estimate in zip(self.halves_.divide(inputs, rooms), estimates, strict=True):
            if len(rows):
                samples = inputs[torch.from_numpy(rows)]
                self._estimate(estimate, samples.flatten(0, 1) if self.grouped else samples)

    def _room(self, estimate: FisherEstimate, group_size: int) -> int | None:
        """How many rows an estimate still takes; one if it has none."""
        if self.n_fisher_samples is None:
            return None
        room = (self.n_fisher_samples - estimate.n_samples) // group_size
        return max(room, 1 if estimate.n_samples == 0 else 0)

    def _estimate(self, estimate: FisherEstimate, samples: Tensor) -> None:
        engine = self._gradient_engine(grouped=False)
        add = estimate.extend if estimate.complete else estimate.fit
        add(lambda reducer: engine.run(samples, reducer))

    def _summarise(self) -> None:
        dims = self.fisher_.effective_dims(self._layout())
        self.effective_dim_ = np.concatenate([np.asarray(row) for row in dims])
        self.n_fisher_samples_ = self.fisher_.n_samples

    def _group_size(self, inputs: Tensor) -> int:
        return inputs.shape[1] if self.grouped else 1

"""The transformer from samples to one feature a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skgradood.features._layer_features import LayerFeatures
from skgradood.gradients import SquaredNorms
from skgradood.gradients.layers import Layers
from skgradood.utils.atomic import untouched_by_failure


class GradientNormTransformer(LayerFeatures):
    """Turn images or rows into squared norms of the log-likelihood's gradient, layer by layer.

    Feature l of a sample x is f_l(x) = ‖∂ log p(x) / ∂θ_l‖² [1]_ [2]_: an input that the model
    does not understand pulls its parameters in an unusual way.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model. An unfitted `GenerativeNet` is cloned and fitted in ``fit``; one
        inside ``sklearn.frozen.FrozenEstimator``, and a module, are used as they are.
    layers : str, re.Pattern, callable or dict, default="parameter"
        What is one layer: "parameter" (a tensor), "module" (a module's own tensors together) or
        "channel" (an output channel of a tensor); a regular expression, whose distinct matches
        in the parameters' names are the layers, compiled or as ``"regex:<expression>"``; a
        callable ``(name, parameter) -> str or None``; or a dict of layers' names to lists of
        parameters' names. See `skgradood.gradients.layer_layout`. Strings and dicts can be saved
        by `skgradood.persistence.save`; all can be pickled, a callable if it is importable.
    output : {"squared_norm", "log"}, default="squared_norm"
        Squared norms, or their logarithms (a norm of zero counts as 2.2e-308, so that it stays
        finite).
    log_likelihood : str or callable, default="log_prob"
        The name of a method of the module, or a callable ``(module, X, generator) -> (n,)``.
    log_likelihood_column : bool, default=False
        Whether the last column holds the log-likelihood in nats; it costs nothing more.
    engine : {"auto", "capture", "func", "loop"}, default="auto"
        How gradients are computed; see `skgradood.layer_gradient_norms`.
    batch_size : int or "auto", default="auto"
        Samples a pass.
    device : str or torch.device, default="auto"
        Where gradients are computed; "auto" is CUDA where there is one, else the CPU.
    verify : bool, default=True
        Compare two samples of the first batch with a plain loop.
    random_state : int, RandomState or None, default=None
        Seed of whatever noise the log-likelihood draws; None is a fixed seed, too. Each sample's
        noise depends on the seed and its own content alone.
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...), as `skgradood.utils.make_groups` makes
        them: the features of a group are the squared norms of its summed gradient, and the
        log-likelihood column is the sum over the group.
    autocast : {None, "bfloat16", "float16"}, default=None
        Lower precision of the pass, for speed on a GPU; see `skgradood.layer_gradient_norms`.

    Attributes
    ----------
    likelihood_model_ : LikelihoodModel
        The fitted model.
    layer_names_ : list of str
        Names of the L layers.
    n_parameters_ : ndarray of shape (L,), int64
        Scalar parameters in each layer.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    See Also
    --------
    skgradood.layer_gradient_norms : The same for torch users.

    References
    ----------
    .. [1] Dauncey, Holmes, Williams and Falck, "On Gradients of Deep Generative Models for
       Representation-Invariant Anomaly Detection", ICLR workshop 2023.
    .. [2] Dauncey, Holmes, Williams and Falck, "Approximations to the Fisher Information Metric of
       Deep Generative Models for Out-Of-Distribution Detection", TMLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import GenerativeNet, GradientNormTransformer
    >>> from skgradood.models import DiagonalGaussian
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    >>> GradientNormTransformer(net).fit_transform(X).shape
    (200, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **LayerFeatures._parameter_constraints,
        "output": [StrOptions({"squared_norm", "log"})],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        layers: Layers = "parameter",
        output: str = "squared_norm",
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

    # The inner estimator validates its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> GradientNormTransformer:
        """Fit the likelihood model, unless it comes fitted.

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
            If ``estimator`` is none of what is expected, or has no such log-likelihood.
        ValueError
            If X is not what the model takes, or ``layers`` does not fit the model's parameters.
        """
        with untouched_by_failure(self):
            self._fit_model(X)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the features of samples.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, L) or (n, L + 1), float64
            One column a layer, then the log-likelihood in nats if it was asked for.

        Raises
        ------
        ValueError
            If X is not what the model takes.
        """
        check_is_fitted(self)
        inputs = self._model_inputs(X)
        norms = SquaredNorms(self._layout())
        log_likelihoods = self._gradient_engine(grouped=self.grouped).run(inputs, norms)
        return self._table(norms.result(), log_likelihoods, self.output == "log")

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns.

        Parameters
        ----------
        input_features : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self)
        return self._names(self.layer_names_)

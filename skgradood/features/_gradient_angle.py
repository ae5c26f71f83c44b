"""The angle between a sample's gradient and the mean gradient of the training samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils.validation import check_is_fitted

from skgradood.features._layer_features import LayerFeatures
from skgradood.gradients.alignment import Cosines, MeanGradients
from skgradood.gradients.layers import Layers
from skgradood.utils.atomic import untouched_by_failure


class GradientAngleTransformer(LayerFeatures):
    """Turn images or rows into cosines with the mean training gradient, layer by layer.

    Feature l of a sample is cos(g_l(x), m_l), with g_l the gradient of the log-likelihood with
    respect to layer l and m_l its mean over the training samples: where the model still improves,
    samples like those it was trained on pull it the same way, foreign ones do not [1]_. Only the
    direction counts, so that the feature adds to that of `GradientNormTransformer`.

    At the optimum of its training data a model's mean gradient is zero, and its direction noise.
    The angle is for models that were stopped before, for samples of another kind than the
    training data, or for an objective other than the one that was trained.

    Parameters
    ----------
    estimator, layers, log_likelihood, log_likelihood_column, engine, batch_size, device, verify
        As in `GradientNormTransformer`.
    random_state : int, RandomState or None, default=None
        Seed of whatever noise the log-likelihood draws; None is a fixed seed, too.
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...): the angle of a group is that of its summed
        gradient. The mean is one over samples.
    autocast : {None, "bfloat16", "float16"}, default=None
        Lower precision of the pass; see `skgradood.layer_gradient_norms`.

    Attributes
    ----------
    likelihood_model_ : LikelihoodModel
        The fitted model.
    mean_gradients_ : dict of str to ndarray
        Mean training gradient of every parameter.
    layer_names_ : list of str
        Names of the L layers.
    n_parameters_ : ndarray of shape (L,), int64
        Scalar parameters in each layer.
    n_features_in_ : int
        Values in a sample.
    feature_names_in_ : ndarray of str
        Names of the input's columns, if X was a DataFrame.

    References
    ----------
    .. [1] G. Kwon, M. Prabhushankar, D. Temel, G. AlRegib, "Backpropagated gradient representations
       for anomaly detection", ECCV 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood import GenerativeNet
    >>> from skgradood.features import GradientAngleTransformer
    >>> from skgradood.models import DiagonalGaussian
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    >>> GradientAngleTransformer(net).fit_transform(X).shape
    (200, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {**LayerFeatures._parameter_constraints}

    def __init__(
        self,
        estimator: Any,
        *,
        layers: Layers = "parameter",
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
    def fit(self, X: Any, y: Any = None) -> GradientAngleTransformer:
        """Fit the likelihood model, unless it comes fitted, and average its gradients.

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
            inputs = self._fit_model(X)
            means = MeanGradients(self._layout())
            samples = inputs.flatten(0, 1) if self.grouped else inputs
            self._gradient_engine(grouped=False).run(samples, means)
            self.mean_gradients_ = means.result()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the cosines of samples.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, L) or (n, L + 1), float64
            One column a layer in [-1, 1], then the log-likelihood in nats if it was asked for. 0
            where a gradient is zero, NaN where it is not finite.

        Raises
        ------
        ValueError
            If X is not what the model takes.
        """
        check_is_fitted(self)
        inputs = self._model_inputs(X)
        cosines = Cosines(self._layout(), self.mean_gradients_)
        log_likelihoods = self._gradient_engine(grouped=self.grouped).run(inputs, cosines)
        return self._table(cosines.result(), log_likelihoods, log=False)

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

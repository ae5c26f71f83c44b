"""A generative torch module as a scikit-learn density estimator."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skgradood.gradients.state import isolated_rng
from skgradood.models import _state
from skgradood.models._batches import (
    draw_seed,
    evaluate_in_batches,
    resolve_device,
    sample_in_batches,
)
from skgradood.models._inputs import as_module_input, check_input_kind
from skgradood.models._keywords import arguments_for, check_keywords, is_handed_on
from skgradood.models._training import OPTIMIZERS, LikelihoodTrainer, at_rest, make_trainer
from skgradood.utils.validation import check_and_remember_samples

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Values in the batch that data-dependent initialisation sees, whatever the size of a sample.
_VALUES_TO_INITIALIZE = 2**18


class GenerativeNet(DensityMixin, BaseEstimator):
    """Train a generative module by maximum likelihood and use it as a density estimator.

    Any ``torch.nn.Module`` with a method ``log_prob(X) -> (n,)`` in nats will do; training runs on
    skorch. Optional members of the module: ``training_loss(X) -> (n,)`` (default
    ``-log_prob(X)``), ``sample(n, generator=None)``, ``initialize(X)`` for data-dependent
    initialisation, ``input_kind`` (``"image"`` for uint8 images, ``"continuous"`` for floats) and
    a constructor argument ``input_shape``, filled in from the data.

    Parameters
    ----------
    module : type or callable
        The class of the module, or a function that makes one.
    lr : float, default=1e-3
        Learning rate.
    max_epochs : int, default=10
        Passes over the data in one call of `fit` or `partial_fit`.
    batch_size : int, default=64
        Samples a batch, in training and evaluation.
    optimizer : {"adam", "adamax", "adamw", "sgd"} or optimizer class, default="adam"
        How parameters are updated.
    device : str or torch.device, default="auto"
        ``"auto"`` is a GPU where there is one.
    dtype : {"float32", "float64"}, default="float32"
        Floating dtype of the module.
    random_state : int, RandomState or None, default=None
        Seed of initialisation, shuffling and training noise. Global generators are not touched.
    callbacks : list of skorch callbacks or None, default=None
        For example learning rate schedules or early stopping. Gradients are clipped to a
        percentile of their past norms; ``callbacks__gradient_clipping=None`` switches that off.
    verbose : {0, 1, 2}, default=0
        Nothing, a progress bar, or a table with one line an epoch.
    **kwargs
        ``module__x`` goes to the module, ``optimizer__x`` to the optimizer, ``iterator_train__x``
        and ``iterator_valid__x`` to the data loaders; ``train_split``, ``iterator_train``,
        ``iterator_valid`` and ``dataset`` are skorch's options.

    Attributes
    ----------
    module_ : nn.Module
        The trained module, in evaluation mode.
    net_ : skorch.NeuralNet
        The training loop and its optimizer. Not saved with the estimator.
    input_shape_ : tuple of int
        Shape of one sample: ``(d,)`` or ``(C, H, W)``.
    n_features_in_ : int
        Values in one sample.
    feature_names_in_ : ndarray of str
        Names of the columns, if X was a DataFrame.
    history_ : list of dict
        For every epoch: ``epoch``, ``train_loss``, ``valid_loss`` (nats per sample) and whatever
        callbacks record.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood.models import DiagonalGaussian, GenerativeNet
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0).fit(X)
    >>> net.score_samples(X[:3]).shape
    (3,)
    """

    _parameter_constraints: dict[str, list] = {
        "module": [callable],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [StrOptions(set(OPTIMIZERS)), callable],
        "device": [str, torch.device],
        "dtype": [StrOptions(set(_DTYPES))],
        "random_state": ["random_state"],
        "callbacks": [list, None],
        "verbose": [Interval(Integral, 0, 2, closed="both")],
    }

    module_: nn.Module
    net_: LikelihoodTrainer
    history_: list[dict[str, Any]]
    input_shape_: tuple[int, ...]

    def __init__(
        self,
        module: Callable[..., nn.Module],
        *,
        lr: float = 1e-3,
        max_epochs: int = 10,
        batch_size: int = 64,
        optimizer: str | type[torch.optim.Optimizer] = "adam",
        device: str | torch.device = "auto",
        dtype: str = "float32",
        random_state: Any = None,
        callbacks: list[Any] | None = None,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        self.module = module
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.callbacks = callbacks
        self.verbose = verbose
        self.__dict__.update(kwargs)

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

    def set_params(self, **params: Any) -> GenerativeNet:
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

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> GenerativeNet:
        """Initialise the module anew and train it.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, H, W), (n, C, H, W) or (n, H, W, C)
            Rows or uint8 images; flat rows are reshaped if ``module__input_shape`` is given.
        y : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            For a keyword argument that nothing takes, or a module without ``log_prob``.
        ValueError
            If X is not what the module takes.
        RuntimeError
            If training diverges. An earlier fit is then still in place, as after an interruption.
        """
        return self._train(X, fresh=True)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> GenerativeNet:
        """Train for ``max_epochs`` more epochs, going on from where the last fit ended.

        Parameters
        ----------
        X : array-like
            As in `fit`.
        y : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        self
        """
        return self._train(X, fresh=not self.__sklearn_is_fitted__())

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-likelihood of every sample.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
            Nats, summed over the dimensions of a sample.
        """
        check_is_fitted(self)
        return evaluate_in_batches(
            cast("Callable[[Tensor], Tensor]", self.module_.log_prob),
            as_module_input(self._check_samples(X, reset=False), self.module_),
            batch_size=self.batch_size,
            device=next(self.module_.parameters()).device,
        )

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood in nats.

        Parameters
        ----------
        X : array-like
            As in `fit`.
        y : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        float
        """
        return float(self.score_samples(X).mean())

    def bits_per_dim(self, X: Any) -> np.ndarray:
        """Negative log-likelihood in bits, divided by the number of dimensions.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,), float64
        """
        return -self.score_samples(X) / (self.n_features_in_ * math.log(2))

    def sample(self, n: int, random_state: Any = None) -> np.ndarray:
        """Draw samples from the model.

        Parameters
        ----------
        n : int
            How many.
        random_state : int, RandomState or None, default=None
            Seed of the draw.

        Returns
        -------
        ndarray of shape (n, ...)
            uint8 from a model of images, the module's floating dtype from one of rows.

        Raises
        ------
        AttributeError
            If the module has no ``sample`` method.
        """
        check_is_fitted(self)
        return sample_in_batches(
            self.module_, n, batch_size=self.batch_size, seed=draw_seed(random_state)
        )

    def _handed_on(self) -> dict[str, Any]:
        own = self._get_param_names()
        return {
            key: value
            for key, value in vars(self).items()
            if not (key in own or key.startswith("_") or key.endswith("_"))
        }

    def _train(self, X: Any, *, fresh: bool) -> GenerativeNet:
        before = dict(vars(self))
        try:
            self._train_in_place(X, fresh=fresh)
        except BaseException:
            # Also an interruption from the keyboard must leave the earlier fit as it was.
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _train_in_place(self, X: Any, *, fresh: bool) -> None:
        check_keywords(self._handed_on())
        device = resolve_device(self.device)
        history = [] if fresh else self.history_
        samples = self._check_samples(X, reset=fresh)
        with isolated_rng(draw_seed(self.random_state, stage=len(history))):
            if fresh:
                check_input_kind(samples, self.module)
                self.input_shape_ = samples.shape[1:]
                self._recipe = _state.ModuleRecipe(
                    self.module, self._module_arguments(), _DTYPES[self.dtype]
                )
                module = self._recipe.make()
            else:
                module = copy.deepcopy(self.module_)
            inputs = as_module_input(samples, module)
            module = module.to(device)
            initialize = getattr(module, "initialize", None)
            if fresh and initialize is not None:
                initialize(self._first_batch(inputs).to(device))
            trainer = self._make_trainer(module, device)
            if not fresh and hasattr(self, "net_"):
                trainer.resume(self.net_.optimizer_.state_dict())
            trainer.train(inputs)
        self.net_ = trainer
        self.module_ = at_rest(module)
        self.history_ = history + trainer.epochs(first=len(history) + 1)

    def _check_samples(self, X: Any, *, reset: bool) -> np.ndarray:
        shape = self._handed_on().get("module__input_shape") if reset else self.input_shape_
        return check_and_remember_samples(self, X, reset=reset, input_shape=shape)

    def _module_arguments(self) -> dict[str, Any]:
        arguments = arguments_for("module", self._handed_on())
        if "input_shape" in inspect.signature(self.module).parameters:
            arguments.setdefault("input_shape", self.input_shape_)
        return arguments

    def _first_batch(self, inputs: Tensor) -> Tensor:
        n = max(self.batch_size, _VALUES_TO_INITIALIZE // self.n_features_in_)
        return inputs[torch.randperm(len(inputs))[:n]]

    def _make_trainer(self, module: nn.Module, device: torch.device) -> LikelihoodTrainer:
        handed_on = self._handed_on()
        options = {key: v for key, v in handed_on.items() if not key.startswith("module__")}
        return make_trainer(
            module,
            optimizer=self.optimizer,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            device=device,
            # Callbacks keep what they learnt during training; the user's stay as they are.
            callbacks=copy.deepcopy(self.callbacks),
            verbose=self.verbose,
            **options,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("net_", None)
        if "module_" in state:
            state["module_"] = _state.to_arrays(self.module_)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "module_" in state:
            self.module_ = _state.restore(self._recipe, state["module_"], self.device)

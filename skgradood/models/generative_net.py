"""A generative torch module as a scikit-learn density estimator."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import DensityMixin, _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from skgradood.gradients.copying import copy_of
from skgradood.gradients.state import isolated_rng
from skgradood.models import _state
from skgradood.models._batches import (
    draw_seed,
    resolve_device,
)
from skgradood.models._classes import encode_labels, find_classes, is_class_conditional
from skgradood.models._inputs import as_module_input, check_input_kind
from skgradood.models._keywords import HandsOn, arguments_for, check_keywords
from skgradood.models._lost_digits import warn_of_lost_digits
from skgradood.models._outliers import OUTLIER_LOSSES, OutlierTrainer, outlier_source
from skgradood.models._pretrained import copy_weights, pretrained_names
from skgradood.models._trained import TrainedModule
from skgradood.models._training import OPTIMIZERS, LikelihoodTrainer, at_rest, make_trainer
from skgradood.utils.atomic import untouched_by_failure
from skgradood.utils.validation import check_and_remember_samples, check_same_columns

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Values in the batch that data-dependent initialisation sees, whatever the size of a sample.
_VALUES_TO_INITIALIZE = 2**18


class GenerativeNet(_state.NetState, TrainedModule, DensityMixin, HandsOn):
    """Train a generative module by maximum likelihood and use it as a density estimator.

    Any ``torch.nn.Module`` with a method ``log_prob(X) -> (n,)`` in nats will do; training runs on
    skorch. Optional members of the module: ``training_loss(X) -> (n,)`` (default
    ``-log_prob(X)``), ``sample(n, generator=None)``, ``initialize(X)`` for data-dependent
    initialisation, ``input_kind`` (``"image"`` for uint8 images, ``"tokens"`` for whole numbers,
    ``"continuous"`` for floats) and a constructor argument ``input_shape``, filled in from the
    data. A module with ``n_classes`` that is not None and ``labelled_training_loss(X, y)``, such as
    `Glow`, is trained with labels; ``elbo(X, generator)``, a bound that draws noise, is what
    `bits_per_dim` reports.

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
        ``"auto"`` is CUDA where there is one, else the CPU; ``"mps"`` is an Apple GPU.
    dtype : {"float32", "float64"}, default="float32"
        Floating dtype of the module.
    random_state : int, RandomState or None, default=None
        Seed of initialisation, shuffling and training noise. Global generators are not touched.
    callbacks : list of skorch callbacks or None, default=None
        For example learning rate schedules or early stopping. Gradients are clipped to a
        percentile of their past norms; ``callbacks__gradient_clipping=None`` switches that off.
    verbose : {0, 1, 2}, default=0
        Nothing, a progress bar, or a table with one line an epoch.
    outliers : array-like of shape (m, ...) or None, default=None
        Samples of another, or more general, distribution, whose likelihood training keeps low.
        They take part in training only, and are not saved in a ``.skg`` file.
    outlier_loss : {"softplus", "margin"}, default="softplus"
        With log p = minus the training loss, in nats: "softplus" [1]_ adds the mean of
        weight * softplus((log p(x_out) - log p_g(x_out)) / temperature); "margin" [2]_ that of
        weight * max(0, margin + log p(x_out) - log p(x_in)). ``outliers__weight`` is 6000 or 1,
        ``outliers__temperature`` 1000 nats (for colour images of 32 x 32; for rows take a few
        nats, and a weight not much larger), ``outliers__margin`` one nat a dimension.
        ``outliers__general``, a fitted net of the outliers' distribution, gives log p_g;
        without it that is 0. Put it into ``sklearn.frozen.FrozenEstimator`` to outlast ``clone``.
        What is not finite is left out; a batch is skipped if over 75 % of it is.
    initial_model : GenerativeNet, FrozenEstimator, nn.Module or None, default=None
        A fitted model whose weights training begins with, in place of ``initialize``.
    warm_start : bool, default=False
        Whether `fit` goes on from the last fit, as `partial_fit` does, with the same module.
    supervised_weight : float, default=1.0
        Where labels are trained with, the loss of a sample is
        ``-log p(x, y) - supervised_weight * log p(y | x)`` [1]_.
    **kwargs
        ``module__x`` goes to the module, ``optimizer__x`` to the optimizer, ``iterator_train__x``
        and ``iterator_valid__x`` to the data loaders, ``outliers__x`` to the outlier loss;
        ``train_split``, ``iterator_train``, ``iterator_valid`` and ``dataset`` are skorch's.

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
        callbacks record; ``outlier_loss`` and ``supervised_loss`` are parts of ``train_loss``.
    classes_ : ndarray of shape (n_classes,)
        The different labels, in the order of the module's classes; only after training with them.

    References
    ----------
    .. [1] Schirrmeister, Zhou, Ball and Zhang, "Understanding Anomaly Detection with Deep
       Invertible Networks through Hierarchies of Distributions and Features", NeurIPS 2020.
    .. [2] Hendrycks, Mazeika and Dietterich, "Deep Anomaly Detection with Outlier Exposure", ICLR
       2019.

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
        "outliers": ["array-like", None],
        "outlier_loss": [StrOptions(set(OUTLIER_LOSSES))],
        "initial_model": [object],
        "warm_start": ["boolean"],
        "supervised_weight": [Interval(Real, 0, None, closed="left")],
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
        outliers: Any = None,
        outlier_loss: str = "softplus",
        initial_model: Any = None,
        warm_start: bool = False,
        supervised_weight: float = 1.0,
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
        self.outliers = outliers
        self.outlier_loss = outlier_loss
        self.initial_model = initial_model
        self.warm_start = warm_start
        self.supervised_weight = supervised_weight
        self.__dict__.update(kwargs)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> GenerativeNet:
        """Initialise the module anew, unless under ``warm_start=True``, and train it.

        Parameters
        ----------
        X : array-like of shape (n, d), (n, H, W), (n, C, H, W) or (n, H, W, C)
            Rows or uint8 images; flat rows are reshaped if ``module__input_shape`` is given.
        y : array-like of shape (n,) or None, default=None
            Labels, numbers or strings, for a module with classes. Every other module ignores them.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            For a keyword argument that nothing takes, or a module without ``log_prob``.
        ValueError
            If X is not what the module takes, or y not the labels of its classes; under
            ``warm_start=True``, if the module's parameters are others than it was made with.
        RuntimeError
            If training diverges. An earlier fit is then still in place, as after an interruption.
        """
        return self._train(X, y, fresh=not (self.warm_start and self.__sklearn_is_fitted__()))

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> GenerativeNet:
        """Train for ``max_epochs`` more epochs, going on from where the last fit ended.

        Parameters
        ----------
        X : array-like
            As in `fit`.
        y : array-like of shape (n,) or None, default=None
            As in `fit`; all of ``classes_`` need not be there.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As `fit` under ``warm_start=True``.
        """
        return self._train(X, y, fresh=not self.__sklearn_is_fitted__())

    def _train(self, X: Any, y: Any, *, fresh: bool) -> GenerativeNet:
        with untouched_by_failure(self):
            self._train_in_place(X, y, fresh=fresh)
        return self

    def _train_in_place(self, X: Any, y: Any, *, fresh: bool) -> None:
        check_keywords(self._handed_on())
        device = resolve_device(self.device)
        history = [] if fresh else self.history_
        samples = self._check_samples(X, reset=fresh)
        self._check_names(fresh=fresh)
        with isolated_rng(draw_seed(self.random_state, stage=len(history))):
            if fresh:
                check_input_kind(samples, self.module)
                self.input_shape_ = samples.shape[1:]
                self._recipe = self._recipe_now()
                module = self._recipe.make()
            else:
                self._recipe.check_unchanged(self._recipe_now())
                module = copy_of(self.module_)
            inputs = as_module_input(samples, module)
            warn_of_lost_digits(samples, inputs)
            labels = self._number_labels(y, len(samples), module, fresh=fresh)
            module = module.to(device)
            initialize = getattr(module, "initialize", None)
            if fresh and self.initial_model is not None:
                copy_weights(self.initial_model, module)
            elif fresh and initialize is not None:
                initialize(self._first_batch(inputs).to(device))
            trainer = self._make_trainer(module, device, labelled=labels is not None)
            if not fresh and hasattr(self, "net_"):
                trainer.resume(self.net_.optimizer_.state_dict())
            trainer.train(inputs, labels)
        self.net_ = trainer
        self.module_ = at_rest(module)
        self.history_ = history + trainer.epochs(first=len(history) + 1)

    def _number_labels(
        self, y: Any, n_samples: int, module: nn.Module, *, fresh: bool
    ) -> Tensor | None:
        """Labels as numbers of classes, (n,); None for a module that takes none.

        A fresh fit finds ``classes_``, a later one compares with them.
        """
        if fresh and hasattr(self, "classes_"):
            del self.classes_
        if not is_class_conditional(module):
            return None
        if fresh:
            self.classes_ = find_classes(y, module)
        return torch.from_numpy(encode_labels(y, self.classes_, n_samples, module))

    def _check_samples(self, X: Any, *, reset: bool) -> np.ndarray:
        shape = self._handed_on().get("module__input_shape") if reset else self.input_shape_
        return check_and_remember_samples(self, X, reset=reset, input_shape=shape)

    def _check_names(self, *, fresh: bool) -> None:
        """Refuse outliers, and a model to start from, of other columns."""
        own = getattr(self, "feature_names_in_", None)
        check_same_columns(
            getattr(self.outliers, "columns", None), own, name="outliers", model="this net"
        )
        if fresh and self.initial_model is not None:
            names = pretrained_names(self.initial_model)
            check_same_columns(own, names, name="X", model="initial_model")

    def _recipe_now(self) -> _state.ModuleRecipe:
        arguments = arguments_for("module", self._handed_on())
        if "input_shape" in inspect.signature(self.module).parameters:
            arguments.setdefault("input_shape", self.input_shape_)
        return _state.ModuleRecipe(self.module, arguments, _DTYPES[self.dtype])

    def _first_batch(self, inputs: Tensor) -> Tensor:
        n = max(self.batch_size, _VALUES_TO_INITIALIZE // self.n_features_in_)
        return inputs[torch.randperm(len(inputs))[:n]]

    def _make_trainer(
        self, module: nn.Module, device: torch.device, *, labelled: bool
    ) -> LikelihoodTrainer:
        handed_on = self._handed_on()
        apart = ("module__", "outliers__")
        options = {key: v for key, v in handed_on.items() if not key.startswith(apart)}
        trainer = make_trainer(
            module,
            kind=LikelihoodTrainer if self.outliers is None else OutlierTrainer,
            supervised_weight=self.supervised_weight if labelled else None,
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
        if isinstance(trainer, OutlierTrainer):
            trainer.outliers_ = outlier_source(
                self.outliers,
                module,
                input_shape=self.input_shape_,
                loss=self.outlier_loss,
                options=arguments_for("outliers", handed_on),
                batch_size=self.batch_size,
            )
        return trainer

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

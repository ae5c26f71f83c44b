"""The recommended detector, from images or rows to a verdict."""

from __future__ import annotations

import functools
from typing import Any

from sklearn.pipeline import Pipeline

from skgradood.detectors import recommended_detector
from skgradood.features import FisherPreconditioner
from skgradood.gradients.layers import Layers


def make_detector(
    estimator: Any,
    *,
    data: str = "auto",
    layers: Layers = "parameter",
    approximation: str = "ekfac",
    power: float = 2.0,
    damping: float | str = "auto",
    n_fisher_samples: int | None = 5000,
    contamination: float | str = "auto",
    engine: str = "auto",
    batch_size: int | str = "auto",
    device: Any = "auto",
    random_state: Any = None,
    grouped: bool = False,
    memory: Any = None,
) -> Pipeline:
    """Make the recommended detector around a likelihood model.

    The squared norm of every layer's natural gradient, ‖F⁻¹ g‖², with F an EKFAC approximation of
    its Fisher matrix, and the log-likelihood, judged by tests whose p-values are combined by
    Fisher's method: for images the sum over layers, the same at equal log-likelihoods, the joint
    density of all layers, and typicality; for rows the sum, the joint density, and a small
    likelihood. They were chosen by a search over models and data sets;
    ``docs/results/default.md`` tells what was tried.

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model; see `GradientNormTransformer`. An unfitted `GenerativeNet` is
        trained on the same samples that then set the reference. Where data allow, train it first
        and pass it inside ``sklearn.frozen.FrozenEstimator``, with other samples for this
        pipeline.
    data : {"auto", "images", "rows"}, default="auto"
        What X holds. A small likelihood of a row is evidence against it; that of an image is not,
        where a large one is none for it. "auto": rows, where the model's module declares
        ``input_kind = "continuous"``, as `RealNVP` and the other models of rows do, else images;
        so say what they are where a function makes the module and it is not trained yet.
    layers : str, re.Pattern, callable or dict, default="parameter"
        What is one layer: "parameter", "module", "channel", or a grouping of your own; see
        `GradientNormTransformer`.
    approximation : {"ekfac", "kfac", "diagonal", "identity", "block", "sketch"}, default="ekfac"
        Of the Fisher matrix; see `FisherPreconditioner`. "diagonal" costs less.
    power, damping, n_fisher_samples
        See `FisherPreconditioner`. Of the samples in ``fit`` at most twice ``n_fisher_samples``
        estimate Fisher matrices; all set the reference.
    contamination : float or "auto", default="auto"
        Share of outliers among the training samples, for ``predict``. For a false-positive rate
        that holds on fresh samples wrap the pipeline in a `ConformalDetector`.
    engine, batch_size, device, random_state, grouped
        See `GradientNormTransformer`. ``random_state`` also divides the samples.
    memory : str, joblib.Memory or None, default=None
        Where the pipeline caches the fitted features.

    Returns
    -------
    Pipeline
        With the steps "features" and "detector"; ``score_samples`` is the logarithm of a
        p-value, higher for more normal samples.

    Raises
    ------
    ValueError
        For other ``data``.
    """
    features = FisherPreconditioner(
        estimator,
        layers=layers,
        approximation=approximation,
        power=power,
        damping=damping,
        n_fisher_samples=n_fisher_samples,
        output="log",
        log_likelihood_column=True,
        engine=engine,
        batch_size=batch_size,
        device=device,
        random_state=random_state,
        grouped=grouped,
    )
    if data == "auto":
        data = _kind_of_data(estimator)
    detector = recommended_detector(
        data=data, contamination=contamination, random_state=random_state
    )
    return Pipeline([("features", features), ("detector", detector)], memory=memory)


def _kind_of_data(estimator: Any) -> str:
    """What a likelihood model is of: its module, or the class of it, says so."""
    model = getattr(estimator, "estimator", estimator)  # inside a FrozenEstimator
    module = getattr(model, "module_", None) or getattr(model, "module", model)
    if isinstance(module, functools.partial):
        module = module.func
    return "rows" if getattr(module, "input_kind", None) == "continuous" else "images"

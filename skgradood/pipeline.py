"""The recommended detector, from images or rows to a verdict."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline

from skgradood.detectors import ChiSquareJointDensity
from skgradood.features import GradientNormTransformer
from skgradood.gradients.layers import Layers


def make_detector(
    estimator: Any,
    *,
    layers: Layers = "parameter",
    contamination: float | str = "auto",
    engine: str = "auto",
    batch_size: int | str = "auto",
    device: Any = "auto",
    random_state: Any = None,
    grouped: bool = False,
    memory: Any = None,
) -> Pipeline:
    """Make the recommended detector around a likelihood model.

    The logarithms of all layers' squared gradient norms and the log-likelihood, modelled by one
    Gaussian with a shrunk covariance. It serves well with a VAE of images, and not yet with a
    Glow, where a one-class SVM on the same features is better (``docs/results`` has the figures).

    Parameters
    ----------
    estimator : GenerativeNet, FrozenEstimator or nn.Module
        The likelihood model; see `GradientNormTransformer`. An unfitted `GenerativeNet` is
        trained on the same samples that then set the reference. Where data allow, train it first
        and pass it inside ``sklearn.frozen.FrozenEstimator``, with other samples for this
        pipeline.
    layers : str, re.Pattern, callable or dict, default="parameter"
        What is one layer: "parameter", "module", "channel", or a grouping of your own; see
        `GradientNormTransformer`.
    contamination : float or "auto", default="auto"
        Share of outliers among the training samples, for ``predict``. For a false-positive rate
        that holds on fresh samples wrap the pipeline in a `ConformalDetector`.
    engine, batch_size, device, random_state, grouped
        See `GradientNormTransformer`.
    memory : str, joblib.Memory or None, default=None
        Where the pipeline caches the fitted features.

    Returns
    -------
    Pipeline
        With the steps "features" and "density"; ``score_samples`` is a log-density in nats,
        higher for more normal samples.
    """
    features = GradientNormTransformer(
        estimator,
        layers=layers,
        output="log",
        log_likelihood_column=True,
        engine=engine,
        batch_size=batch_size,
        device=device,
        random_state=random_state,
        grouped=grouped,
    )
    density = ChiSquareJointDensity(
        marginal="normal", dependence="gaussian", contamination=contamination
    )
    return Pipeline([("features", features), ("density", density)], memory=memory)

"""Other libraries' ways to per-sample gradient norms, for the speed benchmark.

They need ``pip install skgradood[peers]``. Every one gets a copy of the model, because they patch
what they are given, and is asked for the squared norm of every parameter tensor (kronfluence: of
every module), batch after batch; those of the last batch, or of all rows, are returned. What each
does is compared with a plain loop before it is timed.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.gradients import layer_gradient_norms, layer_names

Norms = dict[str, Tensor]
Runner = Callable[[], Norms]

# Squared norms further from the loop's than this are called wrong; float32 rounding is 1e-4.
WRONG = 1e-2
_ROWS_COMPARED = 4
_LONGEST_REASON = 90


class Refused(Exception):
    """The library does not serve this model."""


def required(name: str) -> ModuleType:
    """A peer's package; SystemExit that names the extra if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(
            f"{name.partition('.')[0]} is not installed ({error}): pip install 'skgradood[peers]', "
            "or choose --methods without it"
        ) from error


def batch_after_batch(run: Callable[[Tensor], Norms], X: Tensor, batch_size: int) -> Runner:
    """Serve every batch; what is returned are the norms of the last."""

    def run_all() -> Norms:
        norms: Norms = {}
        for batch in X.split(batch_size):
            norms = run(batch)
        return norms

    return run_all


def backpack(module: nn.Module, X: Tensor, batch_size: int) -> Runner:
    """BackPACK's ``BatchL2Grad`` (Dangel, Kunstner and Hennig, ICLR 2020)."""
    library, extensions = required("backpack"), required("backpack.extensions")
    model = library.extend(_copied(module))
    parameters = dict(model.named_parameters())

    def run(batch: Tensor) -> Norms:
        _forget(parameters, "grad", "batch_l2")
        with library.backpack(extensions.BatchL2Grad()):
            model(batch).sum().backward()
        return _attributes(parameters, "batch_l2")

    return batch_after_batch(run, X, batch_size)


def opacus(module: nn.Module, X: Tensor, batch_size: int) -> Runner:
    """Opacus' ``GradSampleModule``: per-sample gradients, squared here (Yousefpour et al. 2021)."""
    library = required("opacus.grad_sample")
    model = _trained_where_it_does_not_matter(module)
    library.GradSampleModule(model, loss_reduction="sum", strict=False)
    parameters = dict(model.named_parameters())

    def run(batch: Tensor) -> Norms:
        _forget(parameters, "grad", "grad_sample")
        model(batch).sum().backward()
        gradients = _attributes(parameters, "grad_sample")
        return {name: g.flatten(1).square().sum(1) for name, g in gradients.items()}

    return batch_after_batch(run, X, batch_size)


def opacus_ghost(module: nn.Module, X: Tensor, batch_size: int) -> Runner:
    """Opacus' ghost clipping, which computes norms without gradients where it can."""
    library = required("opacus.grad_sample.grad_sample_module_fast_gradient_clipping")
    model = _trained_where_it_does_not_matter(module)
    library.GradSampleModuleFastGradientClipping(
        model, loss_reduction="sum", max_grad_norm=1.0, use_ghost_clipping=True, strict=False
    )
    parameters = dict(model.named_parameters())

    def run(batch: Tensor) -> Norms:
        _forget(parameters, "grad", "_norm_sample")
        model(batch).sum().backward()
        return {name: n.square() for name, n in _attributes(parameters, "_norm_sample").items()}

    return batch_after_batch(run, X, batch_size)


def kronfluence(module: nn.Module, X: Tensor, batch_size: int) -> Runner:
    """The self-influence of kronfluence under the identity, a module's tensors together."""
    required("kronfluence")
    from kronfluence.analyzer import prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.score.self import compute_self_scores_with_loaders
    from kronfluence.task import Task
    from kronfluence.utils.state import State

    class LogLikelihood(Task):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            return model(batch[0]).sum()

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    task = LogLikelihood()
    model = prepare_model(_copied(module), task)
    data = torch.utils.data.TensorDataset(X)

    def run() -> Norms:
        # Called below its analyzer, which would write the scores to disk as well.
        return compute_self_scores_with_loaders(
            {}, model, State(cpu=X.device.type == "cpu"), task,
            torch.utils.data.DataLoader(data, batch_size=batch_size),
            ScoreArguments(compute_per_module_scores=True), FactorArguments(strategy="identity"),
            None, disable_tqdm=True,
        )  # fmt: skip

    return run


PEERS: dict[str, Callable[[nn.Module, Tensor, int], Runner]] = {
    "BackPACK": backpack,
    "Opacus": opacus,
    "Opacus ghost": opacus_ghost,
    "kronfluence": kronfluence,
}


def check_peer(name: str, module: nn.Module, X: Tensor) -> float:
    """Largest relative error of a peer's squared norms on the first rows of X.

    Raises
    ------
    Refused
        With a short reason, if it fails or leaves out a parameter.
    """
    X = X[:_ROWS_COMPARED]
    with quiet():
        try:
            norms = PEERS[name](module, X, len(X))()
        except Exception as error:
            raise Refused(_short(error)) from error
    expected = expected_norms(module, X)
    missing = sorted(set(expected) - _served(norms, expected))
    if missing:
        raise Refused(f"no norms of {len(missing)} of {len(expected)} tensors, as of {missing[0]}")
    return largest_relative_error(norms, expected)


def expected_norms(module: nn.Module, X: Tensor) -> dict[str, np.ndarray]:
    """Squared norms of every parameter tensor by a plain loop, in float64."""
    columns = layer_gradient_norms(module, X, engine="loop").T
    return dict(zip(layer_names(module), columns, strict=True))


def largest_relative_error(norms: Norms, expected: Mapping[str, np.ndarray]) -> float:
    """Over rows and tensors, or modules; what is below 1e-6 of a row's norm counts as noise."""
    noise = 1e-6 * sum(expected.values())
    worst = 0.0
    for name, came in norms.items():
        truth = sum(expected[p] for p in expected if p == name or p.rpartition(".")[0] == name)
        error = np.abs(came.detach().double().cpu().numpy() - truth) / (truth + noise)
        worst = max(worst, float(np.nan_to_num(error, nan=np.inf).max()))
    return worst


def _served(norms: Norms, expected: Mapping[str, np.ndarray]) -> set[str]:
    return {p for p in expected if p in norms or p.rpartition(".")[0] in norms}


@contextlib.contextmanager
def quiet() -> Any:
    """Peers warn of much; the table says what matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"


def _forget(parameters: Mapping[str, nn.Parameter], *attributes: str) -> None:
    for parameter in parameters.values():
        for attribute in attributes:
            if hasattr(parameter, attribute):
                setattr(parameter, attribute, None)


def _attributes(parameters: Mapping[str, nn.Parameter], attribute: str) -> Norms:
    found = {name: getattr(p, attribute, None) for name, p in parameters.items()}
    return {name: value for name, value in found.items() if value is not None}


def _copied(module: nn.Module) -> nn.Module:
    """A copy whose ``forward`` is its log-likelihood: hooks see nothing else."""
    model = copy.deepcopy(module)
    kind = type(model)
    model.__class__ = type(kind.__name__, (kind,), {"forward": kind.log_prob})
    return model


def _trained_where_it_does_not_matter(module: nn.Module) -> nn.Module:
    """A copy whose plain layers are in training mode, without which Opacus records nothing."""
    model = _copied(module)
    for child in model.modules():
        child.training = child is model or isinstance(child, _SAME_IN_TRAINING)
    return model


_SAME_IN_TRAINING = (
    nn.Linear, nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip

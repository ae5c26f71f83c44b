"""The engine: strategies behind one signature, verified, with a ladder to fall back on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.gradients.batching import Feeder, fitting_batch_size, row_memory
from skgradood.gradients.capture import CaptureStrategy
from skgradood.gradients.copying import copy_of
from skgradood.gradients.errors import (
    EngineWarning,
    LogLikelihoodError,
    StrategyRefused,
    is_out_of_memory,
)
from skgradood.gradients.func import FuncStrategy
from skgradood.gradients.growing import GrowingTensor
from skgradood.gradients.layers import check_module, trainable_parameters
from skgradood.gradients.likelihood import LogLikelihood, LogLikelihoodFunction
from skgradood.gradients.loop import LoopStrategy
from skgradood.gradients.precision import check_autocast
from skgradood.gradients.reducers import Both, Reducer
from skgradood.gradients.state import evaluation_state, isolated_rng
from skgradood.gradients.strategy import Strategy
from skgradood.gradients.verification import (
    Disagreement,
    Probe,
    find_dependent_value,
    find_differing_value,
    find_disagreement,
)

STRATEGIES = {strategy.name: strategy for strategy in (CaptureStrategy, FuncStrategy, LoopStrategy)}
ENGINES = ("auto", *STRATEGIES)


_LOGGER = logging.getLogger("skgradood.gradients")
_UNMEASURED_BATCH = 16
# Its multiples come near every place between two whole numbers.
_GOLDEN_RATIO = (5**0.5 - 1) / 2


class GradientEngine:
    """Per-sample gradients of one module, streamed to a reducer.

    Parameters
    ----------
    module : nn.Module
        The model. It is left bit for bit as it was.
    log_likelihood : str or callable, default="log_prob"
        See :func:`layer_gradient_norms`.
    engine : {"auto", "capture", "func", "loop"}, default="auto"
        "auto" tries the strategies in this order, and warns once when it falls back.
    batch_size : int or "auto", default="auto"
        Rows a pass; "auto" chooses by the memory that a row needs and the device has. Halved when
        memory runs out.
    verify : bool, default=True
        Compare two rows of the first batch with the loop; where a model looks up places that
        depend on several rows, as mixtures of experts do, two rows' values in every batch.
    device : str, torch.device or None, default=None
        Where to compute; None means where the module is. A copy of the module is made for
        another device.
    random_state : int, default=0
        Mixed into the seeds of the rows' noise.
    grouped : bool, default=False
        Whether X holds groups of samples, (n, B, ...): the gradient of a row is then the sum of
        its samples' gradients.
    autocast : {None, "bfloat16", "float16"}, default=None
        See :func:`layer_gradient_norms`.
    parameters : collection of str or None, default=None
        Names of the parameters whose gradients are wanted; nothing is computed for the others,
        and a reducer does not hear of them. None: all that require grad.

    Attributes
    ----------
    strategy : str
        The strategy in use; after a run, the one that served.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        log_likelihood: str | LogLikelihoodFunction = "log_prob",
        engine: str = "auto",
        batch_size: int | str = "auto",
        verify: bool = True,
        device: str | torch.device | None = None,
        random_state: int | None = None,
        grouped: bool = False,
        autocast: str | None = None,
        parameters: Collection[str] | None = None,
    ) -> None:
        _check_options(module, engine, batch_size)
        check_autocast(autocast)
        self.parameters = _selection(module, parameters)
        self.log_likelihood = LogLikelihood(
            log_likelihood,
            random_state or 0,
            grouped=grouped,
            may_be_constant=self.parameters is not None,
            autocast=autocast,
        )
        self.log_likelihood.check(module)
        home = next((p.device for p in module.parameters()), torch.device("cpu"))
        self.device = home if device is None else torch.device(device)
        moved = self.device.type != home.type or self.device.index not in (None, home.index)
        self.module = copy_of(module).to(self.device) if moved else module
        self.batch_size = batch_size
        self.verify = verify
        names = list(STRATEGIES) if engine == "auto" else [engine]
        self._ladder = [STRATEGIES[name](self.module, self.log_likelihood) for name in names]
        self._verified = False
        self._n_looks = 0

    @property
    def strategy(self) -> str:
        return self._ladder[0].name

    def run(self, X: Tensor, reducer: Reducer) -> np.ndarray:
        """Stream the gradients of all rows of X through a reducer.

        Parameters
        ----------
        X : Tensor of shape (n, ...)
            Rows, on any device, in the form that the module takes.
        reducer : Reducer
            Receives every layer of every batch.

        Returns
        -------
        ndarray of shape (n,), float64
            Log-likelihoods in nats.
        """
        values = GrowingTensor()
        start = 0
        with (
            torch.inference_mode(False),
            isolated_rng(),
            evaluation_state(self.module, self.parameters),
        ):
            # A tensor made in inference mode cannot be saved for backward; a copy can.
            X = X.clone() if X.is_inference() else X.detach()
            feeder, size = Feeder(X, self.device), self._first_batch_size(X)
            while start < len(X):
                batch = feeder.take(start, size)
                try:
                    values.append(self._run_batch(batch, reducer))
                except (RuntimeError, MemoryError) as error:
                    if len(batch) == 1 or not is_out_of_memory(error):
                        raise
                    size = len(batch) // 2
                    _LOGGER.warning("out of memory at %d rows; going on with %d", len(batch), size)
                else:
                    start += len(batch)
        # They leave the device once: until here nothing has waited for it.
        return values.whole().cpu().double().numpy()

    def _first_batch_size(self, X: Tensor) -> int:
        if self.batch_size != "auto":
            return int(self.batch_size)
        if len(X) == 1:
            return 1
        try:
            memory = row_memory(self.module, self.log_likelihood, X[:2].to(self.device))
        except Exception as error:
            # Whatever it is, the strategies meet it, too, and know what to do.
            _LOGGER.debug("memory of a row is not known: %s", error)
            return 1 if is_out_of_memory(error) else _UNMEASURED_BATCH
        return fitting_batch_size(memory, self.device)

    def _run_batch(self, batch: Tensor, reducer: Reducer) -> Tensor:
        """One batch through the first strategy of the ladder that serves it."""
        reasons: list[str] = []
        while True:
            strategy = self._ladder[len(reasons)]
            last = len(reasons) == len(self._ladder) - 1
            try:
                values = self._attempt(strategy, batch, reducer)
            except Exception as error:
                # The last strategy's errors are the model's own; so is running out of memory.
                is_final = last or is_out_of_memory(error)
                if isinstance(error, LogLikelihoodError):
                    is_final = is_final or self._is_of_the_model(batch)
                if is_final:
                    if reasons:
                        error.add_note(
                            f"raised by {strategy.name!r}, after other ways had failed: "
                            + "; ".join(reasons)
                        )
                    raise
                reasons.append(f"{strategy.name}: {error}")
                self._verified = False  # the next one is not yet
                continue
            if reasons:
                self._ladder = self._ladder[len(reasons) :]
                warnings.warn(
                    f"per-sample gradients of {type(self.module).__name__} are computed by "
                    f"{strategy.name!r}, which is slower, because " + "; ".join(reasons),
                    EngineWarning,
                    stacklevel=5,
                )
            self._verified = self._verified or len(batch) > 1
            return values

    def _attempt(self, strategy: Strategy, batch: Tensor, reducer: Reducer) -> Tensor:
        """Run one strategy, and verify it on its first batch; commit only what holds."""
        if len(batch) == 1:
            strategy = LoopStrategy(self.module, self.log_likelihood)
        if not self.verify or isinstance(strategy, LoopStrategy):
            reducer.begin(len(batch), batch.device)
            values, disagreement = strategy.run(batch, reducer), None
        elif self._verified:
            reducer.begin(len(batch), batch.device)
            values = strategy.run(batch, reducer)
            disagreement = self._look_again(strategy, batch, values)
        else:
            probe = Probe(self.module, sorted({0, len(batch) - 1}))
            receiver = Both(reducer, probe)
            receiver.begin(len(batch), batch.device)
            values = strategy.run(batch, receiver)
            disagreement = find_disagreement(self.module, self.log_likelihood, batch, probe, values)
            if disagreement is None and strategy.leaves_out:
                disagreement = find_dependent_value(strategy, batch, values)
        if disagreement is not None:
            raise StrategyRefused(
                f"its results are not those of single samples ({disagreement}); does the model "
                "couple the rows of a batch?"
            )
        reducer.commit()
        return values

    def _look_again(self, strategy: Strategy, batch: Tensor, values: Tensor) -> Disagreement | None:
        """Verify a later batch: all values, those of the last row and of another one, or none."""
        if strategy.leaves_out:
            return find_dependent_value(strategy, batch, values)
        if not strategy.is_unsure:
            return None
        self._n_looks += 1
        other = int(len(batch) * (self._n_looks * _GOLDEN_RATIO % 1))
        rows = sorted({other, len(batch) - 1})
        return find_differing_value(self.module, self.log_likelihood, batch, rows, values)

    def _is_of_the_model(self, batch: Tensor) -> bool:
        """Whether log-likelihoods are not as they should be in an ordinary pass either."""
        try:
            with isolated_rng(0), torch.enable_grad():
                generator = torch.Generator(device=batch.device).manual_seed(0)
                self.log_likelihood(self.module, batch, generator)
        except Exception:
            return True
        return False


def _check_options(module: Any, engine: str, batch_size: int | str) -> None:
    check_module(module)
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {sorted(ENGINES)}; got {engine!r}")
    if batch_size != "auto" and not (isinstance(batch_size, Integral) and batch_size >= 1):
        raise ValueError(f"batch_size must be a positive integer or 'auto'; got {batch_size!r}")


def _selection(module: nn.Module, parameters: Collection[str] | None) -> frozenset[str] | None:
    """The parameters that are wanted, or None for all."""
    known = trainable_parameters(module)
    if parameters is None or known.keys() == set(parameters):
        return None
    wanted = frozenset(parameters)
    if not wanted or not wanted < known.keys():
        raise ValueError(
            f"parameters must name some of the parameters of {type(module).__name__} that require "
            f"grad, {list(known)}; got {sorted(wanted)}"
        )
    return wanted

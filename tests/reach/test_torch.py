"""Modules of torch itself in the forms that users bring them in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from skgradood.gradients import GradientEngine, SquaredNorms, layer_layout
from skgradood.gradients.errors import StrategyRefused
from tests.reach.harness import (
    TOLERANCES,
    Case,
    assert_norms_close,
    assert_served_as_stated,
    auto_norms,
    autograd_norms,
    engine_norms,
    randomised,
    seeded,
    squared_output,
    with_dtypes,
)

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning"),
]


class SmallUNet(nn.Module):
    """Convolutions down, transposed convolutions up, and concatenation across."""

    def __init__(self) -> None:
        super().__init__()
        self.top = self._block(1, 4)
        self.middle = self._block(4, 6)
        self.bottom = self._block(6, 8)
        self.up_middle = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.joined_middle = self._block(12, 6)
        self.up_top = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.joined_top = self._block(8, 4)
        self.out = nn.Conv2d(4, 1, 1)

    @staticmethod
    def _block(n_in: int, n_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        top = self.top(x)
        middle = self.middle(nn.functional.max_pool2d(top, 2))
        bottom = self.bottom(nn.functional.max_pool2d(middle, 2))
        up = self.joined_middle(torch.cat([self.up_middle(bottom), middle], 1))
        return self.out(self.joined_top(torch.cat([self.up_top(up), top], 1)))


class DictOutput(nn.Module):
    """Several inputs by keyword, and a dict of outputs with a tuple inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(2, 4)
        self.register_buffer("shift", torch.linspace(-1, 1, 4))

    def forward(self, *, a: Tensor, b: Tensor) -> dict[str, object]:
        hidden = torch.tanh(self.first(a)) * self.second(b) + self.shift
        return {"hidden": hidden, "parts": (hidden.sin(), hidden.cos())}


class Complex(nn.Module):
    """A complex linear map between a real input and a real output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 5, dtype=torch.complex64))
        self.bias = nn.Parameter(torch.zeros(4, dtype=torch.complex64))
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.linear(torch.complex(x, x.cos()), self.weight, self.bias)
        return torch.view_as_real(y * self.scale).flatten(1)


class Spectral(nn.Module):
    """A layer of a Fourier neural operator: complex weights multiply the lowest modes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3, 4, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        modes = torch.fft.rfft(x)[..., :4]
        mixed = torch.einsum("bix,iox->box", modes, self.weight)
        return torch.fft.irfft(mixed, n=x.shape[-1])


class MixedPrecisions(nn.Module):
    """A float32 body and a float64 head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x.float())).double())


class ScaleByPlainValues(torch.autograd.Function):
    """Multiplies by a parameter's plain value, as quantisers do, with a backward for both."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return x * scale.data

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        return gradient * scale, (gradient * x).sum(0)


class PlainValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = nn.Linear(5, 3), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return ScaleByPlainValues.apply(self.body(x), self.scale)


class PlainValuesOfSome(PlainValues):
    """The same, where the first and the last row do not use the parameter."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        return torch.where(x[:, :1] > 0, ScaleByPlainValues.apply(hidden, self.scale), hidden)


class CompiledParts(nn.Module):
    """A module and a function that are compiled inside one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.compile(mlp(), backend="aot_eager")
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        squash = torch.compile(lambda h: h.tanh() * 2, backend="aot_eager")
        return self.head(squash(self.body(x)))


def mixed_precisions(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    module = randomised(MixedPrecisions(), torch.float32)
    module.head.double()
    return module, seeded((4, 5), torch.float32)


def complex_module(
    build: Callable[[], nn.Module], shape: tuple[int, ...]
) -> Callable[[torch.dtype], tuple[nn.Module, Tensor]]:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        module, twice = build(), torch.complex128 if dtype == torch.float64 else torch.complex64
        for parameter in module.parameters():
            kind = twice if parameter.is_complex() else dtype
            noise = seeded((*parameter.shape, 2), dtype)
            value = torch.view_as_complex(noise) if parameter.is_complex() else noise[..., 0]
            parameter.data = 0.5 * value.to(kind)
        return module.eval(), seeded(shape, dtype)

    return make


def read_dict(module: nn.Module, X: Tensor) -> Tensor:
    out = module(a=X[:, :3], b=X[:, 3:])
    return torch.cat([out["hidden"], *out["parts"]], 1)


def _case(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    read: Callable[[nn.Module, Tensor], Tensor] = nn.Module.__call__,
    **options: object,
) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        return randomised(build(), dtype), seeded(shape, dtype)

    return Case(make, squared_output(read), **options)


def _recurrent(module: type[nn.Module], **options: object) -> Case:
    return _case(
        lambda: module(4, 5, batch_first=True, **options), (3, 6, 4),
        lambda module, X: module(X)[0],
    )  # fmt: skip


def _compiled(body: Callable[[], nn.Module], shape: tuple[int, ...], **options: str) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        torch._dynamo.reset()
        torch.manual_seed(0)
        module = randomised(body(), dtype)
        return torch.compile(module, backend="aot_eager"), seeded(shape, dtype)

    return Case(make, squared_output(nn.Module.__call__), **options)


def _traced(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    X = seeded((4, 5), dtype)
    return torch.jit.trace(randomised(mlp(), dtype), X), X


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


CASES: dict[str, Case] = {
    "small_unet": _case(SmallUNet, (3, 1, 8, 8)),
    "dict_output": _case(DictOutput, (4, 5), read_dict),
    "lstm": _recurrent(nn.LSTM),
    "lstm_two_layers_both_ways": _recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "lstm_projected": _recurrent(nn.LSTM, proj_size=3),
    "gru": _recurrent(nn.GRU),
    "elman": _recurrent(nn.RNN),
    "complex": Case(complex_module(Complex, (4, 5)), squared_output(nn.Module.__call__)),
    "spectral": Case(complex_module(Spectral, (4, 2, 9)), squared_output(nn.Module.__call__)),
    "mixed_precisions": Case(
        mixed_precisions, squared_output(nn.Module.__call__), dtypes=(torch.float32,)
    ),
    "compiled": _compiled(mlp, (4, 5)),
    "compiled_unet": _compiled(SmallUNet, (3, 1, 8, 8)),
    "compiled_parts": _case(CompiledParts, (4, 5)),
    "custom_function_of_plain_values": Case(
        lambda dtype: (randomised(PlainValues(), dtype), seeded((4, 5), dtype)),
        squared_output(nn.Module.__call__), strategy="loop", warns="cannot be watched",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_auto_equals_the_loop_and_is_served_by_the_stated_strategy(
    case: Case, dtype: torch.dtype
) -> None:
    assert_served_as_stated(case, dtype)


@pytest.mark.parametrize("wrapped", [False, True])
def test_names_are_those_of_the_module_that_was_compiled(wrapped: bool) -> None:
    module = randomised(CompiledParts(), torch.float64)
    X = seeded((4, 5), torch.float64)
    log_likelihood = squared_output(nn.Module.__call__)
    expected = ["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"]
    outer = torch.compile(module, backend="aot_eager") if wrapped else module
    assert layer_layout(outer).names == [*expected, "head.weight", "head.bias"]
    assert layer_layout(outer, "module").names == ["body.0", "body.2", "head"]
    for engine in ("capture", "func"):
        norms = engine_norms(outer, X, log_likelihood, engine)
        assert_norms_close(norms, autograd_norms(module, X, log_likelihood), torch.float64)
    part = GradientEngine(outer, log_likelihood=log_likelihood, parameters=["body.2.bias"])
    reducer = SquaredNorms(layer_layout(outer, {"only": ["body.2.bias"]}))
    part.run(X, reducer)
    assert_norms_close(reducer.result(), norms[:, 3:4], torch.float64)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_traced_module_is_served_by_func(dtype: torch.dtype) -> None:
    case = Case(
        _traced, squared_output(nn.Module.__call__), strategy="func", warns="cannot be watched"
    )
    assert_served_as_stated(case, dtype)


def test_a_custom_function_is_refused_without_verification() -> None:
    module, X = randomised(PlainValues(), torch.float64), seeded((4, 5), torch.float64)
    with pytest.raises(StrategyRefused):
        engine_norms(module, X, squared_output(nn.Module.__call__), "capture")


def test_a_custom_function_that_only_some_rows_use() -> None:
    module, X = randomised(PlainValuesOfSome(), torch.float64), seeded((4, 5), torch.float64)
    X[:, 0] = torch.tensor([-1.0, 1.0, 1.0, -1.0])
    log_likelihood = squared_output(nn.Module.__call__)
    norms, _, _ = auto_norms(module, X, log_likelihood)
    expected = engine_norms(module, X, log_likelihood, "loop")
    assert_norms_close(norms, expected, torch.float64)

"""Parameters that meet data through functions of them: of each element, or of several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from skgradood.gradients import (
    GradientEngine,
    LayerGradient,
    SquaredNorms,
    layer_gradient_norms,
    layer_layout,
)
from skgradood.gradients.capture.graph import is_of_elements
from skgradood.gradients.contributions import DenseContribution, OuterContribution
from skgradood.gradients.derived import JacobianContribution, NormedContribution, ScaledContribution
from skgradood.gradients.parts import PartsContribution
from tests.gradients.building import seeded

N, SIZE = 4, 6
MASK = torch.arange(SIZE)[:, None] >= torch.arange(SIZE)


def reversed_in_place(weight: Tensor) -> Tensor:
    copy = 1 * weight
    copy[0].copy_(weight[1])
    return copy


class Mul(torch.autograd.Function):
    """Of the name of an operator of elements."""

    @staticmethod
    def forward(ctx, weight):
        return weight.flip(0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.flip(0)


def partly(weight: Tensor) -> Tensor:
    return weight - 1e-3 * weight.mean()


OF_ELEMENTS = {
    "mask": lambda w: w * MASK,
    "where": lambda w: torch.where(MASK, w, 0.0),
    "exp": torch.exp,
    "softplus": F.softplus,
    "several uses": lambda w: w.tanh() + 3 * w.sigmoid() * w,
    "zeros": lambda w: 0 * w,
    "triangle": torch.tril,
    "clamped": lambda w: w.clamp(-0.1, 0.1),
    "copied": lambda w: w.clone(),
}
OF_SEVERAL = {
    "laid out and back": lambda w: w.T.contiguous().T,
    "rows exchanged": lambda w: w.flip(0),
    "centred": lambda w: w - w.mean(),
    "nearly of elements": partly,
    "summed up": lambda w: w.cumsum(0),
    "softmax": lambda w: w.softmax(0),
    "differences": lambda w: 2 * w - w.roll(1, 0) - w.roll(-1, 0),
    "product": lambda w: w @ w,
    "exponential": torch.linalg.matrix_exp,
    "scaled by a norm": lambda w: w / w.norm(),
    "a view written on": reversed_in_place,
}
PARTS = {
    "transposed": lambda w: w.T,
    "laid out as it is": lambda w: w.reshape(-1).view(SIZE, SIZE),
    "turned": lambda w: w.unflatten(0, (1, SIZE)).permute(2, 1, 0)[..., 0],
}


class Derived(nn.Module):
    """A weight made by a function meets data in some way."""

    def __init__(self, function, way: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(seeded((SIZE, SIZE), torch.float64))
        self.function, self.way = function, way

    def log_prob(self, X: Tensor) -> Tensor:
        weight = self.function(self.weight)
        if self.way == "convolution":
            X = F.conv1d(X.mT, weight[..., None], padding=1).mT
        elif self.way == "look-up":
            X = F.embedding(X.abs().sum(-1).long() % SIZE, weight)
        else:
            X = F.linear(X, weight)
        return X.tanh().square().flatten(1).sum(1)


class Kinds(SquaredNorms):
    """Notes of the contributions that come."""

    def begin(self, n: int, device: torch.device) -> None:
        super().begin(n, device)
        self.kinds: list[type] = []

    def update(self, gradient: LayerGradient) -> None:
        self.kinds += [type(contribution) for contribution in gradient.contributions]
        super().update(gradient)


def captured(module: nn.Module, X: Tensor) -> tuple[np.ndarray, list[type]]:
    norms = Kinds(layer_layout(module))
    GradientEngine(module, engine="capture", verify=False).run(X, norms)
    return norms.result(), norms.kinds


WAYS = {
    "row": (N, SIZE),
    "positions": (N, 3, SIZE),
    "convolution": (N, 5, SIZE),
    "look-up": (N, 3, SIZE),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PARTS)
def test_views_of_a_leaf_receive_what_it_does(name, way):
    module, X = Derived(PARTS[name], way), seeded(WAYS[way], torch.float64)
    norms, kinds = captured(module, X)
    by_way = {"row": OuterContribution, "positions": OuterContribution}
    assert kinds == [by_way.get(way, PartsContribution)]
    loop = layer_gradient_norms(module, X, engine="loop")
    np.testing.assert_allclose(norms, loop, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*OF_ELEMENTS, *OF_SEVERAL])
def test_norms_are_those_of_the_leaf(name, way):
    function = (OF_ELEMENTS | OF_SEVERAL)[name]
    module, X = Derived(function, way), seeded(WAYS[way], torch.float64)
    norms, kinds = captured(module, X)
    if way != "convolution":  # whose weight has one more dimension
        assert kinds == [ScaledContribution if name in OF_ELEMENTS else DenseContribution]
    loop = layer_gradient_norms(module, X, engine="loop")
    np.testing.assert_allclose(norms, loop, rtol=1e-9, atol=1e-12)


def test_functions_of_elements_in_single_precision_are_known_too():
    for name, function in OF_ELEMENTS.items():
        _, kinds = captured(Derived(function, "row").float(), seeded((N, SIZE), torch.float32))
        assert kinds == [ScaledContribution], name
    for name, function in OF_SEVERAL.items():
        _, kinds = captured(Derived(function, "row").float(), seeded((N, SIZE), torch.float32))
        assert kinds == [DenseContribution], name


def test_a_users_function_is_none_of_torchs_by_its_name():
    weight = torch.ones(SIZE, SIZE, requires_grad=True)
    assert is_of_elements(3 * weight)
    assert not is_of_elements(Mul.apply(weight))
    assert not is_of_elements(weight.detach())


@pytest.mark.parametrize("part", ["real", "imag"])
def test_parts_of_complex_parameters_are_no_functions_of_elements(part):
    module = Derived(lambda w: getattr(w, part), "row")
    module.weight = nn.Parameter(torch.view_as_complex(seeded((SIZE, SIZE, 2), torch.float64)))
    X = seeded((N, SIZE), torch.float64)
    norms, kinds = captured(module, X)
    assert kinds != [ScaledContribution]
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"), rtol=1e-9)


class Scales(nn.Module):
    """Parameters without elements, and fewer than there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(0, dtype=torch.float64))
        self.log_scale = nn.Parameter(seeded((2,), torch.float64))
        self.order = nn.Parameter(seeded((2,), torch.float64))

    def log_prob(self, X: Tensor) -> Tensor:
        nothing = self.none.exp().sum()
        return (X * self.log_scale.exp() + self.order.flip(0) * X**2).sin().sum(1) + nothing


def test_small_ones():
    module, X = Scales(), seeded((5, 2), torch.float64)
    norms, kinds = captured(module, X)
    assert kinds == [ScaledContribution, JacobianContribution]
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"), rtol=1e-9)


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("scale", [1e25, 1e-25, 0.0])
def test_what_leaves_the_range_of_float32_is_kept(positions, scale):
    factors = (seeded((N, positions, SIZE), torch.float32) for _ in range(2))
    derived = OuterContribution(*factors, torch.Size((SIZE, SIZE)))
    derivative = torch.ones(SIZE, SIZE)
    derivative[2:] = scale
    contribution = ScaledContribution(derived, derivative)
    expected = (derived.dense(slice(None)).double() * derivative.double()).flatten(1)
    torch.testing.assert_close(
        contribution.squared_norm(), expected.square().sum(1), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(contribution.dense(slice(1, 3)).double().flatten(1), expected[1:3])


class Normed(nn.Module):
    """A linear map under a weight norm meets rows, or positions; or a convolution does."""

    def __init__(self, layer: nn.Module, dim: int) -> None:
        super().__init__()
        self.layer = weight_norm(layer.double(), dim=dim)

    def log_prob(self, X: Tensor) -> Tensor:
        return self.layer(X).tanh().square().flatten(1).sum(1)


LAYERS = {
    "row": (lambda: nn.Linear(SIZE, 5), (N, SIZE)),
    "positions": (lambda: nn.Linear(SIZE, 5), (N, 3, SIZE)),
    "convolution": (lambda: nn.Conv1d(2, 4, 3), (N, 2, SIZE)),
    "groups": (lambda: nn.Conv1d(2, 4, 3, groups=2), (N, 2, SIZE)),
    "transposed": (lambda: nn.ConvTranspose1d(2, 4, 3), (N, 2, SIZE)),
    "one feature": (lambda: nn.Linear(1, 5), (N, 1)),
}


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("name", LAYERS)
def test_weight_norms(name, dim):
    make, shape = LAYERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Normed(make(), dim)
    X = seeded(shape, torch.float64)
    norms, kinds = captured(module, X)
    assert (NormedContribution in kinds) == (dim == 0 and len(shape) == 2)
    loop = layer_gradient_norms(module, X, engine="loop")
    np.testing.assert_allclose(norms, loop, rtol=1e-9, atol=1e-25)


@pytest.mark.parametrize("frozen", ["original0", "original1"])
def test_a_weight_norm_of_which_a_part_is_frozen(frozen):
    module, X = Normed(nn.Linear(SIZE, 5), 0), seeded((N, SIZE), torch.float64)
    getattr(module.layer.parametrizations.weight, frozen).requires_grad_(False)
    norms, _ = captured(module, X)
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"), rtol=1e-9)


def normed_by(rows: Tensor, output_gradients: Tensor) -> NormedContribution:
    derived = OuterContribution(rows[:, None], output_gradients[:, None], torch.Size((5, SIZE)))
    units = F.normalize(seeded((5, SIZE), torch.float64), dim=1).to(rows.dtype)
    return NormedContribution(derived, units, torch.ones(5, dtype=rows.dtype), derived.shape)


def test_rows_along_the_direction_of_a_weight_norm_are_formed():
    contribution = normed_by(*(seeded((N, k), torch.float32) for k in (SIZE, 5)))
    # The first sample's gradient is that of one unit, and lies along it up to a thousandth.
    contribution.derived.output_gradients[0, 0, 1:] = 0
    nearly = contribution.units[0] + 1e-3 * contribution.units[1]
    contribution.derived.activations[0, 0] = nearly
    exact = normed_by(
        contribution.derived.activations[:, 0].double(),
        contribution.derived.output_gradients[:, 0].double(),
    )
    expected = exact.dense(slice(None)).flatten(1).square().sum(1)
    torch.testing.assert_close(contribution.squared_norm(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("scale", [1e25, 1e-25, 0.0])
def test_norms_under_a_weight_norm_that_leave_the_range_of_float32(scale):
    contribution = normed_by(*(seeded((N, k), torch.float32) for k in (SIZE, 5)))
    before = contribution.squared_norm()
    contribution.derived.output_gradients[1] *= scale
    after = contribution.squared_norm()
    assert after[1].item() == pytest.approx(before[1].item() * float(torch.tensor(scale)) ** 2)
    torch.testing.assert_close(after[[0, 2, 3]], before[[0, 2, 3]])


class Hooked(nn.Module):
    """A hook on something made from a parameter, of which a part or several forms meet data."""

    def __init__(self, made, used, hook) -> None:
        super().__init__()
        self.weight = nn.Parameter(seeded((SIZE, SIZE), torch.float64))
        self.made, self.used, self.hook = made, used, hook

    def log_prob(self, X: Tensor) -> Tensor:
        tensor = self.made(self.weight)
        tensor.register_hook(self.hook)
        return self.used(X, tensor).sin().sum(1)


HOOKS = {"clamped": lambda g: g.clamp(-1, 1), "doubled": lambda g: 2 * g}
MADE = {"a part": lambda w: w[1:], "a product": lambda w: w * 1, "turned": lambda w: w.T}
USED = {
    "turned": lambda x, t: x[:, : t.shape[1]] @ t.T,
    "a row of it": lambda x, t: x[:, : t.shape[1]] * t[0],
    "twice": lambda x, t: x[:, : t.shape[1]] @ t.T + x[:, : t.shape[1]].tanh() @ t.T,
    "in two forms": lambda x, t: (x[:, : t.shape[1]] @ t.T).sum(1, keepdim=True) + x * t[0],
}


@pytest.mark.filterwarnings("ignore::skgradood.gradients.EngineWarning")
@pytest.mark.parametrize("n", [SIZE, 40])
@pytest.mark.parametrize("used", USED)
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_get_what_autograd_gives_them(hook, made, used, n):
    module, X = Hooked(MADE[made], USED[used], HOOKS[hook]), seeded((n, SIZE), torch.float64)
    norms = layer_gradient_norms(module, X, verify=False)
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"), rtol=1e-9)

"""The torch function mode that watches a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.cuts import AlignedCut, CopyCut, Operand
from skgradood.gradients.capture.functions import (
    BLANKS,
    CASTS,
    CREATIONS,
    DIFFERENCES,
    DIFFERENTIATION,
    DRAWING_BODIES,
    DROPOUTS,
    METADATA,
    PLACINGS,
    RANDOM,
    SPREADING,
    body_of,
    is_in_place,
    name_of,
    plain,
)
from skgradood.gradients.capture.noise import RowNoise, UnknownAxisError
from skgradood.gradients.capture.places import is_place
from skgradood.gradients.capture.propagation import AxisPropagation, tensors_in
from skgradood.gradients.capture.recorder import Recorder
from skgradood.gradients.capture.tensor_table import TensorTable
from skgradood.gradients.errors import StrategyRefused

_NONE: frozenset[str] = frozenset()
# An axis may be None.
_NO_DATA: Any = object()


class _Spread(NamedTuple):
    """The tensor that another one broadcasts, and the versions of both: neither is written into."""

    smaller: Tensor
    versions: tuple[int, int]

    def is_current(self, larger: Tensor) -> bool:
        return (self.smaller._version, larger._version) == self.versions


class CaptureMode(TorchFunctionMode):
    """Sorts tensors into parameters, data and constants, and cuts where the first two meet.

    *Parameters* are the leaves, and whatever is computed from them (and constants) alone.
    *Data* are the batch, and whatever is computed from it; each has a known batch axis, or None.
    Everything else is a constant. A function in which parameters and data meet is served by the
    rule for that function; without a rule the model is refused.

    Parameters
    ----------
    X : Tensor of shape (n, ...)
        The batch.
    recorder : Recorder
        Is told of every use of a parameter.
    propagation : AxisPropagation
        Kept between batches for what it remembers.
    noise : RowNoise
        Draws random numbers row by row.
    rules : mapping of function to rule
        What happens where parameters and data meet.
    """

    def __init__(
        self,
        X: Tensor,
        recorder: Recorder,
        propagation: AxisPropagation,
        noise: RowNoise,
        rules: Mapping[Callable, Callable],
    ) -> None:
        super().__init__()
        self.rules = rules
        self.recorder = recorder
        self.propagation = propagation
        self.noise = noise
        self.anchor = torch.zeros((), device=X.device, requires_grad=True)
        self._leaves: dict[int, frozenset[str]] = {
            id(p): frozenset((name,)) for name, p in recorder.parameters.items()
        }
        self._derived: TensorTable[frozenset[str]] = TensorTable()
        self._spread: TensorTable[_Spread] = TensorTable()
        self._axes: TensorTable[BatchAxis | None] = TensorTable()
        self._overwritten: dict[int, Tensor] = {}
        # Tensors in the shape of data, by version, into which nothing has been written yet.
        self._blank: TensorTable[int] = TensorTable()
        self.mark(X, BatchAxis(0, len(X)))

    def mark(self, tensor: Tensor, axis: BatchAxis | None) -> None:
        """Register a tensor as data."""
        self._axes[tensor] = axis

    def is_data(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and tensor in self._axes

    def is_parameter(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and bool(self._leaves_of(tensor))

    def axis_of(self, tensor: Tensor) -> BatchAxis:
        """The batch axis of data; refuses where it is unknown."""
        axis = self._axes[tensor]
        if axis is None:
            raise StrategyRefused(
                f"a parameter meets a tensor of shape {tuple(tensor.shape)} in which the samples "
                "cannot be told apart"
            )
        return axis

    def operand(self, tensor: Tensor) -> Operand:
        """A tensor at a meeting point, detached; its use is recorded if it is a parameter."""
        leaves = self._leaves_of(tensor)
        use = self.recorder.use(tensor, leaves) if leaves else None
        return Operand(tensor.detach(), use)

    def copies(self, tensor: Tensor, layout: Sequence[int], axis: BatchAxis) -> Tensor:
        """A parameter as one copy a sample, laid out to broadcast against data with ``axis``.

        ``layout`` is the parameter's shape with ones inserted. A parameter that already has a
        slice for every sample along the batch dimension is used slice by slice.
        """
        length = layout[axis.dim]
        if length not in (1, axis.size):
            raise StrategyRefused(
                f"a parameter of shape {tuple(tensor.shape)} meets {axis.size} samples in a "
                f"dimension of length {length}"
            )
        spread = tensor if length == 1 else self._spread_over(tensor, axis.dim - len(layout))
        operand = Operand(tensor.detach(), self.operand(tensor if spread is None else spread).use)
        cut = AlignedCut.apply if spread is None else CopyCut.apply
        copies = cut(self.anchor, operand.value.reshape(layout), operand, axis)
        self.mark(copies, axis)
        return copies

    def _spread_over(self, tensor: Tensor, dim: int) -> Tensor | None:
        """The smaller tensor, the same for all slices along ``dim`` (< 0), that one is made of.

        A log-determinant added to zeros, one for every sample, has as many slices as there are
        samples, but they all have the gradient of the one number.
        """
        spread = self._spread.get(tensor, None)
        if spread is None or not spread.is_current(tensor) or tensor._backward_hooks:
            return None
        smaller = spread.smaller
        return smaller if smaller.ndim < -dim or smaller.shape[dim] == 1 else None

    def without_samples(self, places: Tensor) -> Tensor | None:
        """Integers that come from several samples as the constants that they are in this batch.

        None for other tensors. What they pick of parameters, which belong to no sample, gets the
        gradients of whatever meets it.
        """
        if not is_place(places) or self._axes.get(places, _NO_DATA) is not None:
            return None
        self.propagation.reads_several = True
        return places.detach().clone()

    def before_overwriting(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor made from parameters, which itself becomes a constant to write on."""
        if tensor not in self._derived or tensor._is_view():
            raise StrategyRefused(
                "data are written into a parameter, or into a view of what was made from one"
            )
        copy = tensor.clone()
        self._derived[copy] = self._derived.pop(tensor)
        tensor.detach_()
        self._overwritten[tensor.untyped_storage()._cdata] = tensor
        return copy

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in METADATA:
            return function(*args, **kwargs)
        function = plain(function)
        if function is torch.Tensor.register_hook:
            self.recorder.hooked |= self._leaves_of(args[0])
        if function in RANDOM:
            drawn = self._draw(function, args, kwargs)
            if drawn is not None:
                return drawn
        if function in DIFFERENTIATION:
            raise StrategyRefused(
                f"{name_of(function)} is called inside the log-likelihood, which is not watched"
            )
        read = args[:1] if function in CASTS else args
        data, leaves = self._sorted(tensors_in(read, kwargs), function)
        self.propagation.look_at(data)
        if len(self._blank):
            self._look_at_blanks(function, _target(args, kwargs), data)
        if not leaves or (data and not torch.is_grad_enabled()):
            return self._follow_data(function, args, kwargs, data)
        if not data:
            return self._follow_parameters(function, args, kwargs, leaves)
        return self._meet(function, args, kwargs)

    def _leaves_of(self, tensor: Tensor) -> frozenset[str]:
        leaves = self._leaves.get(id(tensor), _NONE) or self._derived.get(tensor, _NONE)
        if leaves and tensor._base is not None:
            leaves = leaves | self._derived.get(tensor._base, _NONE)
        if leaves and tensor.untyped_storage()._cdata in self._overwritten:
            raise StrategyRefused("a view of a tensor into which data have been written")
        return leaves

    def _sorted(
        self, tensors: list[Tensor], function: Callable
    ) -> tuple[list[tuple[Tensor, BatchAxis | None]], frozenset[str]]:
        """Which of some tensors are data, and their axes; the leaves that the others are of."""
        data: list[tuple[Tensor, BatchAxis | None]] = []
        leaves = _NONE
        for tensor in tensors:
            axis = self._axes.get(tensor, _NO_DATA)
            if axis is not _NO_DATA:
                data.append((tensor, axis))
                continue
            found = self._leaves_of(tensor)
            if found:
                leaves = leaves | found
            elif tensor.grad_fn is not None:
                raise StrategyRefused(
                    f"{name_of(function)} receives the result of "
                    f"{type(tensor.grad_fn).__name__}, an operation that cannot be watched"
                )
        return data, leaves

    def _follow_data(
        self,
        function: Callable,
        args: tuple,
        kwargs: dict,
        data: list[tuple[Tensor, BatchAxis | None]],
    ) -> Any:
        given = args
        target = _target(args, kwargs)
        is_blank = self._is_blank(target)
        if data and args and is_in_place(function) and not self.is_data(args[0]):
            given = (args[0].clone(), *args[1:])  # constants that data are written into
        result = function(*args, **kwargs)
        if not data:
            return result
        if result is None:
            self._mark_assigned(function, args, data, is_blank=is_blank)
            return result
        outputs = tensors_in(result)
        if not outputs:
            return result
        axes = self.propagation(function, given, kwargs, data, outputs, self.recorder.n)
        if is_blank and axes == [None]:
            others = _without(data, target)
            axes = self.propagation(function, given, kwargs, others, outputs, self.recorder.n)
        for output, axis in zip(outputs, axes, strict=True):
            if axis is not None:
                self.mark(output, axis)
                continue
            if is_in_place(function) and self._is_seen_elsewhere(output):
                raise StrategyRefused(f"{name_of(function)} mixes samples in place")
            if function not in CREATIONS:
                self.mark(output, None)
        if function in BLANKS:
            self._blank[outputs[0]] = outputs[0]._version
        return result

    def _is_blank(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and self._blank.get(tensor, None) == tensor._version

    def _look_at_blanks(
        self, function: Callable, target: Any, data: list[tuple[Tensor, BatchAxis | None]]
    ) -> None:
        """What has been looked at is no longer blank: others may see its memory."""
        for tensor, _ in data:
            is_written = function in PLACINGS and tensor is target
            if tensor in self._blank and not is_written:
                self._blank.pop(tensor)

    def _mark_assigned(
        self,
        function: Callable,
        args: tuple,
        inputs: list[tuple[Tensor, BatchAxis | None]],
        *,
        is_blank: bool,
    ) -> None:
        """An assignment writes data into its first argument, which may have been a constant."""
        if not args or not isinstance(args[0], Tensor):
            return
        axis = None
        if function is torch.Tensor.__setitem__:
            axis = self.propagation.after_assignment(args, inputs, self.recorder.n)
            if axis is None and is_blank:
                others = _without(inputs, args[0])
                axis = self.propagation.after_assignment(args, others, self.recorder.n)
        if axis is None and self._is_seen_elsewhere(args[0]):
            raise StrategyRefused(f"{name_of(function)} mixes samples in place")
        self.mark(args[0], axis)

    def _is_seen_elsewhere(self, tensor: Tensor) -> bool:
        """Whether data in the same memory may be known to have an axis."""
        known = tensor in self._axes
        return known and (self._axes[tensor] is not None or tensor._is_view())

    def _follow_parameters(
        self,
        function: Callable,
        args: tuple,
        kwargs: dict,
        leaves: frozenset[str],
    ) -> Any:
        result = function(*args, **kwargs)
        if function in SPREADING:
            self._note_spread(function, args, kwargs, result)
        written = args[:1] if result is None else ()
        for output in tensors_in(result, written):
            if output.requires_grad and output not in self._axes:
                self._derived[output] = leaves
                base = output._base
                if base is not None and (written or is_in_place(function)):
                    self._derived[base] = leaves | self._derived.get(base, _NONE)
        return result

    def _note_spread(self, function: Callable, args: tuple, kwargs: dict, result: Any) -> None:
        """Remember what a sum with constants, or an expansion, broadcasts of a single parameter."""
        made = [t for t in tensors_in(args, kwargs) if self.is_parameter(t)]
        if len(made) != 1 or kwargs or not isinstance(result, Tensor) or is_in_place(function):
            return
        before, smaller = self._spread.get(made[0], None), made[0]
        if before is not None and before.is_current(made[0]):
            smaller = before.smaller
        is_negative = function in DIFFERENCES and made[0] is not args[0]
        if not is_negative and result.numel() > smaller.numel() and result.dtype == smaller.dtype:
            self._spread[result] = _Spread(smaller, (smaller._version, result._version))

    def _meet(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        rule = self.rules.get(function)
        if rule is not None:
            return rule(self, function, args, kwargs)
        body = body_of(function)
        if body is not None:
            with self:
                return body(*args, **kwargs)
        raise StrategyRefused(f"{name_of(function)} has no rule for parameters that meet data")

    def _draw(self, function: Callable, args: tuple, kwargs: dict) -> Tensor | None:
        """What the rows draw, each for itself; None where that cannot be told."""
        if function in DROPOUTS:
            return self._drop(args, kwargs)
        if function in DRAWING_BODIES:
            body = body_of(function)
            with self:
                return body(*args, **kwargs) if body is not None else None
        if is_in_place(function) and self._leaves_of(args[0]):
            raise StrategyRefused(f"{name_of(function)} writes random numbers into a parameter")
        drawn = self.noise.draw(function, args, kwargs, self._axis_for_noise)
        if drawn is None:
            return None
        tensor, axis = drawn
        self.mark(tensor, axis)
        return tensor

    def _axis_for_noise(self, tensor: Tensor) -> BatchAxis | None:
        """The axis of data, None for other tensors."""
        axis = self._axes.get(tensor, _NO_DATA)
        if axis is None:
            raise UnknownAxisError
        return None if axis is _NO_DATA else axis

    def _drop(self, args: tuple, kwargs: dict) -> Tensor | None:
        """Dropout as torch computes it on a CPU, where it is a product with a draw."""
        options = {"p": 0.5, "training": kwargs.get("train", True), "inplace": False, **kwargs}
        options |= dict(zip(("input", "p", "training", "inplace"), args, strict=False))
        x, p, training, inplace = (options[k] for k in ("input", "p", "training", "inplace"))
        if not training or not 0 < p < 1 or not x.is_cpu or self._axes.get(x, None) is None:
            return None
        kept = self._draw(torch.Tensor.bernoulli_, (torch.empty_like(x), 1 - p), {})
        if kept is None:
            return None
        kept.div_(1 - p)
        with self:
            return x.mul_(kept) if inplace else x * kept


def _target(args: tuple, kwargs: dict) -> Any:
    """What a function works on, or writes into."""
    return args[0] if args else kwargs.get("input")


def _without(
    data: list[tuple[Tensor, BatchAxis | None]], tensor: Tensor
) -> list[tuple[Tensor, BatchAxis | None]]:
    return [pair for pair in data if pair[0] is not tensor]

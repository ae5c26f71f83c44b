"""Gathers what the uses of each parameter contribute, and carries it down to the leaves."""

from __future__ import annotations

import functools
from collections import defaultdict

import torch
from torch import Tensor, nn

from skgradood.gradients.capture.graph import is_linear_backwards, is_of_elements, normed_leaves
from skgradood.gradients.contributions import Contribution, DenseContribution
from skgradood.gradients.derived import (
    JacobianContribution,
    NormedContribution,
    ScaledContribution,
    is_outer_product,
)
from skgradood.gradients.errors import StrategyRefused
from skgradood.gradients.layer_gradient import LayerGradient
from skgradood.gradients.parts import part_of, through_view
from skgradood.gradients.reducers import Reducer
from skgradood.gradients.shared import joined

# Rows pushed through a parameter-only graph at once.
_CARRIED_ROWS = 64


class Use:
    """One place where a tensor computed from parameters meets data."""

    __slots__ = ("leaves", "recorder", "tensor", "version")

    def __init__(self, recorder: Recorder, tensor: Tensor, leaves: frozenset[str]) -> None:
        self.recorder = recorder
        self.tensor = tensor
        self.leaves = leaves
        self.version = tensor._version

    def deliver(self, contribution: Contribution) -> None:
        """Called once, by the backward pass."""
        self.recorder.receive(self, contribution)


class Recorder:
    """Collects contributions of one batch and hands every leaf to the reducer when complete.

    A parameter is reduced while the backward pass runs, so that its gradients need not be kept, as
    soon as all uses of it, and of views of it, have come. What reaches a leaf through another
    parameter-only graph follows after the pass.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], n: int, reducer: Reducer) -> None:
        self.parameters = parameters
        self.n = n
        self.reducer = reducer
        self._awaited: dict[str, int] = defaultdict(int)
        self._received: dict[str, list[Contribution]] = defaultdict(list)
        self._carried: dict[int, tuple[Use, list[Contribution]]] = {}
        self._emitted: set[str] = set()
        # Leaves of which something is made that has a hook, which may do anything to a gradient.
        self.hooked: set[str] = set()

    def use(self, tensor: Tensor, leaves: frozenset[str]) -> Use:
        """Announce a use during the forward pass."""
        for name in leaves:
            self._awaited[name] += 1
        return Use(self, tensor, leaves)

    def receive(self, use: Use, contribution: Contribution) -> None:
        if not self._is_leaf(use):
            if use.tensor._version != use.version:
                raise StrategyRefused(
                    f"a tensor computed from {sorted(use.leaves)} is written into after data met it"
                )
            use, contribution = self._through_view(use, contribution)
        if not self._is_leaf(use):
            _, uses = self._carried.setdefault(id(use.tensor), (use, []))
            uses.append(contribution)
            return
        (name,) = use.leaves
        self._received[name].append(contribution)
        self._awaited[name] -= 1
        if self._awaited[name] == 0:
            self._emit(name)

    def finish(self) -> None:
        """After the backward pass: carry, and hand over what is left."""
        self._check_nonlinear()
        while self._carried:
            _, (use, contributions) = self._carried.popitem()
            parts = joined(contributions)
            if len(parts) > 1 and not self._is_linear(use):
                parts = [DenseContribution(functools.reduce(torch.add, map(_whole, parts)))]
            for contribution in parts:
                for name, carried in zip(
                    sorted(use.leaves), self._carry(use, contribution), strict=True
                ):
                    if carried is not None:
                        self._received[name].append(carried)
        for name in self.parameters:
            if name not in self._emitted:
                self._emit(name)

    def _is_leaf(self, use: Use) -> bool:
        return len(use.leaves) == 1 and use.tensor is self.parameters[next(iter(use.leaves))]

    def _is_linear(self, use: Use) -> bool:
        return not (use.leaves & self.hooked) and is_linear_backwards(use.tensor)

    def _check_nonlinear(self) -> None:
        """Refuse several tensors that share what is not linear: it gets the sum of all they do."""
        seen: set[str] = set()
        for use, _ in self._carried.values():
            if not self._is_linear(use):
                if seen & use.leaves:
                    raise StrategyRefused(
                        f"several tensors made from {sorted(seen & use.leaves)} have a hook, or a "
                        "function's own backward, between them and the parameter"
                    )
                seen |= use.leaves

    def _through_view(self, use: Use, contribution: Contribution) -> tuple[Use, Contribution]:
        """What a whole tensor receives from a part of it; the same where the use is of no part."""
        whole = use.tensor._base
        part = None if whole is None else part_of(use.tensor, whole)
        if whole is None or part is None or not self._is_linear(use):
            return use, contribution
        return Use(self, whole, use.leaves), through_view(contribution, part, whole.shape)

    def _emit(self, name: str) -> None:
        parameter = self.parameters[name]
        self._emitted.add(name)
        self.reducer.update(
            LayerGradient(
                name,
                parameter.shape,
                self.n,
                parameter.dtype,
                parameter.device,
                joined(self._received.pop(name, [])),
            )
        )

    def _carry(self, use: Use, contribution: Contribution) -> list[Contribution | None]:
        if not self._is_linear(use):
            return self._carry_rows(use, contribution)
        scale = self._derivative(use)
        if scale is not None:
            return [ScaledContribution(contribution, scale)]
        leaves = normed_leaves(use.tensor)
        if leaves is not None and is_outer_product(contribution):
            return self._carry_by_norm(use, contribution, *leaves)
        # A Jacobian is linear over the reals only, so it does not serve complex tensors.
        if use.tensor.numel() <= self.n and not use.tensor.is_complex():
            return self._carry_by_jacobian(use, contribution)
        return self._carry_rows(use, contribution)

    def _carry_rows(self, use: Use, contribution: Contribution) -> list[Contribution | None]:
        parts: list[list[Tensor | None]] = []
        for start in range(0, self.n, _CARRIED_ROWS):
            rows = slice(start, min(start + _CARRIED_ROWS, self.n))
            parts.append(self._pull_back(use, contribution.dense(rows)))
        return [
            DenseContribution(torch.cat(column)) if column[0] is not None else None
            for column in zip(*parts, strict=True)
        ]

    def _carry_by_norm(
        self, use: Use, contribution: Contribution, direction: Tensor, size: Tensor
    ) -> list[Contribution | None]:
        rows = direction.detach().flatten(1)
        norms = rows.norm(dim=1, keepdim=True)
        ratios = size.detach().flatten() / norms[:, 0]
        across = NormedContribution(contribution, rows / norms, ratios, direction.shape)
        along = DenseContribution(across.sizes().reshape(-1, *size.shape))
        return [
            across if self.parameters[name] is direction else along for name in sorted(use.leaves)
        ]

    def _derivative(self, use: Use) -> Tensor | None:
        """The derivative of a function of each element of one leaf, as of a mask or of `exp`.

        None for any other function.
        """
        leaf, *others = (self.parameters[name] for name in use.leaves)
        is_real = not (leaf.is_complex() or use.tensor.is_complex())
        if others or leaf.shape != use.tensor.shape or not is_real or not leaf.numel():
            return None
        if not is_of_elements(use.tensor):
            return None
        (scale,) = self._pull_back(use, torch.ones_like(use.tensor)[None].detach())
        return None if scale is None else scale[0]

    def _carry_by_jacobian(self, use: Use, contribution: Contribution) -> list[Contribution | None]:
        size = use.tensor.numel()
        basis = torch.eye(size, dtype=use.tensor.dtype, device=use.tensor.device)
        jacobians = self._pull_back(use, basis.reshape(size, *use.tensor.shape))
        coefficients = contribution.dense(slice(None)).reshape(self.n, size)
        return [
            JacobianContribution(coefficients.to(jacobian.dtype), jacobian)
            if jacobian is not None
            else None
            for jacobian in jacobians
        ]

    def _pull_back(self, use: Use, gradients: Tensor) -> list[Tensor | None]:
        """Vector-Jacobian products (m, *leaf) of all rows of (m, *tensor) at once."""
        leaves = [self.parameters[name] for name in sorted(use.leaves)]
        gradients = gradients.to(use.tensor.dtype)
        try:
            with torch.enable_grad():
                if len(gradients) == 1:
                    pulled = torch.autograd.grad(
                        use.tensor, leaves, gradients[0], retain_graph=True, allow_unused=True
                    )
                    return [p if p is None else p[None] for p in pulled]
                return list(
                    torch.autograd.grad(
                        use.tensor,
                        leaves,
                        gradients,
                        retain_graph=True,
                        allow_unused=True,
                        is_grads_batched=True,
                    )
                )
        except RuntimeError as error:
            raise StrategyRefused(
                f"gradients could not be carried through the computation of a parameter of shape "
                f"{tuple(use.tensor.shape)} from {sorted(use.leaves)}: {error}"
            ) from error


def _whole(contribution: Contribution) -> Tensor:
    return contribution.dense(slice(None))

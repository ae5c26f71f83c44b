"""How many rows a pass takes, and how they come to the device."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from skgradood.gradients.likelihood import LogLikelihood
from skgradood.gradients.state import isolated_rng

LARGEST_BATCH = 1024
# Where that leaves the cache far from full, operations take less than Python takes to call them: a
# flow of rows has half the time a row at 4096 rows that it has at 1024.
LARGEST_OF_SMALL_ROWS = 4096
_SMALL_BYTES = 1 << 20
# On a CPU a pass is quickest while each thread's share of a batch's largest activation stays about
# in its cache: on six models of usual sizes, with one thread and with two, this is within about a
# tenth of the best of 8, 16, 32, 64 and 128 rows. All these numbers of bytes are a thread's.
_SMALLEST_BATCH = 8
_CACHED_BYTES = 1 << 23
# Of the memory that is free, saved activations may take this share: gradients in flight, blocks of
# per-sample gradients and what torch does not give back need the rest.
_SHARE_OF_MEMORY = 0.4


@dataclass(frozen=True)
class RowMemory:
    """Bytes that autograd keeps for one row between the forward and the backward pass."""

    total: int
    largest: int


def row_memory(module: nn.Module, log_likelihood: LogLikelihood, X: Tensor) -> RowMemory:
    """Measure the activations that a forward pass saves, on two rows and on one.

    Parameters
    ----------
    module : nn.Module
        In evaluation state, on the device of X.
    log_likelihood : LogLikelihood
        What will be differentiated.
    X : Tensor of shape (n, ...)
        At least two rows.

    Returns
    -------
    RowMemory
        What does not grow with the rows, such as weights, is not counted.
    """
    one, two = (_saved_bytes(module, log_likelihood, X[:n]) for n in (1, 2))
    if len(one) == len(two):
        grown = [max(0, b - a) for a, b in zip(one, two, strict=True)]
    else:
        grown = [size // 2 for size in two]
    return RowMemory(sum(grown), max(grown, default=0))


def _saved_bytes(module: nn.Module, log_likelihood: LogLikelihood, X: Tensor) -> list[int]:
    """Sizes of the memory blocks that autograd saves, in the order of the forward pass."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        # The block stays alive as long as the graph, so that its address is not used again.
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        isolated_rng(0),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(note, _unchanged),
    ):
        generator = torch.Generator(device=X.device).manual_seed(0)
        values = log_likelihood(module, X, generator)
        del values
    return list(sizes.values())


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def fitting_batch_size(memory: RowMemory, device: torch.device) -> int:
    """Rows a pass: near the cache on a CPU, as many as are of use on an accelerator, if they fit.

    Parameters
    ----------
    memory : RowMemory
        What one row takes.
    device : torch.device
        Where.

    Returns
    -------
    int
        At least one.
    """
    size = LARGEST_BATCH
    if device.type == "cpu":
        threads, row = torch.get_num_threads(), max(1, memory.largest)
        near_cache = threads * max(_SMALLEST_BATCH, _CACHED_BYTES // row)
        in_cache = min(threads * _SMALL_BYTES // row, LARGEST_OF_SMALL_ROWS)
        size = max(in_cache, min(near_cache, LARGEST_BATCH))
    available = available_memory(device)
    if available is not None:
        size = min(size, int(_SHARE_OF_MEMORY * available) // max(1, memory.total))
    return max(1, size)


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device; None where the system does not tell."""
    measure = _MEASURES.get(device.type)
    return None if measure is None else measure(device)


def _available_to_process(device: torch.device) -> int | None:
    known = [size for size in (_left_in_machine(), _left_in_control_group()) if size is not None]
    return min(known, default=None)


def _left_in_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _left_in_control_group() -> int | None:
    """What a container may still take; none on machines without such a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None


def _left_on_cuda(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    # What torch has taken and does not use is free, too.
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _left_on_mps(device: torch.device) -> int:
    return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())


_MEASURES: dict[str, Callable[[torch.device], int | None]] = {
    "cpu": _available_to_process,
    "cuda": _left_on_cuda,
    "mps": _left_on_mps,
}


class Feeder:
    """Rows of X on a device, batch by batch; on CUDA the next one travels beside the kernels.

    Parameters
    ----------
    X : Tensor of shape (n, ...)
        Rows, on any device.
    device : torch.device
        Where they are wanted.
    """

    def __init__(self, X: Tensor, device: torch.device) -> None:
        self.X = X
        self.device = device
        self._stream = (
            torch.cuda.Stream(device) if device.type == "cuda" and X.device.type == "cpu" else None
        )
        self._sent: tuple[slice, Tensor] | None = None

    def take(self, start: int, size: int) -> Tensor:
        """Rows from ``start``, at most ``size``; the same number after them is sent for."""
        if self._stream is None:
            return self.X[start : start + size].to(self.device)
        rows = slice(start, start + size)
        if self._sent is None or self._sent[0] != rows:
            self._send(rows)
        assert self._sent is not None
        batch = self._sent[1]
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._stream)
        batch.record_stream(current)
        self._sent = None
        if start + size < len(self.X):
            self._send(slice(start + size, start + 2 * size))
        return batch

    def _send(self, rows: slice) -> None:
        # Only from pinned memory does a copy run while Python goes on; torch keeps the pinned
        # block until the copy is done.
        pinned = self.X[rows].pin_memory()
        with torch.cuda.stream(self._stream):
            self._sent = rows, pinned.to(self.device, non_blocking=True)

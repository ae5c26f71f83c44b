"""Recurrent networks, for the case dictionary."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, rnn


class LastOutput(nn.Module):
    """The output at the last time, (n, features), of a layer over (n, times, features)."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x)[0][:, -1]


class TimesFirst(nn.Module):
    """All that a layer returns, for input (times, n, features)."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.recurrent(x.transpose(0, 1))
        states = state if isinstance(state, tuple) else (state,)
        return torch.cat([part.transpose(0, 1).flatten(1) for part in (out, *states)], 1)


class LearnedState(nn.Module):
    """An LSTM that starts from parameters, and is used a second time."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(d, d, batch_first=True)
        self.hidden = nn.Parameter(torch.zeros(1, 1, d))
        self.cell = nn.Parameter(torch.zeros(1, 1, d))

    def forward(self, x: Tensor) -> Tensor:
        start = (self.hidden.expand(-1, len(x), -1), self.cell.repeat(1, len(x), 1))
        out, state = self.recurrent(x, start)
        return self.recurrent(out.tanh(), state)[0].flatten(1)


class Cells(nn.Module):
    """A cell called at every time, from its own state of zeros."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for now in x.unbind(1):
            state = self.cell(now, state)
        return torch.cat(state, 1) if isinstance(state, tuple) else state


class Packed(nn.Module):
    """Sequences that end at different times."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(d, d, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = [x.shape[1]] * len(x)
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.recurrent(packed)[1][0][0]


class PackedByData(nn.Module):
    """Sequences that are as long as they have positive numbers, in any order, packed and unpacked.

    Two lengths may be equal; what is beyond a sequence's end does not matter.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.recurrent = layer

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x[:, :, 0] > 0).sum(1).clamp_min(1).cpu()
        first = self.recurrent.batch_first
        x = x if first else x.transpose(0, 1)
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
        out, last = self.recurrent(packed)
        last = last[0] + last[1].mean(-1, keepdim=True) if isinstance(last, tuple) else last
        dim = 1 if first else 0
        out, _ = rnn.pad_packed_sequence(out, batch_first=first, total_length=x.shape[dim])
        out = out if first else out.transpose(0, 1)
        return torch.cat([out.flatten(1), last.transpose(0, 1).flatten(1)], 1)


PACKED = {
    "lstm": lambda: nn.LSTM(3, 4, 2, batch_first=True),
    "gru_both_ways": lambda: nn.GRU(3, 4, 2, bidirectional=True, batch_first=True),
    "elman_times_first": lambda: nn.RNN(3, 4, bidirectional=True),
    "lstm_projected": lambda: nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2, batch_first=True),
}


class SamplesAsTimes(nn.Module):
    """The recurrence runs over the rows of the batch."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.recurrent = nn.RNN(d, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x)[0]


def weight_normed_gru(d: int) -> nn.Module:
    layer = nn.GRU(d, d, batch_first=True)
    return parametrizations.weight_norm(layer, "weight_hh_l0")


def partly_frozen_lstm(d: int) -> nn.Module:
    layer = nn.LSTM(d, d, batch_first=True)
    layer.weight_hh_l0.requires_grad_(False)
    layer.bias_ih_l0.requires_grad_(False)
    return layer

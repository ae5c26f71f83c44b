"""Log-likelihoods that draw noise, by the functions that torch and its distributions draw with."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, distributions, nn

Draw = Callable[[Tensor, Tensor], Tensor]


class Drawing(nn.Module):
    """A log-likelihood of a layer's output and what is drawn from, or beside, it.

    ``draw(h, x)`` takes the output (n, d) and the data, and returns (n, ...).
    """

    def __init__(self, d: int, draw: Draw) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(d, d), nn.Parameter(torch.zeros(d))
        self.draw = draw

    def log_prob(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        h = self.layer(X)
        drawn = self.draw(h, X)
        return (drawn * self.scale + h).sin().flatten(1).sum(1) - (h * self.scale).square().sum(1)


def _importance_samples(h: Tensor, x: Tensor) -> Tensor:
    """Three samples a row, in a dimension before the rows."""
    samples = distributions.Normal(h, F.softplus(h)).rsample((3,))
    return torch.logsumexp(samples, 0)


def _in_place(h: Tensor, x: Tensor) -> Tensor:
    noise = torch.empty_like(x).uniform_(-1, 1)
    noise += torch.zeros(len(x), 1, dtype=x.dtype, device=x.device).normal_(0.0, 0.1)
    return h + noise.mul_(2)


def _in_another_layout(h: Tensor, x: Tensor) -> Tensor:
    """Drawn in the order of memory, which is not that of the dimensions; several samples a row."""
    wide = (h[:, :, None] * x[:, None, :4]).transpose(1, 2)
    noise = torch.zeros_like(wide.mT)
    noise[:, :, 1:3].normal_()
    coins = torch.empty(len(x), 5, 4, dtype=x.dtype, device=x.device).mT.bernoulli_(0.4)
    later = torch.empty_like(wide.transpose(0, 1)).uniform_().transpose(0, 1)
    drawn = F.dropout(wide, 0.5, True) - torch.randn_like(wide) * wide + noise.mT * coins * later
    return drawn.sum(1)


def _tokens(h: Tensor, x: Tensor) -> Tensor:
    classes = torch.multinomial(h.detach().softmax(-1), 2)
    ones = F.one_hot(classes, h.shape[1]).sum(1)
    return h * (ones + torch.randint(0, 3, h.shape, device=h.device))


def _mixture(h: Tensor, x: Tensor) -> Tensor:
    classes = distributions.Categorical(logits=h).sample()
    return h.gather(1, classes[:, None]) * distributions.Bernoulli(logits=h).sample()


def _rows_last(h: Tensor, x: Tensor) -> Tensor:
    return (
        h
        + torch.bernoulli(torch.sigmoid(h.T)).T
        + torch.randn(3, 1, len(x), dtype=x.dtype, device=x.device).sum((0, 1))[:, None]
    )


DRAWN: dict[str, Draw] = {
    "normal": lambda h, x: distributions.Normal(h, F.softplus(h)).rsample(),
    "importance_samples": _importance_samples,
    "normal_of_means": lambda h, x: h + torch.normal(x, 0.5),
    "normal_of_both": lambda h, x: h + torch.normal(x[:, :1], torch.full_like(x, 0.5)),
    "normal_of_a_size": lambda h, x: h + torch.normal(0.0, 1.0, x.shape, device=x.device),
    "repeated_rows": lambda h, x: (
        torch.randn(2 * len(x), 5, device=x.device).unflatten(0, (-1, 2)).sum(1) * h
    ),
    "in_place": _in_place,
    "like": lambda h, x: h * torch.randint_like(x, 0, 3) + torch.rand_like(x[:, :1]),
    "bernoulli": lambda h, x: h * torch.bernoulli(torch.sigmoid(x)) + x.bernoulli(0.5),
    "poisson": lambda h, x: h + torch.poisson(h.detach().exp()),
    "tokens": _tokens,
    "mixture": _mixture,
    "laplace": lambda h, x: distributions.Laplace(h, 1.0).rsample(),
    "gumbel_softmax": lambda h, x: F.gumbel_softmax(h, hard=True),
    "dropout": lambda h, x: F.dropout(h, 0.3, training=True),
    "dropout_in_place": lambda h, x: F.dropout(2 * h, 0.3, True, True),
    "no_dropout": lambda h, x: F.dropout(h, 0.3, training=False),
    "gamma_of_constants": lambda h, x: (
        h * distributions.Gamma(torch.full_like(x, 2.0), 1.0).rsample()
    ),
    "rows_last": _rows_last,
    "keywords": lambda h, x: (
        h
        * torch.randint(low=0, high=3, size=x.shape, device=x.device)
        * torch.dropout(x, p=0.3, train=True)
        * torch.normal(mean=0.0, std=1.0, size=x.shape, device=x.device)
    ),
    "another_layout": _in_another_layout,
}
# What cannot be given to rows one by one, or follows what it is drawn by.
NOT_DRAWN: dict[str, Draw] = {
    "the_same_for_all": lambda h, x: h * torch.randn(5, dtype=x.dtype, device=x.device),
    "order": lambda h, x: h[:, torch.randperm(5, device=x.device)],
    # As many classes as there are rows: they are no rows.
    "one_of_four_classes": lambda h, x: (
        h
        * torch.eye(5, dtype=x.dtype, device=x.device)[
            torch.multinomial(torch.tensor([0.7, 0.1, 0.1, 0.1], device=x.device), 1)
        ]
    ),
    "gamma": lambda h, x: distributions.Gamma(F.softplus(h), 1.0).rsample(),
}

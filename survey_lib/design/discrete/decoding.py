"""Decoding of masked tokens: several at a time in order of confidence (MaskGIT), or one after another.

A bridge of the absorbing chain unmasks a random subset of the entries, each drawn independently of the others; that is
an error where entries depend on one another. `ConfidenceDecoding` unmasks a fixed number, chosen by their confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from survey_lib.core.categorical import Categorical
from survey_lib.core.checks import check_generator, check_times
from survey_lib.core.protocols import BridgeOverride

#: Priority of masked entries: ``(probabilities (B, N, K), drawn (B, N)) -> (B, N)``, positive, the largest first.
Score = Callable[[Tensor, Tensor], Tensor]


def purity(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """Purity ``max_k p(x0 = k | x_t)`` of the prediction (Improved VQ-Diffusion, Tang et al. 2022)."""
    return probabilities.amax(-1)


def confidence(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """Confidence ``p(x0 = drawn | x_t)`` of the sampled token (MaskGIT, Chang et al. 2022).

    It rejects unlikely tokens, so probable samples are too frequent even with one token per step.
    """
    return probabilities.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)


def random_order(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """Equal scores: with ``temperature=1`` a random order."""
    return torch.ones_like(probabilities[..., 0])


def raster_order(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """Falling scores: with ``temperature=0`` a raster order."""
    return torch.arange(drawn.shape[1], 0, -1, device=drawn.device).expand(drawn.shape).to(probabilities)


@dataclass(frozen=True)
class ConfidenceDecoding(BridgeOverride):
    """Parallel decoding (MaskGIT): each step unmasks the entries of highest score, as many as the chain on average.

    The ``bridge`` samples every masked entry from the prediction and keeps the largest of ``log score + temperature *
    Gumbel noise``: a sample in proportion to the score at ``temperature = 1``, the highest scores at 0. After the step
    ``N q(mask | t = s)`` of N entries are masked; at least one entry is unmasked. With one entry per step and a score
    that does not depend on the sampled tokens, exact predictions give the exact joint distribution in any order.

    corruption: an `absorbing` chain. MaskGIT's grid is `cosine_times`.
    score: `purity`, `confidence`, `random_order` or `raster_order`.
    temperature: 0 or more.
    """

    corruption: Categorical
    score: Score = purity
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.corruption.stationary[-1] != 1:
            raise ValueError("parallel decoding needs a chain that ends in masks alone, such as absorbing")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must not be negative; got {self.temperature}")

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Unmask the entries of highest score: integers (B, ...) and probabilities (B, ..., S) -> integers."""
        generator = check_generator(generator)
        x, probabilities = x_t.flatten(1), x0.flatten(1, -2)[..., :-1]
        masked = x == len(self.corruption.stationary) - 1
        chances = probabilities.flatten(0, 1).to(generator.device)
        drawn = torch.multinomial(chances, 1, generator=generator).reshape(x.shape).to(x.device)
        noise = torch.empty(x.shape, dtype=torch.float64, device=generator.device).exponential_(generator=generator)
        gumbel = -noise.log().to(x.device)
        rank = self.score(probabilities, drawn).double().log() + self.temperature * gumbel
        place = rank.masked_fill(~masked, -math.inf).argsort(dim=1, descending=True, stable=True).argsort(1)
        fraction = self.corruption.matrix(torch.zeros(()).double(), torch.as_tensor(s, dtype=torch.float64))[0, -1]
        before = masked.sum(1, keepdim=True)
        count = (before - round(float(fraction) * x.shape[1])).clamp_min(1)
        return torch.where(masked & (place < count), drawn, x).reshape(x_t.shape)


def cosine_times(steps: int) -> Tensor:
    """MaskGIT's cosine schedule as a grid: ``t_i = cos(pi i / (2 steps))``; few tokens at first, many at the end.

    For the absorbing chain, where the fraction of masks is t.
    """
    angles = torch.linspace(0, math.pi / 2, steps + 1, dtype=torch.float64)
    return check_times(torch.cat([angles[:-1].cos(), torch.zeros(1, dtype=torch.float64)]))


@torch.no_grad()
def autoregressive(
    net: nn.Module,
    shape: Sequence[int],
    *,
    cond: Any = None,
    temperature: float = 1.0,
    cached: bool = False,
    generator: torch.Generator,
) -> Tensor:
    """Sample a causal network one token after another: integers of ``shape = (B, L)``. Evaluations: L.

    ``net(x, None, cond)`` predicts the logits (B, L, K) of each token from the tokens before it.

    cached: keep keys and values, so that an evaluation computes one place instead of L; see `nets.transformer`.
    """
    device = next((parameter.device for parameter in net.parameters()), generator.device)
    x, cache = torch.zeros(tuple(shape), dtype=torch.int64, device=device), ()
    before = torch.full((shape[0],), net.states, device=device) if cached else None
    for place in range(shape[1]):
        if cached:
            logits, cache = net(before, None, cond, cache)
        else:
            logits = net(x, None, cond)[:, place]
        probabilities = (logits.float() / temperature).softmax(-1).to(generator.device)
        x[:, place] = before = torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(device)
    return x


def log_likelihood(net: nn.Module, x: Tensor, *, cond: Any = None) -> Tensor:
    """Exact log-likelihood ``sum_i log p(x_i | x_<i)`` of a causal network: (B, L) -> (B,) in nats."""
    log_probs = net(x, None, cond).float().log_softmax(-1)
    return log_probs.gather(-1, x.long().unsqueeze(-1)).squeeze(-1).sum(1)

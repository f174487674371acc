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

#: Which masked entries come first: ``(probabilities (B, N, K), drawn (B, N)) -> (B, N)``, positive, the largest first.
Score = Callable[[Tensor, Tensor], Tensor]


def purity(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """``max_k p(x0 = k | x_t)``: how sure the denoiser is of an entry (Improved VQ-Diffusion, Tang et al. 2022)."""
    return probabilities.amax(-1)


def confidence(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """``p(x0 = drawn | x_t)``: how probable what was drawn is (MaskGIT, Chang et al. 2022).

    It keeps likely draws and throws unlikely ones back: the samples are more typical than the law, even one at a time.
    """
    return probabilities.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)


def random_order(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """All alike: a random order."""
    return torch.ones_like(probabilities[..., 0])


def raster_order(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """The first comes first, as in a text; with ``temperature=0``."""
    return torch.arange(drawn.shape[1], 0, -1, device=drawn.device).expand(drawn.shape).to(probabilities)


@dataclass(frozen=True)
class ConfidenceDecoding(BridgeOverride):
    """Parallel decoding: each step fills in as many masks as the chain would on average, those of highest score.

    The ``bridge`` draws every masked entry from the denoiser's answer and keeps the best: the largest of ``log score +
    temperature * Gumbel noise``, which is a draw in proportion to the score at ``temperature = 1`` and strictly the
    best at 0. So many that ``N q(mask | t = s)`` entries stay masked, at least one a step. With one entry a step, and
    a score that does not look at what was drawn, the result has the law of the denoiser's conditionals whatever the
    order: exactly the data's if they are exact. ``corruption`` is `absorbing`; `cosine_times` is MaskGIT's grid.
    """

    corruption: Categorical
    score: Score = purity
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.corruption.stationary[-1] != 1:
            raise ValueError("parallel decoding fills in masks: it takes a chain that ends in masks alone (absorbing)")
        if not self.temperature >= 0:
            raise ValueError(f"a temperature is not negative; got {self.temperature}")

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Fill in the best masks: integers (B, ...) and probabilities (B, ..., S) -> integers."""
        generator = check_generator(generator)
        x, probabilities = x_t.flatten(1), x0.flatten(1, -2)[..., :-1]
        masked = x == len(self.corruption.stationary) - 1
        chances = probabilities.flatten(0, 1).to(generator.device)
        drawn = torch.multinomial(chances, 1, generator=generator).reshape(x.shape).to(x.device)
        noise = torch.empty(x.shape, dtype=torch.float64, device=generator.device).exponential_(generator=generator)
        gumbel = -noise.log().to(x.device)
        rank = self.score(probabilities, drawn).double().log() + self.temperature * gumbel
        place = rank.masked_fill(~masked, -math.inf).argsort(dim=1, descending=True, stable=True).argsort(1)
        share = self.corruption.matrix(torch.zeros(()).double(), torch.as_tensor(s, dtype=torch.float64))[0, -1]
        before = masked.sum(1, keepdim=True)
        filled = (before - round(float(share) * x.shape[1])).clamp_min(1)
        return torch.where(masked & (place < filled), drawn, x).reshape(x_t.shape)


def cosine_times(steps: int) -> Tensor:
    """MaskGIT's schedule as a grid: ``t_i = cos(pi i / (2 steps))``, few masks at first, many at the end.

    For the absorbing chain, whose share of masks is t.
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
    generator: torch.Generator,
) -> Tensor:
    """One entry after another from a causal network: integers ``shape = (B, L)``. Evaluations: L.

    ``net(x, None, cond)`` gives logits (B, L, K) of each entry from those before it.
    """
    device = next((parameter.device for parameter in net.parameters()), generator.device)
    x = torch.zeros(tuple(shape), dtype=torch.int64, device=device)
    for place in range(shape[1]):
        law = (net(x, None, cond)[:, place].float() / temperature).softmax(-1)
        x[:, place] = torch.multinomial(law.to(generator.device), 1, generator=generator)[:, 0].to(device)
    return x


def log_likelihood(net: nn.Module, x: Tensor, *, cond: Any = None) -> Tensor:
    """``log p(x) = sum_i log p(x_i | x_<i)`` of a causal network: (B, L) -> (B,) in nats, exact."""
    log_probs = net(x, None, cond).float().log_softmax(-1)
    return log_probs.gather(-1, x.long().unsqueeze(-1)).squeeze(-1).sum(1)

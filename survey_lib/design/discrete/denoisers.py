"""A network as a denoiser of categories, what it is trained on, and what the chain then says of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.core.categorical import Categorical
from survey_lib.core.likelihood import bits_per_dim
from survey_lib.core.losses import step_kl, variational_bound
from survey_lib.core.protocols import Denoiser, evaluate_both


class CategoricalDenoiser(nn.Module):
    """A network made into a denoiser of categories: ``p(x0 = k | x_t) ~ softmax(net(x_t, c_noise))_k q(x_t | k)``.

    By Bayes' rule an entry's law is what its neighbours say of it, times its own evidence ``q(x_t | x0 = k)``. The
    second is known, so the network has to learn the first alone: what EDM's skip does for numbers, this does for
    categories. A network that answers 0 is then the exact posterior of entries that know nothing of each other, and
    at t = 0, or where a chain only masks, what is seen stays. ``evidence=False`` leaves it out: a plain softmax.

    ``x_t`` are integers: images (B, C, H, W) reach the net as one-hot channels (B, S C, H, W), S states, and the first
    ``categories * C`` channels of its answer are logits; sequences (B, L) reach it as they are, and it answers with
    (B, L, categories). ``c_noise = 2 t - 1``. The answer is (B, ..., S) in float64: the mask, a state beyond the
    ``categories``, is never predicted.
    """

    def __init__(self, net: nn.Module, corruption: Categorical, categories: int, *, evidence: bool = True):
        super().__init__()
        states = len(corruption.stationary)
        if categories not in (states, states - 1):
            raise ValueError(f"a chain of {states} states has {states} categories, or one less and a mask")
        self.net, self.corruption, self.categories, self.evidence = net, corruption, categories, evidence

    def log_probs(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        """``log p(x0 = k | x_t)`` of the categories: integers (B, ...) -> (B, ..., categories) in float32, in nats."""
        c_noise = (2 * torch.as_tensor(t, device=x_t.device) - 1).float().expand(len(x_t))
        logits = self._answer(x_t, c_noise, cond).float()
        if self.evidence:
            logits = logits + self.corruption.likelihood(x_t, t)[..., : self.categories].log().float()
        return logits.log_softmax(-1)

    def forward(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        probabilities = self.log_probs(x_t, t, cond).double().exp()
        return F.pad(probabilities, (0, len(self.corruption.stationary) - self.categories))

    def _answer(self, x_t: Tensor, c_noise: Tensor, cond: Any) -> Tensor:
        if x_t.ndim == 2:
            return self.net(x_t, c_noise, cond)
        states = len(self.corruption.stationary)
        seen = rearrange(F.one_hot(x_t, states), "b c h w s -> b (s c) h w")
        answer = self.net(seen.float().contiguous(memory_format=torch.channels_last), c_noise, cond)
        return rearrange(answer[:, : self.categories * x_t.shape[1]], "b (k c) h w -> b c h w k", c=x_t.shape[1])


@dataclass(frozen=True, eq=False)
class LogitGuidance:
    """Classifier-free guidance of categories (Tang et al. 2022, eq. 7): ``p ~ p_null^(1 - scale) p_cond^scale``.

    A geometric mean continued past its end; 1 is the conditional denoiser, 0 the unconditional. ``null`` is the label
    that stands for none. Cost: two evaluations, in one call of 2 B examples.
    """

    denoiser: Denoiser
    null: int
    scale: float

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        if cond is None:
            raise ValueError("guidance needs to know where to: pass cond=, the labels wanted")
        cond = torch.as_tensor(cond, device=x_t.device).expand(len(x_t))
        null, wanted = evaluate_both(self.denoiser, x_t, t, torch.full_like(cond, self.null), cond)
        possible = (null > 0) & (wanted > 0)
        logits = torch.lerp(*(torch.where(possible, p, 1).log() for p in (null, wanted)), self.scale)
        return logits.masked_fill(~possible, -torch.inf).softmax(-1)


def chain_steps(count: int, steps: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``count`` steps drawn from a chain of ``steps`` equal ones: their times ``t`` and ``s = t - 1 / steps``, (B,)."""
    if steps < 1:
        raise ValueError(f"a chain has at least 1 step; got {steps}")
    number = torch.randint(steps, (count,), generator=generator, device=generator.device).double()
    return (number + 1) / steps, number / steps


def cross_entropy(
    denoiser: Denoiser,
    corruption: Categorical,
    x0: Tensor,
    t: Tensor,
    *,
    cond: Any = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``-log p(x0 | x_t)`` with ``x_t ~ q(x_t | x0)``, a mean over the entries: (B,) in nats. Least for the truth."""
    x_t = corruption.corrupt(x0, t, generator=generator)
    return _surprise(denoiser(x_t, t, cond), x0)


def hybrid_loss(
    denoiser: Denoiser,
    corruption: Categorical,
    x0: Tensor,
    t: Tensor,
    s: Tensor,
    *,
    auxiliary: float = 0.01,
    cond: Any = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """D3PM's loss (Austin et al. 2021, eq. 5) at one step: ``KL(q(x_s | x_t, x0) || p(x_s | x_t)) + auxiliary CE``.

    Both terms are means over the entries, in nats: (B,). The first, summed over the steps of a chain, is the
    variational bound; ``steps`` times this at a step drawn by `chain_steps` is unbiased for it. The second is
    `cross_entropy`; like theirs, ``auxiliary`` counts against a single step. One call of the denoiser serves both.
    """
    x_t = corruption.corrupt(x0, t, generator=generator)
    answer = denoiser(x_t, t, cond)
    bound = step_kl(corruption, x_t, x0, answer, t, s) / x0[0].numel()
    return bound + auxiliary * _surprise(answer, x0) if auxiliary else bound


def bound_in_bits(
    denoiser: Denoiser,
    corruption: Categorical,
    x0: Tensor,
    times: Tensor,
    *,
    cond: Any = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What a code by this chain costs, in bits a dimension: (B,), an unbiased estimate of an exact bound.

    `variational_bound` on the grid ``times``; data are categories already, nothing has to be dequantised.
    """
    with torch.no_grad():
        bound = variational_bound(denoiser, corruption, x0, times, cond=cond, generator=generator)
    return bits_per_dim(bound.total, x0[0].numel())


def _surprise(answer: Tensor, x0: Tensor) -> Tensor:
    """``-log`` of the probability given to ``x0``: (B, ..., K), (B, ...) -> (B,), a mean over the entries."""
    given = answer.gather(-1, x0.long().unsqueeze(-1)).squeeze(-1)
    return -given.clamp_min(torch.finfo(given.dtype).tiny).log().flatten(1).mean(1)

"""Networks as denoisers of categories, D3PM's losses, the exact bound, and guidance of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.core.categorical import Categorical
from survey_lib.core.checks import check_count
from survey_lib.core.likelihood import bits_per_dim
from survey_lib.core.losses import step_kl, variational_bound
from survey_lib.core.protocols import Denoiser, evaluate_both


class CategoricalDenoiser(nn.Module):
    """A denoiser of categories from a network: ``p(x0 = k | x_t) ~ softmax(net(x_t, c_noise))_k q(x_t | x0 = k)``.

    By Bayes' rule the posterior of an entry is its distribution given the other entries, times its own likelihood
    ``q(x_t | x0 = k)``. The likelihood is known, so the network learns the first factor alone, as EDM's skip connection
    does for numbers. A network that predicts 0 gives the exact posterior of independent, uniform entries; at t = 0, and
    for unmasked entries of an absorbing chain, x_t is kept.

    net: receives images (B, C, H, W) as one-hot channels (B, S C, H, W) for S states, and the first ``categories * C``
        channels of its output are logits; sequences (B, L) as they are, with logits (B, L, categories).
    categories: S, or S - 1 for a chain with a mask, which is never predicted.
    evidence: whether to multiply by the likelihood; without it, a plain softmax.

    ``c_noise = 2 t - 1``. Predictions are probabilities (B, ..., S) in float64.
    """

    def __init__(self, net: nn.Module, corruption: Categorical, categories: int, *, evidence: bool = True):
        super().__init__()
        states = len(corruption.stationary)
        if categories not in (states, states - 1):
            raise ValueError(
                f"a chain of {states} states has {states} categories, or {states - 1} and a mask; got {categories}"
            )
        self.net, self.corruption, self.categories, self.evidence = net, corruption, categories, evidence

    def log_probs(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        """``log p(x0 = k | x_t)`` of the categories in nats: integers (B, ...) -> (B, ..., categories) in float32."""
        c_noise = (2 * torch.as_tensor(t, device=x_t.device) - 1).float().expand(len(x_t))
        logits = self._logits(x_t, c_noise, cond).float()
        if self.evidence:
            logits = logits + self.corruption.likelihood(x_t, t)[..., : self.categories].log().float()
        return logits.log_softmax(-1)

    def forward(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        probabilities = self.log_probs(x_t, t, cond).double().exp()
        return F.pad(probabilities, (0, len(self.corruption.stationary) - self.categories))

    def _logits(self, x_t: Tensor, c_noise: Tensor, cond: Any) -> Tensor:
        if x_t.ndim == 2:
            return self.net(x_t, c_noise, cond)
        states = len(self.corruption.stationary)
        seen = rearrange(F.one_hot(x_t, states), "b c h w s -> b (s c) h w")
        output = self.net(seen.float().contiguous(memory_format=torch.channels_last), c_noise, cond)
        return rearrange(output[:, : self.categories * x_t.shape[1]], "b (k c) h w -> b c h w k", c=x_t.shape[1])


@dataclass(frozen=True, eq=False)
class LogitGuidance:
    """Classifier-free guidance of categories (Tang et al. 2022, eq. 7): ``p ~ p_null^(1 - scale) p_cond^scale``.

    At scale 1 it is the conditional denoiser, at 0 the unconditional one. ``null`` is the label for "no condition".
    Cost: two evaluations, in one call of 2 B examples.
    """

    denoiser: Denoiser
    null: int
    scale: float

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        if cond is None:
            raise ValueError("guidance needs a condition: pass cond=, the requested labels")
        cond = torch.as_tensor(cond, device=x_t.device).expand(len(x_t))
        null, wanted = evaluate_both(self.denoiser, x_t, t, torch.full_like(cond, self.null), cond)
        possible = (null > 0) & (wanted > 0)
        logits = torch.lerp(*(torch.where(possible, p, 1).log() for p in (null, wanted)), self.scale)
        return logits.masked_fill(~possible, -torch.inf).softmax(-1)


def chain_steps(count: int, steps: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``count`` steps of a chain of ``steps`` equal steps: ``t`` and ``s = t - 1 / steps``, (count,) each."""
    check_count("steps", steps)
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
    """Cross-entropy ``-log p(x0 | x_t)`` with ``x_t ~ q(x_t | x0)``, a mean over the entries: (B,) in nats."""
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

    Both terms are means over the entries, in nats: (B,). The sum of the first over the steps of a chain is the
    variational bound; ``steps`` times the loss at a step drawn by `chain_steps` is an unbiased estimate of it. The
    second is `cross_entropy`, weighted against a single step as in the paper. Cost: one evaluation.
    """
    x_t = corruption.corrupt(x0, t, generator=generator)
    prediction = denoiser(x_t, t, cond)
    bound = step_kl(corruption, x_t, x0, prediction, t, s) / x0[0].numel()
    return bound + auxiliary * _surprise(prediction, x0) if auxiliary else bound


def bound_in_bits(
    denoiser: Denoiser,
    corruption: Categorical,
    x0: Tensor,
    times: Tensor,
    *,
    cond: Any = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Unbiased estimate of the variational bound in bits per dimension: (B,).

    `variational_bound` on the grid ``times``. Data are categories, so they need no dequantisation.
    """
    with torch.no_grad():
        bound = variational_bound(denoiser, corruption, x0, times, cond=cond, generator=generator)
    return bits_per_dim(bound.total, x0[0].numel())


def _surprise(prediction: Tensor, x0: Tensor) -> Tensor:
    """``-log`` of the predicted probability of ``x0``, a mean over the entries: (B, ..., K), (B, ...) -> (B,)."""
    given = prediction.gather(-1, x0.long().unsqueeze(-1)).squeeze(-1)
    return -given.clamp_min(torch.finfo(given.dtype).tiny).log().flatten(1).mean(1)

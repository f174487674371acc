"""Guidance by a classifier of noisy data: its gradient, its scale by entropy (ED-DPM), its training (DLSM).

GLIDE's CLIP guidance (Nichol et al. 2022, sec. 2.4) follows the gradient of a dot product of embeddings
``f(x_t) . g(y)``, which is ``Classifier(denoiser, labels.similarity, schedule, scale)``: `nets.NoisyClassifier` is such
a contrastive network, with one caption for each label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from survey_lib.core.checks import check_signal
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.protocols import Denoiser, expand
from survey_lib.core.schedules import Schedule
from survey_lib.design.guidance.base import Guidance, per_example, require_cond


@dataclass(frozen=True, eq=False)
class Classifier(Guidance):
    """Classifier guidance (Dhariwal & Nichol 2021, alg. 1 and 2): ``x0 = D + scale sigma^2 / alpha grad log p(y|x_t)``.

    Tweedie's formula ``alpha E[x0 | x_t] = x_t + sigma^2 grad log p(x_t)`` also holds given y. Subtracting the two and
    applying Bayes' rule gives ``alpha (E[x0 | x_t, y] - E[x0 | x_t]) = sigma^2 grad log p(y | x_t)``: guidance with
    ``scale = 1`` is exact. In eps (their alg. 2) it is ``eps - scale sigma grad log p(y | x_t)``.

    log_prob: ``log_prob(x_t, t, cond)`` -> (B,), log-probability of the label of *noisy* data, each example independent
        of the others.
    schedule: the schedule of t. At pure noise the formula is 0 times infinity, which raises ValueError.
    conditional: pass ``cond`` to the denoiser too. The classifier then acts on top of a conditional model, as in the
        paper, which amounts to a total scale of ``1 + scale``.

    Cost: one evaluation, and the classifier forward and backward. Works under no_grad and inference_mode, and is
    differentiable in ``x_t``.
    """

    denoiser: Denoiser
    log_prob: Callable[[Tensor, Tensor | float, Any], Tensor]
    schedule: Schedule
    scale: float | Tensor
    conditional: bool = False

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D(x_t)``, and the sum of ``D(x_t)`` and the scaled gradient of the classifier."""
        alpha, sigma = self.schedule.scales(t)
        check_signal(alpha, sigma, "classifier guidance")
        gradient = self.gradient(x_t, t, cond)
        plain = self.denoiser(x_t, t, cond if self.conditional else None)
        return plain, plain + per_example(self.scale, x_t) * expand(sigma**2 / alpha, x_t) * gradient

    def gradient(self, x_t: Tensor, t: Tensor | float, cond: Any) -> Tensor:
        """``grad log p(cond | x_t)`` with respect to ``x_t``, (B, ...)."""
        further = torch.is_grad_enabled() and x_t.requires_grad  # the caller will differentiate this gradient again
        with torch.inference_mode(False), torch.enable_grad():
            x = x_t if further else x_t.detach().clone().requires_grad_()
            # autograd refuses tensors made under inference_mode: their copies are ordinary tensors
            t, cond = (v.clone() if isinstance(v, Tensor) and v.is_inference() else v for v in (t, require_cond(cond)))
            value = self.log_prob(x.view_as(x), t, cond)  # a view: FLOP counters of modules refuse a leaf
            if value.shape != (len(x_t),) or not value.requires_grad:
                raise ValueError(
                    f"log_prob must return one number per example, shape ({len(x_t)},), differentiable in x_t; "
                    f"got shape {tuple(value.shape)}{'' if value.requires_grad else ', detached from x_t'}"
                )
            return torch.autograd.grad(value.sum(), x, create_graph=further)[0]


class Labels(Protocol):
    """Label probabilities of noisy data: `heads.LabelPosterior` of a network, `ExactLabels` of a mixture."""

    def log_probs(self, x_t: Tensor, t: Tensor | float) -> Tensor: ...  # (B, K)

    def log_prob(self, x_t: Tensor, t: Tensor | float, cond: Any) -> Tensor: ...  # (B,)


# ---------------------------------------------------------------- ED-DPM: the scale follows the entropy


def entropy(log_probs: Tensor) -> Tensor:
    """``-sum p log p`` in nats: (B, K) -> (B,), from 0 (certain) to ``log K`` (uniform)."""
    return -(log_probs.exp() * log_probs.clamp_min(-1e4)).sum(1)  # 0 times -infinity is 0 here


def entropy_constraint(log_probs: Tensor) -> Tensor:
    """Entropy-constraint training (ED-DPM, Li et al. 2022): ``log K - H = KL(p || uniform)``, (B,) in nats.

    Added to the cross-entropy, with a weight of 0.1 in the paper, it keeps a classifier from being certain too early.
    """
    return math.log(log_probs.shape[1]) - entropy(log_probs)


@dataclass(frozen=True, eq=False)
class EntropyScaled(Guidance):
    """Entropy-driven sampling (ED-DPM, Li et al. 2022): `Classifier` with ``scale log K / H(p(y | x_t))``.

    The gradient of ``log p`` is proportional to ``1 - p``, so a certain classifier has nearly no gradient long before
    the image is finished. The factor is 1 for a uniform prediction and grows as the entropy H falls, for each example
    separately. ``limit`` bounds it, which the paper does not: at H = 0 it is infinite, and the gradient 0.

    Cost: one evaluation, the classifier forward and backward, and once more forward for H.
    """

    denoiser: Denoiser
    labels: Labels
    schedule: Schedule
    scale: float | Tensor
    conditional: bool = False
    limit: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.limit >= 1:
            raise ValueError(f"the limit of the factor must be at least 1; got {self.limit}")

    def factor(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """``min(log K / H, limit)``: (B,)."""
        with torch.no_grad():
            log_probs = self.labels.log_probs(x_t, t)
        return (math.log(log_probs.shape[1]) / entropy(log_probs).clamp_min(1e-30)).clamp(1, self.limit)

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D(x_t)``, and the sum of ``D(x_t)`` and the gradient scaled by ``scale`` and `factor`."""
        scale = self.scale * self.factor(x_t, t)
        guided = Classifier(self.denoiser, self.labels.log_prob, self.schedule, scale, self.conditional)
        return guided.parts(x_t, t, cond)


# ---------------------------------------------------------------- DLSM: a classifier trained for its gradient


def likelihood_score_loss(
    labels: Labels,
    denoiser: Denoiser,
    schedule: Schedule,
    x0: Tensor,
    t: Tensor,
    cond: Tensor,
    *,
    weight: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoising likelihood score matching (DLSM, Chao et al. 2022), a loss for the weights of a classifier: (B,).

    Cross-entropy fits the probabilities, while guidance uses the *gradient*, and a good fit of the probabilities may
    have a bad gradient. DLSM fits the gradient: ``|score(x_t) + grad log p(cond | x_t) - grad log q(x_t | x0)|^2``.
    In x0 that is the denoising loss of the guided denoiser with scale 1 and D held fixed,
    ``w |x0 - D(x_t) - sigma^2 / alpha grad log p|^2``. Its minimum is the gradient that completes D's score to the
    conditional score, errors of D included. The gradient leaves the normalisation of ``p`` free, so the paper adds the
    cross-entropy.

    ``weight`` (B,) is that of `denoising_loss`; the paper's is `eps_weight`. The loss is differentiable in the
    classifier's weights by a second derivative, which its activations must have (no ReLU).
    """
    alpha, sigma = schedule.scales(t)
    check_signal(alpha, sigma, "the likelihood-score loss")
    x_t = Gaussian(schedule).corrupt(x0, t, generator=generator)
    with torch.no_grad():
        plain = denoiser(x_t, t, None)
    gradient = Classifier(denoiser, labels.log_prob, schedule, 1.0).gradient(x_t.requires_grad_(), t, cond)
    error = (plain + expand(sigma**2 / alpha, x_t) * gradient - x0).square().flatten(1).mean(1)
    return error if weight is None else weight.to(error) * error

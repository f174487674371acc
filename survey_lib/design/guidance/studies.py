"""What the studies of EDS-1 change in guidance: its scale, its classifier's training, where the weaker answer is from.

One study needs no code of its own. GLIDE's CLIP guidance (Nichol et al. 2022, sec. 2.4) follows the gradient of a dot
product of embeddings, ``f(x_t) . g(y)``: that is ``Classifier(denoiser, labels.similarity, schedule, scale)``. The
course's classifier of noisy images is such a contrastive net; its vocabulary is a caption for each label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.core.checks import check_signal
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.protocols import Denoiser, expand
from survey_lib.core.schedules import Schedule
from survey_lib.design.guidance.wrappers import Classifier, Guidance, extrapolate


class Labels(Protocol):
    """What is known of the label of noisy data: `heads.LabelPosterior` from a network, `ExactLabels` from a mixture."""

    def log_probs(self, x_t: Tensor, t: Tensor | float) -> Tensor: ...  # (B, K)

    def log_prob(self, x_t: Tensor, t: Tensor | float, cond: Any) -> Tensor: ...  # (B,)


# ---------------------------------------------------------------- ED-DPM: the scale follows the entropy


def entropy(log_probs: Tensor) -> Tensor:
    """``-sum p log p`` in nats: (B, K) -> (B,), from 0 (certain) to ``log K`` (no idea)."""
    return -(log_probs.exp() * log_probs.clamp_min(-1e4)).sum(1)  # 0 times -infinity is 0 here


def entropy_constraint(log_probs: Tensor) -> Tensor:
    """Entropy-constraint training (ED-DPM, Li et al. 2022): ``log K - H = KL(p || uniform)``, (B,) in nats.

    Added to the cross-entropy, with a weight of 0.1 there, it keeps a classifier from being certain too early.
    """
    return math.log(log_probs.shape[1]) - entropy(log_probs)


@dataclass(frozen=True, eq=False)
class EntropyScaled(Guidance):
    """Entropy-driven sampling (ED-DPM, Li et al. 2022): `Classifier` with ``scale log K / H(p(y | x_t))``.

    A classifier that is sure has hardly a gradient left, long before the picture is finished: ``grad log p`` goes
    with ``1 - p``. The factor is 1 where nothing is known, and grows as the entropy H falls; each example has its own.
    ``limit`` bounds it, which the paper does not: at H = 0 it would be infinite, and the gradient 0.

    Cost: one evaluation, the classifier forward and back, and once more forward for H.
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
            raise ValueError(f"the factor is 1 at least, and so is its limit; got {self.limit}")

    def factor(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """``min(log K / H, limit)``: (B,)."""
        with torch.no_grad():
            log_probs = self.labels.log_probs(x_t, t)
        return (math.log(log_probs.shape[1]) / entropy(log_probs).clamp_min(1e-30)).clamp(1, self.limit)

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D(x_t)``, and the same moved along the gradient of the classifier, farther where that is certain."""
        scale = self.scale * self.factor(x_t, t)
        return Classifier(self.denoiser, self.labels.log_prob, self.schedule, scale, self.conditional).parts(
            x_t, t, cond
        )


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
    """Denoising likelihood score matching (DLSM, Chao et al. 2022), for the weights of a classifier: (B,).

    Cross-entropy asks for the right probabilities, guidance for the right *gradient*, and a good fit of the one may be
    a bad fit of the other. So fit the gradient: ``|score(x_t) + grad log p(cond | x_t) - grad log q(x_t | x0)|^2``.
    In x0 that is the ordinary denoising loss of the guided denoiser, ``w |x0 - D(x_t) - sigma^2 / alpha grad log p|^2``
    with scale 1 and D held fixed; it is least where the two scores add up to the conditional one, mistakes of D
    included. A gradient says nothing of constants: they add the cross-entropy, for ``p`` to stay a probability.

    ``weight`` (B,) as in `denoising_loss`; theirs is that of the noise, `eps_weight`. Differentiable in the
    classifier's weights, by a second derivative: its activations must have one (no ReLU).
    """
    alpha, sigma = schedule.scales(t)
    check_signal(alpha, sigma, "the likelihood-score loss")
    x_t = Gaussian(schedule).corrupt(x0, t, generator=generator)
    with torch.no_grad():
        plain = denoiser(x_t, t, None)
    gradient = Classifier(denoiser, labels.log_prob, schedule, 1.0).gradient(x_t.requires_grad_(), t, cond)
    error = (plain + expand(sigma**2 / alpha, x_t) * gradient - x0).square().flatten(1).mean(1)
    return error if weight is None else weight.to(error) * error


# ---------------------------------------------------------------- SAG: the weaker answer is the model's own, blurred


def blur(images: Tensor, width: float = 1.0) -> Tensor:
    """Gaussian blur with a standard deviation of ``width`` pixels, mirrored at the edges: (B, C, H, W)."""
    if not width > 0:
        raise ValueError(f"the width of a blur is a positive number of pixels; got {width}")
    radius = min(math.ceil(3 * width), min(images.shape[-2:]) - 1)  # a mirror shows no more than there is
    x = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = (-0.5 * (x / width) ** 2).softmax(0).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, [radius] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=len(kernel)), kernel.mT, groups=len(kernel))


@dataclass(frozen=True, eq=False)
class SelfGuidance(Guidance):
    """Away from what the model says of its own blurred answer (SAG, Hong et al. 2023, alg. 1): no label, no other net.

    ``x0 = D(x_t)`` is degraded to ``low``, the noise put back, ``x_low = alpha low + sigma eps``, and D asked again:
    ``again = D(x_low)``. What is extrapolated is a choice here, for the two answers belong to different states:

    * ``extrapolated="eps"``, as published: ``eps + (scale - 1) (eps - eps_low)``. Since ``x_t - x_low`` is
      ``alpha (x0 - low)``, in x0 that is ``x0 + (scale - 1) (low - again)``: away from what D *adds* to the blurred.
    * ``"x0"``: ``x0 + (scale - 1) (x0 - again)``, away from what D makes of it.

    On a normal law of variance v, with ``low = b x0`` and ``c = alpha^2 v / (alpha^2 v + sigma^2)``, the first
    multiplies the answer by ``1 - (scale - 1) (1 - b) (1 - c)`` and the second by ``1 + (scale - 1) (1 - b) c``:
    fine detail is damped by the one and boosted by the other. Their ``s`` is ``scale - 1``.

    ``degrade`` is `blur` by default. Theirs blurs only where the network's attention is high; the course's nets have
    none, so all is blurred, which is their "blur guidance". A mask would be part of ``degrade``.

    Cost: two evaluations.
    """

    denoiser: Denoiser
    schedule: Schedule
    scale: float | Tensor
    degrade: Callable[[Tensor], Tensor] = blur
    extrapolated: Literal["eps", "x0"] = "eps"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extrapolated not in ("eps", "x0"):
            raise ValueError(f"what is extrapolated is eps or x0; got {self.extrapolated!r}")

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D(x_t)`` and its extrapolation away from ``D(x_low)``."""
        x0 = self.denoiser(x_t, t, cond)
        low = self.degrade(x0)
        alpha, _ = self.schedule.scales(t)
        again = self.denoiser(x_t - expand(alpha, x_t) * (x0 - low), t, cond)
        weaker = x0 - low + again if self.extrapolated == "eps" else again  # as an answer about x_t
        return x0, extrapolate(weaker, x0, self.scale)

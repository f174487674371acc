"""Guidance (EDS-1): wrappers of a denoiser that trade diversity for fidelity. They nest, and every sampler takes them.

All start from Bayes' rule for the noised data, ``grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t)``,
and walk past its end: with a ``scale`` w the last term counts w times. **The scale means the same everywhere**: 0 is
where one comes from (the unconditional law, the weaker model), 1 is the conditional law or the model itself, above 1
exaggerates. Ho & Salimans' w is ``scale - 1``; that of GLIDE, Imagen and Karras et al. is ``scale``. It is a number, or
a tensor (B,) that gives each example its own. Since x0, eps, v and the score are affine in one another at a given
``x_t``, and the weights ``1 - w`` and ``w`` add up to 1, it does not matter which is extrapolated; here x0 is.

What is sampled is *not* the tilted law ``p(x0) p(y | x0)^w``. At each t the guided score is the tilt of the noised
law, the sampler would need the noised tilted law, and noising does not commute with powers. For two normal laws of
deviations a (with y) and b, endless noise and the probability flow the guided deviation is ``a^w b^(1 - w)``: the
precision is the geometric mean where that of the tilted law is the arithmetic one, ``w / a^2 + (1 - w) / b^2``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.protocols import Denoiser, evaluate_both, expand
from survey_lib.core.schedules import Schedule

__all__ = ["Autoguidance", "Classifier", "ClassifierFree", "DynamicThreshold", "Guidance", "Interval", "Rescaled"]


class Guidance(ABC):
    """A denoiser that moves another's answer: `parts` shows from where to where, a call returns where to."""

    scale: float | Tensor

    def __post_init__(self) -> None:
        scale = self.scale
        fits = scale.ndim < 2 and bool(scale.isfinite().all()) if isinstance(scale, Tensor) else math.isfinite(scale)
        if not fits:
            got = f"a tensor {tuple(scale.shape)}" if isinstance(scale, Tensor) else scale
            raise ValueError(f"a scale is a finite number, or a tensor (B,) of such; got {got}")

    @abstractmethod
    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``reference, guided``: what the model itself says of x0, and what guidance makes of it. Both (B, ...)."""

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        return self.parts(x_t, t, cond)[1]


@dataclass(frozen=True, eq=False)
class ClassifierFree(Guidance):
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): ``x0 = D(null) + scale (D(cond) - D(null))``.

    One network plays both parts: by Bayes' rule its two answers differ by the gradient of an implicit classifier,
    ``D(cond) - D(null) = sigma^2 / alpha grad log p(cond | x_t)``. Their eq. 6 has ``w = scale - 1``.

    ``null`` is what the network takes for "no condition": a label, a tensor that broadcasts to ``cond``, or None.
    A null that is itself a condition is a negative prompt. ``cond`` is () or (B, ...); None is refused.

    Cost: two evaluations. ``batched`` makes them one call of 2 B examples, the same numbers up to rounding for a
    denoiser that treats examples apart. None cannot stand in a batch beside labels: it always takes two calls.
    """

    denoiser: Denoiser
    null: Any
    scale: float | Tensor
    batched: bool = True

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D(cond)`` and its extrapolation away from ``D(null)``."""
        cond = torch.as_tensor(_wanted(cond), device=x_t.device)
        cond = cond.expand(len(x_t)) if cond.ndim == 0 else cond
        null = None if self.null is None else torch.as_tensor(self.null, device=cond.device).expand_as(cond)
        if self.batched and null is not None:
            away, towards = evaluate_both(self.denoiser, x_t, t, null, cond)
        else:
            away, towards = self.denoiser(x_t, t, null), self.denoiser(x_t, t, cond)
        return towards, extrapolate(away, towards, self.scale)


@dataclass(frozen=True, eq=False)
class Classifier(Guidance):
    """Classifier guidance (Dhariwal & Nichol 2021, alg. 1 and 2), by ``scale * grad log p(y | x_t)``.

    Tweedie's formula, ``alpha E[x0 | x_t] = x_t + sigma^2 grad log p(x_t)``, holds for the law given y too. Subtract
    the two and apply Bayes' rule to the scores: ``alpha (E[x0 | x_t, y] - E[x0 | x_t]) = sigma^2 grad log p(y | x_t)``.
    Hence ``x0 = D(x_t) + scale sigma^2 / alpha grad log p(y | x_t)``, exact for ``scale = 1`` (in eps, their alg. 2,
    it is ``eps - scale sigma grad log p(y | x_t)``).

    ``log_prob(x_t, t, cond)`` -> (B,) in nats, one example apart from another; the y of *noisy* data, as D sees them.
    The denoiser is asked without a condition, or with it where ``conditional`` (both were guided in the paper; the
    classifier then counts ``1 + scale`` times). ``schedule`` is the one that t belongs to; where its alpha is 0
    nothing is known of y, and the formula is 0 times infinity: refused, begin the grid a little later.

    Cost: one evaluation, and the classifier forward and back. Works under no_grad and inference_mode, and is itself
    differentiable in ``x_t`` where that is asked for.
    """

    denoiser: Denoiser
    log_prob: Callable[[Tensor, Tensor | float, Any], Tensor]
    schedule: Schedule
    scale: float | Tensor
    conditional: bool = False

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D(x_t)``, and the same moved along the gradient of the classifier."""
        alpha, sigma = self.schedule.scales(t)
        if not (alpha > 0).all():
            raise ValueError("no classifier sees anything at alpha = 0: begin the grid at an earlier time than this")
        gradient = self.gradient(x_t, t, cond)
        plain = self.denoiser(x_t, t, cond if self.conditional else None)
        return plain, plain + _of_examples(self.scale, x_t) * expand(sigma**2 / alpha, x_t) * gradient

    def gradient(self, x_t: Tensor, t: Tensor | float, cond: Any) -> Tensor:
        """``grad log p(cond | x_t)`` with respect to ``x_t``, (B, ...)."""
        further = torch.is_grad_enabled() and x_t.requires_grad  # somebody will differentiate this gradient again
        with torch.inference_mode(False), torch.enable_grad():
            x = x_t if further else x_t.detach().clone().requires_grad_()
            # autograd takes nothing that inference_mode made: copies are ordinary tensors
            t, cond = (v.clone() if isinstance(v, Tensor) and v.is_inference() else v for v in (t, _wanted(cond)))
            value = self.log_prob(x.view_as(x), t, cond)  # a view: who counts operations of modules takes no leaf
            if value.shape != (len(x_t),) or not value.requires_grad:
                raise ValueError(
                    f"log_prob returns one number an example, shape ({len(x_t)},), differentiable in x_t; "
                    f"got shape {tuple(value.shape)}{'' if value.requires_grad else ', cut off from x_t'}"
                )
            return torch.autograd.grad(value.sum(), x, create_graph=further)[0]


@dataclass(frozen=True, eq=False)
class Autoguidance(Guidance):
    """Away from a weaker model of the same task (Karras et al. 2024): ``x0 = weaker + scale (D - weaker)``.

    What both do, the condition, is left alone; what the weaker one does worse is exaggerated, so diversity need not
    suffer. ``weaker`` is any denoiser: an earlier checkpoint, a smaller network, D looking at a blurred ``x_t``.

    Cost: one evaluation of each.
    """

    denoiser: Denoiser
    weaker: Denoiser
    scale: float | Tensor

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D`` and its extrapolation away from ``weaker``."""
        strong = self.denoiser(x_t, t, cond)
        return strong, extrapolate(self.weaker(x_t, t, cond), strong, self.scale)


@dataclass(frozen=True, eq=False)
class Interval:
    """Guidance only where ``low < sigma / alpha <= high`` (Kynkäänniemi et al. 2024), ``plain`` elsewhere.

    ``plain`` is the conditional denoiser, unguided. The bounds are EDM's sigma: ``-log high <= lam < -log low``.
    ``low = 0`` and ``high = infinity`` leave that side open, pure noise included. ``schedule`` is the one that t
    belongs to.

    Cost: that of ``guided`` inside, one evaluation outside. A batch whose times lie on both sides costs both.
    """

    guided: Denoiser
    plain: Denoiser
    schedule: Schedule
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(f"an interval of sigma / alpha has 0 <= low < high; got {self.low} to {self.high}")

    def inside(self, t: Tensor | float) -> Tensor:
        """Whether guidance is on, bool in the shape of t."""
        alpha, sigma = self.schedule.scales(t)
        noise = sigma / alpha
        return (noise > self.low) & (noise <= self.high)

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        on = self.inside(t)
        if on.all():
            return self.guided(x_t, t, cond)
        if not on.any():
            return self.plain(x_t, t, cond)
        on = on.to(x_t.device).reshape(-1, *[1] * (x_t.ndim - 1))
        return torch.where(on, self.guided(x_t, t, cond), self.plain(x_t, t, cond))


@dataclass(frozen=True, eq=False)
class Rescaled:
    """Guidance with the contrast of the answer it started from (Lin et al. 2024, sec. 3.4).

    ``x0 = (mix std(reference) / std(guided) + 1 - mix) guided``, deviations over all the numbers of one example. They
    do it to the network's output, v, and like a ``mix`` of 0.7; here it is done to x0, where contrast can be seen.
    ``guided`` is any `Guidance`, which holds the reference already: no further cost. An answer without any contrast
    stays as it is. `Interval` and thresholds go around this, not into it.
    """

    guided: Guidance
    mix: float = 0.7

    def __post_init__(self) -> None:
        if not isinstance(self.guided, Guidance):
            raise TypeError(
                "Rescaled needs a guidance with parts (ClassifierFree, Classifier, Autoguidance); "
                f"got {type(self.guided).__name__}"
            )
        if not 0 <= self.mix <= 1:
            raise ValueError(f"mix runs from 0, as guided, to 1, with the contrast of the reference; got {self.mix}")

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        reference, guided = self.guided.parts(x_t, t, cond)
        wanted, found = (part.flatten(1).std(1, correction=0) for part in (reference, guided))
        ratio = torch.where(found > 0, wanted / found, 1)
        return expand(torch.lerp(torch.ones_like(ratio), ratio, self.mix), guided) * guided


@dataclass(frozen=True, eq=False)
class DynamicThreshold:
    """Keeps the answer within [-1, 1] (Imagen, Saharia et al. 2022, sec. 2.3): ``clamp(x0, -s, s) / s``.

    s is the given percentile (their 99.5) of the absolute values of an example, at least 1: what lies in range is
    left alone, and what strays pulls the whole image back instead of saturating it. ``percentile = 0`` is the static
    threshold, ``clamp(x0, -1, 1)``, for every image with a single number in range; 100 clips nothing and divides
    by the largest. For data that fill [-1, 1]: images, not latents. No cost.
    """

    denoiser: Denoiser
    percentile: float = 99.5

    def __post_init__(self) -> None:
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"a percentile runs from 0, the static threshold, to 100; got {self.percentile}")

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        x0 = self.denoiser(x_t, t, cond)
        size = x0.flatten(1).abs()
        size = size if size.dtype == torch.float64 else size.float()  # there are no quantiles of half precision
        s = expand(size.quantile(self.percentile / 100, dim=1).clamp_min(1), x0)
        return torch.minimum(torch.maximum(x0, -s), s) / s


def _wanted(cond: Any) -> Any:
    if cond is None:
        raise ValueError("guidance needs to know where to: pass cond=, the labels wanted")
    return cond


def _of_examples(scale: float | Tensor, like: Tensor) -> float | Tensor:
    """The scale as a factor of ``like`` (B, ...)."""
    if not isinstance(scale, Tensor):
        return scale
    if scale.shape not in ((), (len(like),)):
        raise ValueError(f"a scale is one number, or one for each of {len(like)} examples; got {tuple(scale.shape)}")
    return expand(scale.to(like.device, like.dtype), like)


def extrapolate(start: Tensor, end: Tensor, scale: float | Tensor) -> Tensor:
    """``start + scale (end - start)``, exactly ``start`` at 0 and ``end`` at 1."""
    return torch.lerp(start, end, _of_examples(scale, end))

"""Parameterisations of a denoiser: ``x0 = skip x_t + out F`` for whatever the network F predicts.

A network may predict the clean data, the noise, the score, or a mixture of them. These predictions carry the same
information, so one pair of numbers turns each into the denoiser ``E[x0 | x_t]`` that samplers take. They differ in
how much they amplify the network's errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from survey_lib.core.checks import check_batch_of_times, check_signal
from survey_lib.core.protocols import Denoiser, expand
from survey_lib.core.schedules import Schedule

Kind = Literal["x0", "eps", "score", "v", "flow", "edm"]
_LAM_LIMIT = 20.0  # beyond it one of signal and noise is below float32's resolution of the other


def skip_out(kind: Kind, alpha: Tensor, sigma: Tensor, sigma_data: float = 0.5) -> tuple[Tensor, Tensor]:
    """Coefficients ``skip, out`` of ``x0 = skip x_t + out F`` for a network F that predicts ``kind``.

    * ``x0``: the clean data. ``eps``: the noise (DDPM, eq. 15). ``score``: ``grad log q(x_t)`` (Tweedie).
    * ``v``: ``alpha eps - sigma x0`` (Salimans & Ho 2022, app. D), here for any schedule.
    * ``flow``: ``eps - x0``, the velocity of the straight path.
    * ``edm``: a target of unit variance for data of standard deviation ``sigma_data`` (EDM, table 1),
      written for any ``alpha``.

    ``eps`` and ``score`` divide by ``alpha``. Raises ValueError for them at pure noise (`checks.is_pure_noise`), and
    for an unknown ``kind``.
    """
    if kind in ("eps", "score"):
        check_signal(alpha, sigma, f"the {kind} head")
    if kind == "x0":
        return torch.zeros_like(alpha), torch.ones_like(alpha)
    if kind == "eps":
        return 1 / alpha, -sigma / alpha
    if kind == "score":
        return 1 / alpha, sigma**2 / alpha
    if kind == "v":
        power = alpha**2 + sigma**2
        return alpha / power, -sigma / power
    if kind == "flow":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    if kind == "edm":
        power = alpha**2 * sigma_data**2 + sigma**2
        return alpha * sigma_data**2 / power, sigma * sigma_data / power.sqrt()
    raise ValueError(f"unknown kind of head {kind!r}; accepted: {', '.join(get_args(Kind))}")


class Preconditioned(nn.Module):
    """Denoiser from a network (EDM, eq. 7): ``x0 = skip x_t + out net(c_in x_t, c_noise, cond)``.

    ``c_in = 1 / sqrt(alpha^2 sigma_data^2 + sigma^2)`` gives the network inputs of unit variance, and
    ``c_noise = -lam / 4`` gives it the noise level. Once x_t is rescaled, both depend on the schedule only through
    ``lam``, so one trained network serves under every schedule: ``Preconditioned(net, other)``. The targets of
    ``score`` and ``v`` depend on the scale of x_t as well: `Reschedule` these two.

    net: ``net(x, c_noise, cond)`` takes (B, C, H, W), (B,) and the caller's ``cond``, and returns (B, C, H, W).
    x_t: (B, C, H, W) in the network's dtype.
    t: () or (B,).

    Raises ValueError for a ``t`` of another shape, TypeError for an ``x_t`` of another dtype than the network's.
    """

    def __init__(self, net: nn.Module, schedule: Schedule, kind: Kind = "edm", sigma_data: float = 0.5):
        super().__init__()
        skip_out(kind, torch.ones(()), torch.ones(()))  # refuses an unknown kind before the first call
        self.net, self.schedule, self.kind, self.sigma_data = net, schedule, kind, sigma_data

    def forward(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        alpha, sigma = self.schedule.scales(t)
        skip, out = skip_out(self.kind, alpha, sigma, self.sigma_data)
        prediction = self.net(*_inputs(self.net, x_t, alpha, sigma, self.sigma_data), cond)
        return expand(skip, x_t) * x_t + expand(out, x_t) * prediction.to(x_t.dtype)


class LabelPosterior(nn.Module):
    """Noise-conditional classifier ``p(y | x_t)`` from a network.

    ``net(c_in x_t, c_noise)`` returns logits (B, K), column y for label y. Its inputs are those of `Preconditioned`, so
    one trained classifier serves under every schedule too. Raises like `Preconditioned`.
    """

    def __init__(self, net: nn.Module, schedule: Schedule, sigma_data: float = 0.5):
        super().__init__()
        self.net, self.schedule, self.sigma_data = net, schedule, sigma_data

    def forward(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """The network's logits, (B, K)."""
        return self.net(*_inputs(self.net, x_t, *self.schedule.scales(t), self.sigma_data))

    def log_probs(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """``log p(y | x_t)`` of every y: (B, K) in nats."""
        return self(x_t, t).log_softmax(1)

    def log_prob(self, x_t: Tensor, t: Tensor | float, cond: Tensor) -> Tensor:
        """``log p(cond | x_t)``: (B,) in nats, differentiable in ``x_t``."""
        return select_label(self.log_probs(x_t, t), cond)

    def similarity(self, x_t: Tensor, t: Tensor | float, cond: Tensor) -> Tensor:
        """The logit of ``cond``, not normalised over the labels: (B,)."""
        return select_label(self(x_t, t), cond)


def _inputs(net: nn.Module, x_t: Tensor, alpha: Tensor, sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """Inputs of a network: ``c_in x_t`` and ``c_noise`` (B,)."""
    check_batch_of_times(alpha, x_t)
    dtype = next((p.dtype for p in net.parameters()), x_t.dtype)
    if dtype != x_t.dtype and not torch.is_autocast_enabled(x_t.device.type):
        raise TypeError(f"x_t has the dtype of the network, {dtype}; got {x_t.dtype}: convert one of them")
    c_in = (alpha**2 * sigma_data**2 + sigma**2).rsqrt()
    c_noise = -(alpha.log() - sigma.log()).clamp(-_LAM_LIMIT, _LAM_LIMIT) / 4
    return expand(c_in, x_t) * x_t, c_noise.to(x_t.device, x_t.dtype).expand(len(x_t))


def select_label(values: Tensor, cond: Tensor) -> Tensor:
    """Entry of each row of ``values`` (B, K) at the integer label ``cond``, () or (B,): (B,)."""
    cond = torch.as_tensor(cond, device=values.device)
    if cond.is_floating_point() or cond.dtype == torch.bool or cond.shape not in ((), values.shape[:1]):
        raise ValueError(
            f"cond is one integer label per example, shape ({len(values)},); got {cond.dtype}, {tuple(cond.shape)}"
        )
    return values.gather(1, cond.long().expand(len(values))[:, None])[:, 0]


@dataclass(frozen=True)
class Reschedule:
    """A denoiser trained under one schedule, evaluated under another (EDM, sec. 2: a change of time and scale).

    At equal ``lam`` the states ``x_t`` of the two schedules differ by a factor:
    ``D(x_t, t) = denoiser(x_t alpha_trained / alpha_sampled, t_trained)``.
    """

    denoiser: Denoiser | Callable[..., Tensor]
    trained: Schedule
    sampled: Schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        t_trained = self.trained.time(self.sampled.lam(t))
        alpha, sigma = self.sampled.scales(t)
        check_batch_of_times(alpha, x_t)
        alpha_trained, sigma_trained = self.trained.scales(t_trained)
        # The larger of the two scales carries the ratio: alpha may be 0 at one end, sigma at the other.
        ratio = torch.where(alpha > sigma, alpha_trained / alpha, sigma_trained / sigma)
        return self.denoiser(expand(ratio, x_t) * x_t, t_trained, cond)

"""Networks of ``diffusers`` in this course, and networks of this course under its schedulers.

A network of ``diffusers`` was trained on a chain of N steps: step n, counted from 0, is the time ``t = (n + 1) / N``
here. `denoiser` gives it the course's form, so that every sampler, guide and metric takes it; `network` gives a
denoiser of the course the form that a scheduler expects.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from survey_lib.core.heads import Kind, skip_out
from survey_lib.core.protocols import Denoiser, expand
from survey_lib.core.schedules import Schedule, from_betas

#: Heads of the course by the names that schedulers give to them.
KINDS: Mapping[str, Kind] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


class Borrowed(nn.Module):
    """A denoiser from a network of ``diffusers`` and the chain that it was trained on.

    cond: None; labels (B,); a sequence of vectors (B, L, D) for cross-attention; or a mapping of keyword arguments.
    A network that also predicts variances (DiT) has twice the channels; the second half is left out.
    """

    def __init__(self, net: nn.Module, schedule: Schedule, kind: Kind, steps: int):
        super().__init__()
        self.net, self.schedule, self.kind, self.steps = net, schedule, kind, steps

    def forward(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        alpha, sigma = self.schedule.scales(t)
        skip, out = skip_out(self.kind, alpha, sigma)
        step = (torch.as_tensor(t, dtype=torch.float64) * self.steps - 1).clamp_min(0)
        step = step.to(x_t.device, torch.float32).expand(len(x_t))
        prediction = self.net(x_t, step, **_arguments(cond), return_dict=False)[0][:, : x_t.shape[1]]
        return expand(skip, x_t) * x_t + expand(out, x_t) * prediction.to(x_t.dtype)


def denoiser(net: nn.Module, scheduler: Any) -> Borrowed:
    """A denoiser from a ``UNet2DModel``, ``UNet2DConditionModel`` or ``DiTTransformer2DModel`` and its scheduler.

    Its schedule is ``.schedule``. The scheduler says what the network predicts (noise, v or clean data) and the chain
    of its training. Raises TypeError for a scheduler without such a chain, and ValueError for another prediction, or a
    chain that ends in pure noise (from which a prediction of the noise says nothing).
    """
    products = getattr(scheduler, "alphas_cumprod", None)
    if products is None:
        raise TypeError(
            f"{type(scheduler).__name__} has no alphas_cumprod; accepted: schedulers of a chain, such as DDPM"
        )
    kind = _kind(scheduler, "a network that predicts")
    products = torch.as_tensor(products, dtype=torch.float64)
    if not products[-1] > 0:
        raise ValueError("the chain ends in pure noise (zero terminal SNR); only chains with some signal are accepted")
    before = torch.cat([torch.ones(1, dtype=torch.float64), products[:-1]])
    return Borrowed(net, from_betas(1 - products / before), kind, len(products))


def network(denoiser: Denoiser, schedule: Schedule, scheduler: Any) -> nn.Module:
    """Network that a scheduler of ``diffusers`` can call, from a denoiser under the schedule of its chain.

    It is called as ``net(x_t, n).sample`` and predicts what the scheduler expects. Make the denoiser with
    ``schedule=from_betas(scheduler.betas)``, as in ``checkpoints.load("mnist_base", schedule=...)``.
    """
    kind, steps = _kind(scheduler, "a scheduler that expects"), scheduler.config.num_train_timesteps

    class Lent(nn.Module):
        def forward(self, x_t: Tensor, timestep: Tensor | int, cond: Any = None) -> SimpleNamespace:
            t = (torch.as_tensor(timestep, dtype=torch.float64) + 1) / steps
            skip, out = (expand(one, x_t) for one in skip_out(kind, *schedule.scales(t)))
            return SimpleNamespace(sample=(denoiser(x_t, t, cond) - skip * x_t) / out)

    return Lent()


def _kind(scheduler: Any, whose: str) -> Kind:
    """The head of the course by the scheduler's name for it. Raises ValueError for an unknown name."""
    name = scheduler.config.prediction_type
    if name not in KINDS:
        raise ValueError(f"{whose} {name!r} is not known; accepted: {', '.join(KINDS)}")
    return KINDS[name]


def _arguments(cond: Any) -> dict[str, Any]:
    """The keyword arguments of a network for a condition."""
    if cond is None:
        return {}
    if isinstance(cond, Mapping):
        return dict(cond)
    return {"class_labels": cond} if cond.ndim == 1 else {"encoder_hidden_states": cond}

"""Short trainings with a loss of their own: minutes of one core, nothing to resume. (Longer ones: `train`.)"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from survey_lib.lab.speed import precision


@dataclass(frozen=True)
class Plan:
    """All that decides the outcome of one of these trainings, beside its kind and the data.

    Adam on ``steps`` batches; the rate rises over ``warmup`` steps while it falls linearly to 0; ``average`` is the
    decay of the moving average of the weights. ``chain`` steps, of which the hybrid loss draws one, and the weight
    of its ``auxiliary`` term. ``label_dropout``: the share of examples that lose their label.
    """

    steps: int = 1500
    batch: int = 128
    rate: float = 5e-3
    warmup: int = 100
    average: float = 0.995
    chain: int = 100
    auxiliary: float = 0.01
    label_dropout: float = 0.0
    seed: int = 0


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    count: int,
    plan: Plan,
    *,
    progress: bool = False,
) -> nn.Module:
    """Train ``model`` on batches of ``count`` examples; returns its moving average, ready to be asked.

    ``loss(index, generator)`` gives one number for each of the examples ``index``. Step n draws from (seed, n) alone.
    Raises FloatingPointError when the loss is no number any more.
    """
    model = model.to(memory_format=torch.channels_last).train()
    average, parameters = deepcopy(model), list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=plan.rate, betas=(0.9, 0.99))
    for step in tqdm(range(plan.steps), disable=not progress, desc="training", unit="step"):
        generator = torch.Generator().manual_seed((plan.seed * 0x9E3779B9 + step) % 2**32)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * min(1.0, (step + 1) / plan.warmup) * (1 - step / plan.steps)
        index = torch.randint(count, (plan.batch,), generator=generator)
        with precision():
            value = loss(index, generator).mean()
        optimizer.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"training met a number that is none at step {step}; nothing was saved")
        optimizer.step()
        with torch.no_grad():
            share = 1 - min(plan.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), parameters, share)
            for kept, now in zip(average.buffers(), model.buffers(), strict=True):
                kept.copy_(now)
    return average.eval().requires_grad_(False)


def quick(model: nn.Module) -> Callable[..., Any]:
    """The model in eval mode, without gradients, in bfloat16 where that helps; its answers keep their dtype."""
    model = model.eval().to(memory_format=torch.channels_last)

    def answer(x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        with torch.no_grad(), precision():
            return model(x_t, t, cond)

    return answer

"""The noise level of an image from the image alone: ``P(t | x_t)``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from survey_lib.core.checks import check_times


def level_posterior(log_prob: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: Tensor) -> Tensor:
    """``P(t | x)`` for x (B, ...) and falling ``times`` (T,), all as likely before: (B, T), rows of sum 1.

    log_prob: ``log p_t(x)`` (B,) of the noised data, exact for the distributions of `core.exact`.

    A sampler that knows the level from the state needs no clock (San Roman et al. 2021).
    """
    rows = [log_prob(x, t) for t in check_times(times)]
    return torch.stack(rows, dim=1).softmax(1)

"""Refinable Brownian paths, with which an adaptive solver rejects steps without bias."""

from __future__ import annotations

import torch
from torch import Tensor

from survey_lib.core import protocols
from survey_lib.core.protocols import expand


class BrownianPaths:
    """One Brownian path per example, drawn step by step; increments of rejected steps are kept.

    Each example has a stack of intervals ahead over which the increment of its path is known, the nearest on top. A
    step within the top interval, of a fraction r of its span, is drawn from the Brownian bridge
    ``N(r increment, step (1 - r))``; the rest of the interval stays on the stack. No step extends beyond the interval.
    """

    def __init__(self, like: Tensor):
        self.depth = torch.zeros(len(like), dtype=torch.long)  # intervals on each stack (B,)
        self.spans = torch.zeros(1, len(like), dtype=torch.float64)  # (largest depth, B)
        self.increments = like.new_zeros(1, *like.shape)  # (largest depth, B, *event)

    def step(self, rows: Tensor, span: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Advance the paths of the examples ``rows`` (R,) by ``span`` (R,), at most to the end of the top interval.

        Returns the spans advanced, (R,), and the increments over them, (R, *event).
        """
        top = (self.depth[rows] - 1).clamp_min(0)
        known = torch.where(self.depth[rows] > 0, self.spans[top, rows], torch.inf)
        at = top.to(self.increments.device), rows.to(self.increments.device)
        ahead = self.increments[at]
        span = torch.minimum(span, known)
        r = span / known  # 0 without a known interval: the step is then N(0, span)
        z = protocols.normal(ahead.shape, generator, ahead.dtype).to(ahead.device)
        increment = expand(r, ahead) * ahead + expand((span * (1 - r)).sqrt(), ahead) * z
        self.spans[top, rows] = (known - span).nan_to_num(posinf=0)
        self.increments[at] = ahead - increment
        self.depth[rows] -= (span == known).long()
        return span, increment

    def reject(self, rows: Tensor, span: Tensor, increment: Tensor) -> None:
        """Put the last steps of the examples ``rows`` back on their stacks."""
        if len(rows) and int(self.depth[rows].max()) == len(self.spans):
            self.spans = torch.cat([self.spans, torch.zeros_like(self.spans)])
            self.increments = torch.cat([self.increments, torch.zeros_like(self.increments)])
        top = self.depth[rows]
        self.depth[rows] += 1
        self.spans[top, rows] = span
        self.increments[top.to(increment.device), rows.to(increment.device)] = increment

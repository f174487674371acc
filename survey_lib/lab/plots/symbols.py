"""Plots of discrete states: transition matrices as heat maps, and masked symbols and patches in blue."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.colors import to_rgb
from torch import Tensor

from survey_lib.lab.plots.images import as_bytes
from survey_lib.lab.plots.labels import number
from survey_lib.lab.plots.style import PALETTE, Figure, describe, panels, styled


@styled
def matrices(named: Mapping[str, Tensor]) -> Figure:
    """Transition matrices (K, K) side by side as heat maps; rows are the symbols before the step."""
    figure, axes = panels(len(named), width=2.4 * len(named), height=2.75, squeeze=False)
    for ax, (name, matrix) in zip(axes[0], named.items(), strict=True):
        ax.imshow(matrix.cpu().numpy(), cmap="Blues", vmin=0, vmax=1)
        ticks = range(0, len(matrix), max(1, (len(matrix) - 1) // 2))
        ax.set(title=name, xlabel="becomes", ylabel="symbol", xticks=ticks, yticks=ticks)
        ax.grid(False)
    stay = "; ".join(f"{name} {number(matrix.diagonal().mean(), 2)}" for name, matrix in named.items())
    return describe(figure, f"{len(named)} transition matrices as maps. The mean chance to stay: {stay}.")


def symbols(x: Tensor, count: int) -> Tensor:
    """Convert grey levels 0 to ``count - 1`` (N, 1, H, W) to RGB bytes; higher values, the mask, are blue."""
    grey = (x.clamp(max=count - 1) * 255 // (count - 1)).to(torch.uint8)
    return torch.where(x >= count, _blue(), grey.expand(-1, 3, -1, -1))


def covered(images: Tensor, hidden: Tensor) -> Tensor:
    """Convert images (N, C, H, W) to RGB bytes; the patches where ``hidden`` (N, h, w) is true are blue."""
    shown = as_bytes(images).expand(-1, 3, -1, -1)
    down, across = (side // part for side, part in zip(shown.shape[-2:], hidden.shape[-2:], strict=True))
    return torch.where(hidden[:, None].repeat_interleave(down, 2).repeat_interleave(across, 3), _blue(), shown)


def _blue() -> Tensor:
    return torch.tensor([round(255 * part) for part in to_rgb(PALETTE["data"])], dtype=torch.uint8)[:, None, None]

"""The downsampling path that the U-Net and the classifier of noisy images share.

Each network registers these modules under names of its own, under which their shipped weights are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def downsampling(
    channels: int, widths: Sequence[int], patch: int, blocks: int, make: Callable[[int], nn.Module]
) -> tuple[nn.Conv2d, nn.ModuleList, nn.ModuleList]:
    """The modules of the path, ``enter, shrink, levels``.

    enter: convolution of the patches to ``widths[0]`` channels.
    shrink: one module per level that halves the map and takes it to the level's width; the identity at the finest.
    levels: ``blocks`` blocks per level, each made by ``make(level)``.
    """
    enter = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
    shrink, levels = nn.ModuleList(), nn.ModuleList()
    for index, width in enumerate(widths):
        shrink.append(nn.Conv2d(widths[index - 1], width, 3, stride=2, padding=1) if index else nn.Identity())
        levels.append(nn.ModuleList(make(index) for _ in range(blocks)))
    return enter, shrink, levels


def encode(
    x: Tensor,
    given: tuple[Tensor, ...],
    patch: int,
    enter: nn.Module,
    shrink: Iterable[nn.Module],
    levels: Iterable[nn.Module],
) -> tuple[Tensor, list[Tensor]]:
    """Encode images (B, C, H, W): the last map, and the maps after every block.

    given: what every block is given beside its map, such as the embedding (B, E) of the noise level.
    """
    h, maps = enter(F.pixel_unshuffle(x, patch)), []  # (B, widths[0], H / patch, W / patch)
    for halve, blocks in zip(shrink, levels, strict=True):
        h = halve(h)
        for block in blocks.children():
            h = block(h, *given)
            maps.append(h)
    return h, maps

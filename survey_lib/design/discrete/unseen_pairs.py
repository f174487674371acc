"""Rate of adjacent token pairs that never occur in real images."""

from __future__ import annotations

import torch
from torch import Tensor


def unseen_pair_rate(tokens: Tensor, library: Tensor, shape: tuple[int, int]) -> float:
    """Fraction of the adjacent pairs in ``tokens`` (B, h w) that never occur in ``library`` (N, h w).

    Horizontal and vertical pairs are distinguished; ``shape`` is (h, w). Real images have unseen pairs too, and more of
    them for a smaller library: compare with the rate of held-out images.
    """
    symbols = int(max(tokens.max(), library.max())) + 1
    seen = torch.isin(_pairs(tokens, symbols, shape), _pairs(library, symbols, shape).unique())
    return 1 - seen.double().mean().item()


def _pairs(tokens: Tensor, symbols: int, shape: tuple[int, int]) -> Tensor:
    """Every adjacent pair as one integer; horizontal and vertical pairs have different integers."""
    if tokens.ndim != 2 or tokens.shape[1] != shape[0] * shape[1]:
        raise ValueError(f"tokens must be (B, {shape[0] * shape[1]}) for a map of {shape}; got {tuple(tokens.shape)}")
    grid = tokens.reshape(len(tokens), *shape)
    across = grid[:, :, :-1] * symbols + grid[:, :, 1:]
    down = grid[:, :-1] * symbols + grid[:, 1:] + symbols**2
    return torch.cat([across.flatten(), down.flatten()])

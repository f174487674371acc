"""Do the tokens of a picture fit each other? A count that needs no network."""

from __future__ import annotations

import torch
from torch import Tensor


def unseen_pair_rate(tokens: Tensor, library: Tensor, shape: tuple[int, int]) -> float:
    """The share of neighbours in ``tokens`` (B, h w) that never stand so in ``library`` (N, h w), from 0 to 1.

    Neighbours are pairs side by side and pairs one above the other, counted apart; ``shape`` is (h, w). Real pictures
    have some too, the more the smaller the library: compare with theirs.
    """
    symbols = int(max(tokens.max(), library.max())) + 1
    return (
        1 - torch.isin(_pairs(tokens, symbols, shape), _pairs(library, symbols, shape).unique()).double().mean().item()
    )


def _pairs(tokens: Tensor, symbols: int, shape: tuple[int, int]) -> Tensor:
    """Every pair of neighbours as one number; those across and those down do not mix."""
    if tokens.ndim != 2 or tokens.shape[1] != shape[0] * shape[1]:
        raise ValueError(f"tokens are (B, {shape[0] * shape[1]}) for a map of {shape}; got {tuple(tokens.shape)}")
    grid = tokens.reshape(len(tokens), *shape)
    across = grid[:, :, :-1] * symbols + grid[:, :, 1:]
    down = grid[:, :-1] * symbols + grid[:, 1:] + symbols**2
    return torch.cat([across.flatten(), down.flatten()])

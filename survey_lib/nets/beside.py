"""A U-Net that looks at a second image beside the noisy one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from survey_lib.nets.unet import UNet


class Beside(nn.Module):
    """``net(x, c_noise, cond)``, (B, channels, H, W) and ``cond`` (B, beside, H, W) -> (B, channels, H, W).

    ``cond`` is an image of the same size: the network's own previous answer (self-conditioning), a coarser picture,
    a mask; None stands for zeros. Both enter a `UNet` side by side, whose further arguments are ``unet``.
    Raises ValueError for a ``cond`` of another shape.
    """

    def __init__(self, channels: int, beside: int, **unet):
        super().__init__()
        self.config = dict(channels=channels, beside=beside, **unet)
        self.channels, self.beside, self.classes = channels, beside, None
        self.unet = UNet(channels + beside, **unet)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        shape = (len(x), self.beside, *x.shape[2:])
        cond = x.new_zeros(shape) if cond is None else cond
        if cond.shape != shape:
            raise ValueError(f"the image beside has shape {shape} here; got {tuple(cond.shape)}")
        return self.unet(torch.cat([x, cond.to(x.dtype)], dim=1), c_noise)[:, : self.channels]

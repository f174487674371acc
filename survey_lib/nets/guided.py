"""A U-Net that is told the scale of guidance: the network of guided distillation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from survey_lib.nets.layers import zeroed
from survey_lib.nets.unet import UNet


class GuidedUNet(UNet):
    """Student of a guided network (Meng et al. 2023, sec. 3.1): ``net(x, c_noise, (labels, scale))`` -> (B, C, H, W).

    The scale (B,) is embedded beside the noise level. Its last layer begins at zero: with the weights of a network with
    labels, the student begins as this network at every scale. ``unet`` are arguments of `UNet`, ``classes`` included.
    """

    def __init__(self, channels: int = 1, *, classes: int, embedding: int = 64, **unet: Any):
        super().__init__(channels, classes=classes, embedding=embedding, **unet)
        self.scale = nn.Sequential(nn.Linear(1, embedding), nn.SiLU(), zeroed(nn.Linear(embedding, embedding)))

    def features(self, c_noise: Tensor, cond: tuple[Tensor, Tensor] | None) -> Tensor:  # type: ignore[override]
        """Sum of the embeddings of noise level, label and scale. Raises ValueError unless ``cond`` is a pair."""
        if not isinstance(cond, tuple) or len(cond) != 2:
            raise ValueError(f"cond must be a pair (labels, scale), (B,) each; got {type(cond).__name__}")
        labels, scale = cond
        scale = torch.as_tensor(scale, dtype=c_noise.dtype, device=c_noise.device).expand(len(c_noise))
        return super().features(c_noise, labels) + self.scale(scale[:, None])

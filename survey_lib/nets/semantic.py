"""A U-Net that is told a code of the clean image: the network of a diffusion autoencoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from survey_lib.nets.classifier import Classifier
from survey_lib.nets.unet import UNet


class SemanticUNet(nn.Module):
    """Diffusion autoencoder (Preechakul et al. 2022, fig. 2): ``net(x, c_noise, cond)`` -> (B, C, H, W).

    An encoder, which sees the clean image alone, makes a code of a few numbers; the U-Net sees the noised image and the
    code. Both are trained by the denoising loss. Noise hides what stands where, so the code learns to say it.

    ``cond``: clean images (B, C, H, W), or their codes (B, code) as `encode` makes them; None stands for no code.
    The code is one token of context (the paper scales and shifts the maps with it). ``unet`` are arguments of `UNet`.
    """

    classes = None

    def __init__(self, channels: int = 3, *, code: int = 32, attention: tuple[int, ...] = (0, 1), **unet: Any):
        super().__init__()
        self.config = dict(channels=channels, code=code, attention=tuple(attention), **unet)
        self.encoder = Classifier(channels, (code,))
        self.unet = UNet(channels, context=code, attention=attention, **unet)
        self.channels, self.multiple = channels, self.unet.multiple

    def encode(self, images: Tensor) -> Tensor:
        """Codes of clean images in [-1, 1]: (B, C, H, W) -> (B, code)."""
        return self.encoder(images)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        code = self.encode(cond) if cond is not None and cond.ndim == 4 else cond
        return self.unet(x, c_noise, None if code is None else code[:, None])

"""The peers: what a reader would build with diffusers, in its usual settings."""

from __future__ import annotations

import time
from typing import Any

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor, nn

from survey_lib.lab.evaluation.cost import macs
from survey_lib.nets.layers import initialised


def unet_of_equal_macs(channels: int, side: int, target: int) -> UNet2DModel:
    """A convolutional UNet2DModel whose MACs come nearest to ``target``: two levels, no attention, one block each.

    Attention would only add to its time; and its normalisation has the same 4 groups at every width.
    """

    def build(width: int) -> UNet2DModel:
        return _unet(
            channels, side, layers_per_block=1, norm_num_groups=4, block_out_channels=(width, 2 * width),
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, add_attention=False,
        ).eval()  # fmt: skip

    x, t = torch.zeros(1, channels, side, side), torch.zeros(1)
    return min(map(build, range(8, 65, 4)), key=lambda net: abs(macs(net, x, t) - target))


def course_unet(channels: int, side: int) -> UNet2DModel:
    """The network of the usual introductory course: (32, 64, 64), attention in the two lower levels."""
    return _unet(
        channels, side, layers_per_block=2, block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def _unet(channels: int, side: int, **options: Any) -> UNet2DModel:
    """A `UNet2DModel` with the same initial weights at every call."""
    sizes = {"sample_size": side, "in_channels": channels, "out_channels": channels}
    return initialised(0, lambda: UNet2DModel(**sizes, **options))


class Usual:
    """The usual recipe: Adam at 1e-3, batches of 128, the mean squared error of the noise."""

    def __init__(self, net: nn.Module, images: Tensor, *, seed: int = 0):
        self.net, self.images = net.train(), images
        self.chain = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
        self.adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        self.generator = torch.Generator().manual_seed(seed)

    def step(self) -> None:
        clean = self.images[torch.randint(len(self.images), (128,), generator=self.generator)]
        noise = torch.randn(clean.shape, generator=self.generator)
        t = torch.randint(1000, (len(clean),), generator=self.generator)
        loss = nn.functional.mse_loss(self.net(self.chain.add_noise(clean, noise, t), t).sample, noise)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()


def train(net: nn.Module, images: Tensor, seconds: float) -> int:
    """Train by the usual recipe for ``seconds``; return the steps done. The net is left in eval mode."""
    usual, steps, end = Usual(net, images), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        usual.step()
        steps += 1
    net.eval()
    return steps


@torch.no_grad()
def sample(net: nn.Module, noise: Tensor, steps: int = 20) -> Tensor:
    """DPM-Solver++(2M), with the clipping that diffusers' documentation recommends for the cosine schedule.

    Unclipped, the first step divides the error of the predicted noise by an alpha of 5e-5.
    """
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1
    )
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t.expand(len(x))).sample, t, x).prev_sample
    return x

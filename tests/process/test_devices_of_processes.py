"""Examples on one device and the generator on another: losses and corruptions stay with the examples.

Device "meta" has shapes and devices but no numbers, so every machine can run this; on a GPU the numbers are compared
with the CPU's, from the same generator.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from survey_lib.core import grids
from survey_lib.core.corruptions import Cold
from survey_lib.core.heads import Preconditioned
from survey_lib.core.schedules import vp_cosine, vp_linear
from survey_lib.design.guidance import ClassifierFree
from survey_lib.nets.guided import GuidedUNet
from survey_lib.nets.layers import initialised
from survey_lib.nets.unet import UNet
from survey_lib.process import noise, training
from survey_lib.process.training.emphasis import Loss
from tests.support import generator

DEVICES = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]
ASK_NUMBERS = ("progressive", "consistency", "Laplace", "two normals", "blur, momentum")  # whether a step draws noise
SCHEDULE = vp_linear()
X = torch.randn(3, 1, 8, 8, generator=generator())
Y = torch.tensor([0, 1, 1])
T, S = torch.tensor([0.9, 0.6, 0.3]), torch.tensor([0.5, 0.2, 0.1])
SMALL = {"widths": (8, 8), "embedding": 8}
BLUR = noise.ByFrequency(noise.Frequencies(vp_cosine(), noise.heat_blur(8, lambda t: 3 * t)))
DETERMINED = torch.arange(64.0).reshape(8, 8) / 64


def denoiser(device: torch.device, net: type[UNet] = UNet, **options: int) -> Preconditioned:
    return Preconditioned(initialised(0, lambda: net(1, **SMALL, **options)), SCHEDULE).to(device)


def guided(x: Tensor) -> Loss:
    teacher = denoiser(x.device, classes=2)
    return training.guided_loss(
        lambda scale: ClassifierFree(teacher, 2, scale), SCHEDULE, (1.0, 4.0), training.LogNormalLevels()
    )


LOSSES = {
    "progressive": lambda x: training.progressive_loss(
        training.TwoSteps(denoiser(x.device), SCHEDULE, grids.uniform(4, start=0.9))
    ),
    "pairs": lambda x: training.pair_loss(SCHEDULE, 0.9),
    "consistency": lambda x: training.consistency_loss(SCHEDULE, grids.uniform(6), teacher=denoiser(x.device)),
    "variances": lambda x: training.variance_loss(denoiser(x.device), SCHEDULE, grids.uniform(6, start=0.9)),
    "min-SNR": lambda x: training.weighted_loss(training.LogNormalLevels(), training.min_snr_weight, SCHEDULE),
}
CORRUPTIONS = {
    "Laplace": noise.Shaped(SCHEDULE, noise.generalised_normal(1.0)),
    "two normals": noise.Shaped(SCHEDULE, noise.two_normals(0.9)),
    "blur": BLUR,
    "blur, momentum": noise.Kept(BLUR, 2.0),
    "mask": Cold(noise.masked(DETERMINED)),
    "pixels": Cold(noise.pixelated(2)),
    "mixed": Cold(noise.mixed_with(X.flip(0))),
}


def cases(names: dict) -> list:
    """Names and devices; "meta" has no numbers that could be asked for."""
    return [(name, device) for device in DEVICES for name in names if device != "meta" or name not in ASK_NUMBERS]


def agree(found: Tensor, expected: Tensor, device: str) -> None:
    assert found.device.type == device and found.shape == expected.shape and found.dtype == expected.dtype
    if device != "meta":
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "device"), cases(LOSSES))
def test_losses_are_on_the_device_of_the_examples(name, device):
    found, expected = (
        LOSSES[name](x)(denoiser(x.device), x, x if name == "pairs" else None, generator())[0]
        for x in (X.to(device), X)
    )
    agree(found, expected, device)


@pytest.mark.parametrize("device", DEVICES)
def test_guided_distillation_is_on_the_device_of_the_examples(device):
    found, expected = (
        guided(x)(denoiser(x.device, GuidedUNet, classes=2), x, Y.to(x.device), generator())[0]
        for x in (X.to(device), X)
    )
    agree(found, expected, device)


@pytest.mark.parametrize(("name", "device"), cases(CORRUPTIONS))
def test_corruptions_stay_on_the_device_of_the_images(name, device):
    corruption = CORRUPTIONS[name]
    for run in (
        lambda x: corruption.corrupt(x, T, generator=generator()),
        lambda x: corruption.bridge(x, x, T, S, generator=generator()),
    ):
        agree(run(X.to(device)), run(X), device)

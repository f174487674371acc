"""The fast path: the same weights and nearly the same answers; bfloat16 only where the machine multiplies it."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from survey_lib.core.heads import Preconditioned
from survey_lib.core.schedules import edm
from survey_lib.lab.evaluation import speed
from survey_lib.nets.classifier import Classifier
from survey_lib.nets.layers import initialised
from survey_lib.nets.mlp import MLP
from survey_lib.nets.unet import UNet


def denoiser() -> Preconditioned:
    """A small U-Net with random weights everywhere: its zero-initialised layers would hide every difference."""
    model, generator = Preconditioned(UNet(3, widths=(16, 32)), edm()), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3, generator=generator)
    return model


def asked(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    t = edm().time(torch.linspace(-3, 4, len(x), dtype=torch.float64))
    return x + (80 * t).float().reshape(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator), t


@pytest.fixture
def set_support(monkeypatch):
    def choose(avx: bool, amx: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    return choose


def test_bfloat16_answers_differ_by_about_a_percent(set_support):
    """bfloat16 rounds by 2^-9 at each layer; through all of them 3 % of the answer is allowed, and some is seen."""
    set_support(True, False)
    model = denoiser().eval()
    x_t, t = asked(torch.zeros(8, 3, 16, 16))
    with torch.no_grad():
        exact = model(x_t, t)
    answer = speed.fast(model)(x_t, t)
    assert answer.dtype == torch.float32 and not answer.requires_grad
    difference = (answer - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert 0 < difference.max() < 0.03


def test_without_support_nothing_changes_but_the_layout(set_support):
    set_support(False, False)
    model = denoiser().eval()
    x_t, t = asked(torch.zeros(4, 3, 16, 16))
    with torch.no_grad():
        exact = model(x_t, t)
    torch.testing.assert_close(speed.fast(model)(x_t, t), exact, rtol=1e-4, atol=1e-5)
    assert isinstance(speed.precision(), contextlib.nullcontext)


@pytest.mark.parametrize(("avx", "amx"), [(True, False), (False, True), (True, True), (False, False)])
def test_either_instruction_set_will_do(set_support, avx, amx):
    set_support(avx, amx)
    assert speed.bfloat16_helps("cpu") is (avx or amx)
    with speed.precision("cpu"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if avx or amx else torch.float32)


@pytest.mark.parametrize(("capability", "helps"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_is_asked_for_its_generation(monkeypatch, capability, helps):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert speed.bfloat16_helps("cuda:1") is helps


def test_other_devices_are_left_alone(set_support):
    set_support(True, True)
    assert not speed.bfloat16_helps("mps")


def test_weights_stay_shared():
    model = Preconditioned(MLP(2, width=8, layers=1), edm())
    call, x, t = speed.fast(model), torch.ones(3, 2), torch.tensor(0.01)
    before = call(x, t)
    with torch.no_grad():
        model.net.leave.bias.add_(1.0)
    assert ((call(x, t) - before) > 0).all() and not model.training


def test_a_label_and_other_shapes_go_through(set_support):
    set_support(True, False)
    model = Preconditioned(initialised(0, lambda: MLP(2, width=32, layers=1, classes=3)), edm())
    x, t = torch.ones(2, 2), torch.tensor(0.01)
    answers = [speed.fast(model)(x, t, cond=torch.tensor([i, i])) for i in range(3)]
    assert not answers[0].equal(answers[1]) and not answers[1].equal(answers[2])
    logits = speed.fast(Classifier(1, (4,), widths=(8,)))(torch.zeros(2, 1, 8, 8))
    assert logits.shape == (2, 4) and logits.dtype == torch.float32

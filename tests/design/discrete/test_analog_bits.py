"""Analog Bits: codes there and back, self-conditioning, asymmetric time intervals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.losses import denoising_loss
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import vp_cosine
from survey_lib.design import discrete
from survey_lib.nets.unet import UNet
from tests.design.discrete.support import integers
from tests.support import generator, nonzero, quick


@quick
@given(bits=st.integers(1, 8), channels=st.integers(1, 3), seed=st.integers(0, 99))
def test_bits_there_and_back(bits: int, channels: int, seed: int) -> None:
    x = integers(2**bits, 2, channels, 3, 4, seed=seed)
    code = discrete.to_bits(x, bits)
    assert code.shape == (2, bits * channels, 3, 4) and set(code.unique().tolist()) <= {-1.0, 1.0}
    assert torch.equal(discrete.from_bits(code, bits), x)
    shaken = code + 0.99 * (2 * torch.rand(code.shape, generator=generator(seed)) - 1)
    assert torch.equal(discrete.from_bits(shaken, bits), x), "what keeps its sign keeps its integer"
    wild = discrete.from_bits(torch.randn(code.shape, generator=generator(seed)), bits)
    assert wild.min() >= 0 and wild.max() < 2**bits


def test_five_in_three_bits() -> None:
    code = discrete.to_bits(torch.tensor([[[5]], [[1]]]), 3)
    assert code[:, :, 0].tolist() == [[1, -1, 1], [-1, -1, 1]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: discrete.to_bits(torch.tensor([[8]]), 3), "3 bits hold the integers 0 to 7; got torch.int64 8 to 8"),
        (lambda: discrete.to_bits(torch.tensor([[0.5]]), 3), "got torch.float32"),
        (lambda: discrete.from_bits(torch.zeros(1, 4, 2, 2), 3), "a multiple of 3 channels"),
        (lambda: discrete.AsymmetricTime(Gaussian(vp_cosine()), -0.1), "shift must lie in"),
        (
            lambda: discrete.SelfConditioned(lambda *a: a[0])(torch.zeros(1, 1), 0.5, torch.zeros(1)),
            "cond must be None",
        ),
    ],
)
def test_bad_bits_get_one_clear_sentence(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def remembered(steps: int) -> tuple[list, Tensor]:
    seen: list = []

    def denoiser(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        seen.append(cond)
        return 0.9 * x_t + (0 if cond is None else 0.1 * cond)

    memory, process = discrete.SelfConditioned(denoiser), Gaussian(vp_cosine())
    for _ in range(2):  # the second trajectory must not see the first
        x = process.prior((3, 2), generator=generator(), dtype=torch.float64)
        drawn = ancestral(memory, process, x, grids.uniform(steps), generator=generator(1))
    return seen, drawn


def test_each_answer_is_shown_to_the_next_call_and_no_trajectory_sees_another() -> None:
    seen, drawn = remembered(4)
    assert [cond is None for cond in seen] == [True, False, False, False] * 2
    assert all(a.equal(b) for a, b in zip(seen[1:4], seen[5:], strict=True))
    answers: list[Tensor] = []

    def again(x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:  # the same by hand
        answers.append(0.9 * x_t + (0.1 * answers[-1] if answers else 0))
        return answers[-1]

    x = Gaussian(vp_cosine()).prior((3, 2), generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(
        drawn, ancestral(again, Gaussian(vp_cosine()), x, grids.uniform(4), generator=generator(1))
    )


def test_memory_ends_with_the_shape_and_by_hand() -> None:
    memory = discrete.SelfConditioned(lambda x, t, cond: torch.full_like(x, 0.0 if cond is None else 1.0))
    assert [memory(torch.zeros(2, 1), t).max().item() for t in (0.9, 0.5, 0.5)] == [0, 1, 1]
    assert memory(torch.zeros(3, 1), 0.4).max() == 0
    memory.reset()
    assert memory(torch.zeros(3, 1), 0.3).max() == 0


def test_a_network_that_ignores_its_answer_is_not_changed_by_it() -> None:
    """Its weights on the condition are zero: same samples, same loss, whatever share is self-conditioned."""
    net = nonzero(UNet, 1, cond_channels=1, widths=(4,), patch=1)
    net.enter.weight.data[:, 1] = 0

    def model(x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        return net(x, torch.as_tensor(t).float().expand(len(x)), cond)

    process, x0 = Gaussian(vp_cosine()), torch.randn(4, 1, 4, 4, generator=generator())
    t = torch.linspace(0.2, 0.8, 4).double()
    plain = denoising_loss(model, process, x0, t, generator=generator(2))
    with torch.no_grad():
        samples = [
            ancestral(one, process, x0, grids.uniform(3), generator=generator(1))
            for one in (model, discrete.SelfConditioned(model))
        ]
    torch.testing.assert_close(*samples)
    torch.testing.assert_close(
        discrete.self_conditioned_loss(model, process, x0, t, probability=0, generator=generator(2)), plain
    )


def test_the_estimate_is_shown_in_a_share_of_the_batches_and_passes_no_gradient() -> None:
    weight, calls = torch.ones((), requires_grad=True), []

    def model(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        calls.append(cond)
        return weight * x if cond is None else 0 * x + cond

    process, x0, t = Gaussian(vp_cosine()), torch.ones(2, 1), torch.tensor([0.5, 0.5]).double()
    shares = []
    for seed in range(200):
        calls.clear()
        losses = discrete.self_conditioned_loss(model, process, x0, t, probability=0.3, generator=generator(seed))
        shares.append(len(calls) == 2)
        assert len(calls) == 1 or (calls[1] is not None and not losses.requires_grad)
    assert abs(sum(shares) / 200 - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / 200)


def test_asymmetric_steps_go_further_and_end_clean() -> None:
    seen = []

    class Noted:
        def bridge(self, x_t, x0, t, s, *, generator=None):
            seen.append((round(float(t), 3), round(float(s), 3)))
            return x0

    ancestral(lambda x, t, cond: x, discrete.AsymmetricTime(Noted(), 0.1), torch.zeros(1, 1), grids.uniform(4))
    assert seen == [(1.0, 0.65), (0.75, 0.4), (0.5, 0.15), (0.25, 0.0)]

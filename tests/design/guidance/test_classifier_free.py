"""Guidance without a classifier: scales, one call or two, self-guidance in closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from survey_lib.core import toys
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.heads import Preconditioned
from survey_lib.core.schedules import edm, vp_cosine, vp_linear
from survey_lib.design.guidance import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    SelfGuidance,
    blur,
)
from survey_lib.lab.evaluation.cost import CountCalls
from survey_lib.nets.unet import UNet
from tests.design.guidance.support import (
    ANY,
    PLANE,
    draw,
    every_schedule,
    exact_classifier,
    exactly,
    noised,
    scales,
    times,
)
from tests.support import generator, quick


@every_schedule
@quick
@given(t=times, scale=scales)
def test_classifier_and_classifier_free_guidance_are_the_same_where_both_are_exact(schedule, t, scale):
    x_t, y = noised(t, schedule)
    denoiser = PLANE.denoiser(schedule)
    by_classifier = Classifier(denoiser, exact_classifier(schedule), schedule, scale)
    exactly(by_classifier(x_t, t, y), ClassifierFree(denoiser, ANY, scale)(x_t, t, y))


def test_the_ends_of_the_scale_are_the_two_models_to_the_last_bit():
    schedule, t = edm(), 0.01
    x_t, y = noised(t, schedule)
    denoiser, weaker = PLANE.denoiser(schedule), toys.eight_modes().denoiser(schedule)
    for scale, free, auto in (
        (0.0, denoiser(x_t, t), weaker(x_t, t, y)),
        (1.0, denoiser(x_t, t, y), denoiser(x_t, t, y)),
    ):
        assert torch.equal(ClassifierFree(denoiser, ANY, scale)(x_t, t, y), free)
        assert torch.equal(Autoguidance(denoiser, weaker, scale)(x_t, t, y), auto)
    plain = Classifier(denoiser, exact_classifier(schedule), schedule, 0.0)(x_t, t, y)
    assert torch.equal(plain, denoiser(x_t, t))


KINDS = {
    "classifier": lambda d, s, scale: Classifier(d, exact_classifier(s), s, scale),
    "free": lambda d, s, scale: ClassifierFree(d, ANY, scale),
    "auto": lambda d, s, scale: Autoguidance(d, lambda x, t, cond=None: 0.5 * x, scale),
}


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(t=times, a=scales, b=scales, share=st.floats(0, 1))
def test_the_answer_is_affine_in_the_scale(kind, t, a, b, share):
    schedule = vp_linear()
    x_t, y = noised(t, schedule)
    at = [KINDS[kind](PLANE.denoiser(schedule), schedule, s)(x_t, t, y) for s in (a, b, (1 - share) * a + share * b)]
    exactly(at[2], (1 - share) * at[0] + share * at[1])


@pytest.mark.parametrize("kind", KINDS)
def test_each_example_may_have_a_scale_of_its_own(kind):
    schedule, t = vp_linear(), torch.linspace(0.1, 0.9, 12)
    x_t, y = noised(t, schedule)
    each = torch.linspace(-1, 5, 12)
    together = KINDS[kind](PLANE.denoiser(schedule), schedule, each)(x_t, t, y)
    for i, scale in enumerate(each.tolist()):
        row = slice(i, i + 1)
        alone = KINDS[kind](PLANE.denoiser(schedule), schedule, scale)(x_t[row], t[row], y[row])
        exactly(together[row], alone)
    assert KINDS[kind](PLANE.denoiser(schedule), schedule, each.double())(x_t.float(), t, y).dtype == torch.float32


@every_schedule
@quick
@given(data=st.data(), scale=scales)
def test_one_call_of_two_batches_answers_what_two_calls_do(schedule, data, scale):
    t = torch.tensor(data.draw(st.lists(times, min_size=12, max_size=12)))
    t = t if data.draw(st.booleans()) else t[0]
    x_t, y = noised(t, schedule)
    y = y if data.draw(st.booleans()) else y[0]
    exactly(*(ClassifierFree(PLANE.denoiser(schedule), ANY, scale, b)(x_t, t, y) for b in (True, False)))


@pytest.mark.parametrize(("null", "batched", "calls"), [(ANY, True, 1), (ANY, False, 2), (None, True, 2)])
def test_both_ways_ask_for_two_evaluations(null, batched, calls):
    schedule = edm()
    x_t, y = noised(0.01, schedule)
    count = CountCalls(PLANE.denoiser(schedule))
    answer = ClassifierFree(count, null, 2.0, batched)(x_t, 0.01, y)
    assert (count.calls, count.examples) == (calls, 24)
    exactly(answer, ClassifierFree(PLANE.denoiser(schedule), ANY, 2.0)(x_t, 0.01, y))


def test_a_network_takes_its_label_of_none_and_none_for_the_same():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet(channels=1, widths=(8,), patch=2, classes=4)
    source = generator()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3, generator=source)
    denoiser = Preconditioned(net, vp_cosine()).eval()
    x_t, y, t = draw(3, 1, 8, 8).float(), torch.tensor([0, 2, 3]), torch.tensor([0.2, 0.5, 0.9])
    with torch.no_grad():
        batched, apart, none = (
            guided(x_t, t, y)
            for guided in (
                ClassifierFree(denoiser, net.classes, 3.0),
                ClassifierFree(denoiser, net.classes, 3.0, batched=False),
                ClassifierFree(denoiser, None, 3.0),
            )
        )
        assert (batched - denoiser(x_t, t, y)).abs().max() > 0.01
    torch.testing.assert_close(batched, apart, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batched, none, rtol=1e-4, atol=1e-5)


def test_conditions_may_be_vectors_and_the_null_broadcasts():
    def denoiser(x_t: Tensor, t: Tensor | float, cond: Tensor) -> Tensor:
        return 0.5 * x_t + cond.sum(1, keepdim=True)

    x_t, cond = draw(4, 2), draw(4, 3, seed=1)
    for batched in (True, False):
        answer = ClassifierFree(denoiser, torch.zeros(3), 2.0, batched)(x_t, 0.5, cond)
        exactly(answer, 0.5 * x_t + 2 * cond.sum(1, keepdim=True))


@quick
@given(a=scales, b=scales, t=times)
def test_guidance_of_guidance_multiplies_the_scales(a, b, t):
    schedule = vp_cosine()
    x_t, y = noised(t, schedule)
    denoiser, weaker = PLANE.denoiser(schedule), toys.eight_modes().denoiser(schedule)
    free = ClassifierFree(ClassifierFree(denoiser, ANY, a), ANY, b)
    exactly(free(x_t, t, y), ClassifierFree(denoiser, ANY, a * b)(x_t, t, y))
    auto = Autoguidance(Autoguidance(denoiser, weaker, a), weaker, b)
    exactly(auto(x_t, t, y), Autoguidance(denoiser, weaker, a * b)(x_t, t, y))
    # the unconditional model is the weaker one that classifier-free guidance keeps
    same = Autoguidance(denoiser, lambda x, t, cond=None: denoiser(x, t), a)
    exactly(same(x_t, t, y), ClassifierFree(denoiser, ANY, a)(x_t, t, y))


def test_a_blur_keeps_flat_pictures_and_sums_and_spreads_a_dot_by_its_width():
    flat = torch.full((2, 3, 9, 8), 0.7)
    torch.testing.assert_close(blur(flat, 1.3), flat)
    dot = torch.zeros(1, 2, 41, 41, dtype=torch.float64)
    dot[0, 1, 20, 20] = 1
    seen = blur(dot, 2.0)
    assert not seen[0, 0].any() and seen.sum().item() == pytest.approx(1)
    place = torch.arange(41.0).double() - 20
    for axis in (0, 1):
        spread = (seen[0, 1].sum(axis) * place**2).sum().item()
        assert spread == pytest.approx(4, rel=0.05)  # a tail beyond three widths is cut
    twice = blur(blur(dot, 1.2), 1.6)
    torch.testing.assert_close(twice, seen, rtol=0, atol=2e-4)  # 1.2^2 + 1.6^2 = 2^2


@every_schedule
@quick
@given(t=times, scale=scales, kept=st.floats(0, 1), variance=st.floats(0.05, 2))
def test_self_guidance_of_a_normal_law_damps_in_eps_and_boosts_in_x0(schedule, t, scale, kept, variance):
    law, x_t = GaussianLaw(torch.zeros(2), variance), draw(9, 2)
    alpha, sigma = schedule.scales(t)
    c = alpha**2 * variance / (alpha**2 * variance + sigma**2)
    denoiser = law.denoiser(schedule)
    for extrapolated, factor in (
        ("eps", 1 - (scale - 1) * (1 - kept) * (1 - c)),
        ("x0", 1 + (scale - 1) * (1 - kept) * c),
    ):
        guided = SelfGuidance(denoiser, schedule, scale, lambda x0: kept * x0, extrapolated)
        torch.testing.assert_close(guided(x_t, t), factor * denoiser(x_t, t), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("extrapolated", ["eps", "x0"])
def test_without_a_blur_or_at_scale_1_self_guidance_does_nothing(extrapolated):
    schedule, t, x_t, y = vp_cosine(), 0.4, draw(9, 2), torch.arange(9) % 2
    denoiser = PLANE.denoiser(schedule)
    for scale, degrade in ((3.0, lambda x0: x0), (1.0, lambda x0: 0.5 * x0)):
        guided = SelfGuidance(denoiser, schedule, scale, degrade, extrapolated)
        exactly(guided(x_t, t, y), denoiser(x_t, t, y))


def test_self_guidance_in_eps_extrapolates_noise():
    """As published: the noise found in x_t, away from the noise found in the degraded state."""
    schedule, t, x_t = vp_cosine(), 0.4, draw(9, 2)
    alpha, sigma = schedule.scales(t)
    denoiser = PLANE.denoiser(schedule)

    def noise_in(x: Tensor) -> Tensor:
        return (x - alpha * denoiser(x, t)) / sigma

    eps = noise_in(x_t)
    degraded = alpha * 0.3 * denoiser(x_t, t) + sigma * eps
    wanted = eps + 1.7 * (eps - noise_in(degraded))
    guided = SelfGuidance(denoiser, schedule, 2.7, lambda x0: 0.3 * x0)(x_t, t)
    exactly((x_t - alpha * guided) / sigma, wanted)

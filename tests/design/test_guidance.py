"""Guidance held to exact laws: Bayes' rule at scale 1, closed forms and quadrature beyond it, counts, and refusals."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from survey_lib.core import grids, toys
from survey_lib.core.exact import GaussianMixture
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import log_likelihood, multistep, probability_flow
from survey_lib.core.schedules import Schedule, edm, rectified, vp_cosine, vp_linear
from survey_lib.design.guidance import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    DynamicThreshold,
    Interval,
    Rescaled,
)
from survey_lib.lab.evaluation.cost import CountCalls
from survey_lib.nets.unet import UNet

quick = settings(deadline=None, derandomize=True, max_examples=25)
exactly = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
SCHEDULES = [vp_linear(), vp_cosine(), edm(), rectified()]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
scales, times = st.floats(-3, 8), st.floats(0.05, 0.95)

#: Two classes in the plane, one of two spots; and two overlapping ones on a line.
MEANS = torch.tensor([[0.6, 0.2], [-0.4, 0.5], [-0.1, -0.6]])
WIDTHS, SHARES, LABELS = torch.tensor([0.2, 0.3, 0.25]), torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0, 1, 1])
PLANE = GaussianMixture(MEANS, scales=WIDTHS, weights=SHARES, labels=LABELS)
LINE = GaussianMixture(
    torch.tensor([[-0.6], [0.1], [0.7]]), scales=torch.tensor([0.25, 0.3, 0.2]), weights=SHARES, labels=LABELS
)
ANY = -1  # the label by which an exact law knows no label


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noised(t: float | Tensor, schedule: Schedule, count: int = 12) -> tuple[Tensor, Tensor]:
    """States at t, (count, 2), and a label for each."""
    x0, labels = PLANE.sample_labelled(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alpha, sigma = schedule.scales(t, x0)
    return alpha * x0 + sigma * draw(count, 2), labels


def exact_classifier(schedule: Schedule):
    """``log p(y | x_t) = log p(x_t | y) + log p(y) - log p(x_t)`` of PLANE."""
    chosen = [y == LABELS for y in (0, 1)]
    laws = [GaussianMixture(MEANS[own], scales=WIDTHS[own], weights=SHARES[own]) for own in chosen]
    prior = torch.stack([SHARES[own].double().sum() for own in chosen]).log()

    def log_prob(x_t: Tensor, t: Tensor | float, cond: Tensor) -> Tensor:
        joint = torch.stack([law.log_prob(x_t, t, schedule) for law in laws], 1) + prior
        return joint.gather(1, cond[:, None])[:, 0] - PLANE.log_prob(x_t, t, schedule)

    return log_prob


# ---------------------------------------------------------------- Bayes' rule


@every_schedule
@quick
@given(t=times)
def test_the_exact_classifier_turns_the_unconditional_denoiser_into_the_conditional_one(schedule, t):
    x_t, y = noised(t, schedule)
    denoiser = PLANE.denoiser(schedule)
    guided = Classifier(denoiser, exact_classifier(schedule), schedule, scale=1.0)
    exactly(guided(x_t, t, y), denoiser(x_t, t, y))


@every_schedule
@quick
@given(t=times, scale=scales)
def test_classifier_and_classifier_free_guidance_are_the_same_where_both_are_exact(schedule, t, scale):
    x_t, y = noised(t, schedule)
    denoiser = PLANE.denoiser(schedule)
    by_classifier = Classifier(denoiser, exact_classifier(schedule), schedule, scale)
    exactly(by_classifier(x_t, t, y), ClassifierFree(denoiser, ANY, scale)(x_t, t, y))


@quick
@given(t=times, scale=scales)
def test_the_score_of_the_answer_is_the_tilted_one(t, scale):
    """``(alpha x0 - x_t) / sigma^2 = grad (log p_t(x_t) + scale log p(y | x_t))``, the gradient by differences."""
    schedule = vp_cosine()
    x_t, y = noised(t, schedule)
    alpha, sigma = schedule.scales(t)
    x0 = ClassifierFree(PLANE.denoiser(schedule), ANY, scale)(x_t, t, y)

    def tilted(x: Tensor) -> Tensor:
        return PLANE.log_prob(x, t, schedule) + scale * exact_classifier(schedule)(x, t, y)

    h = 1e-4 * torch.eye(2, dtype=torch.float64)
    slope = torch.stack([(tilted(x_t + step) - tilted(x_t - step)) / 2e-4 for step in h], 1)
    torch.testing.assert_close((alpha * x0 - x_t) / sigma**2, slope, rtol=1e-4, atol=1e-4)


def test_a_classifier_on_top_of_a_conditional_denoiser_counts_once_more():
    schedule, t = vp_cosine(), 0.4
    x_t, y = noised(t, schedule)
    denoiser, log_prob = PLANE.denoiser(schedule), exact_classifier(schedule)
    on_top = Classifier(denoiser, log_prob, schedule, 1.5, conditional=True)
    exactly(on_top(x_t, t, y), Classifier(denoiser, log_prob, schedule, 2.5)(x_t, t, y))


def test_the_classifier_is_differentiated_whatever_mode_the_sampler_runs_in():
    schedule, t = vp_cosine(), 0.4
    x_t, y = noised(t, schedule)
    guided = Classifier(PLANE.denoiser(schedule), exact_classifier(schedule), schedule, 2.0)
    answer = guided(x_t, t, y)
    assert not answer.requires_grad
    with torch.no_grad():
        exactly(guided(x_t, t, y), answer)
    with torch.inference_mode():
        each = torch.full((len(x_t),), t, dtype=torch.float64)
        exactly(guided(x_t.clone(), each, y.clone()), answer)


def test_a_likelihood_may_differentiate_the_gradient_once_more():
    schedule, t = vp_cosine(), 0.4
    x_t, y = noised(t, schedule)
    denoiser = PLANE.denoiser(schedule)
    x, weights = x_t.requires_grad_(), draw(*x_t.shape, seed=2)
    by_classifier, free = (
        torch.autograd.grad((guided(x, t, y) * weights).sum(), x)[0]
        for guided in (
            Classifier(denoiser, exact_classifier(schedule), schedule, 2.0),
            ClassifierFree(denoiser, ANY, 2.0),
        )
    )
    exactly(by_classifier, free)


# ---------------------------------------------------------------- scales


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


# ---------------------------------------------------------------- one call or two


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
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
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


# ---------------------------------------------------------------- what is sampled is not the tilted law

GRID = torch.linspace(-4, 4, 4001, dtype=torch.float64)[:, None]


def tilted_density(scale: float) -> Tensor:
    """``p(x0) p(y = 1 | x0)^scale`` of LINE on GRID, normalised by the trapezoid rule."""
    class_one = LINE.responsibilities(GRID, 0.0, edm())[:, 1:].sum(1)
    density = LINE.log_prob(GRID).exp() * class_one**scale
    return density / torch.trapezoid(density, GRID[:, 0])


def tilted_denoiser(x_t: Tensor, t: float, scale: float, schedule: Schedule) -> Tensor:
    """``E[x0 | x_t]`` under the tilted law, by quadrature."""
    alpha, sigma = schedule.scales(t)
    logits = tilted_density(scale).clamp_min(1e-300).log() - 0.5 * ((x_t - alpha * GRID.T) / sigma) ** 2
    return logits.softmax(1) @ GRID


def gap(t: float, scale: float, schedule: Schedule) -> float:
    """The farthest that guidance and the tilted law's own denoiser are apart, over where x_t mostly is."""
    alpha, sigma = schedule.scales(t)
    x_t = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None] * (alpha + 2 * sigma)
    guided = ClassifierFree(LINE.denoiser(schedule), ANY, scale)(x_t, t, 1)
    return (guided - tilted_denoiser(x_t, t, scale, schedule)).abs().max().item()


@pytest.mark.parametrize("t", [0.1, 0.3, 0.6, 0.9, 1.0])
def test_only_at_scale_0_and_1_is_the_guided_denoiser_that_of_the_tilted_law(t):
    assert gap(t, 0.0, vp_cosine()) < 1e-9 and gap(t, 1.0, vp_cosine()) < 1e-9
    assert gap(t, 3.0, vp_cosine()) > 0.02


def test_the_gap_closes_with_the_noise_and_is_known_at_its_height():
    schedule = vp_cosine()
    closing = [gap(t, 3.0, schedule) for t in (0.2, 0.1, 0.05, 0.025)]
    assert all(late < 0.5 * early for early, late in pairwise(closing))
    # from pure noise guidance aims at a point on the line through two means, the tilted law at its own mean
    means = LINE.means[:, 0]
    everyone, wanted = (means * LINE.weights).sum(), (means * LINE.weights)[1:].sum() / LINE.weights[1:].sum()
    tilted = torch.trapezoid(tilted_density(3.0) * GRID[:, 0], GRID[:, 0])
    height = (everyone + 3 * (wanted - everyone) - tilted).abs().item()
    assert gap(1.0, 3.0, schedule) == pytest.approx(height, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_guided_flow_has_the_density_of_the_tilted_law_only_at_scale_1(scale):
    x = torch.linspace(-3, 3, 241, dtype=torch.float64)[:, None]
    guided = ClassifierFree(LINE.denoiser(vp_cosine()), ANY, scale)
    found = log_likelihood(guided, vp_cosine(), x, cond=1, probes=None, rtol=1e-7, atol=1e-7).exp()
    assert torch.trapezoid(found, x[:, 0]).item() == pytest.approx(1, abs=1e-3)
    wanted = tilted_density(scale)[(x[:, 0] + 4).div(0.002).round().long()]
    distance = 0.5 * torch.trapezoid((found - wanted).abs(), x[:, 0]).item()  # total variation
    assert distance < 1e-3 if scale == 1 else distance > 0.1


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 4.0])
def test_of_normal_laws_guidance_takes_the_geometric_mean_of_precisions(scale):
    """Towards a narrow peak of deviation a, away from a wide one of b: closed forms of both laws."""
    a, b, schedule = 0.3, 1.0, edm(sigma_max=1000.0)
    law = GaussianMixture(torch.zeros(2, 1), scales=torch.tensor([a, b]), labels=torch.tensor([0, 1]))
    guided = ClassifierFree(law.denoiser(schedule), null=1, scale=scale)
    start = schedule.scales(1.0)[1] * torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    end = probability_flow(guided, schedule, start, torch.tensor([1.0, 1e-8]), cond=0, rtol=1e-9, atol=1e-11)
    deviation = a**scale * b ** (1 - scale)
    torch.testing.assert_close(end[:, 0], deviation * torch.tensor([1.0, -0.5]).double(), rtol=1e-5, atol=0)
    precision, tilted = deviation**-2, scale * a**-2 + (1 - scale) * b**-2
    if scale == 1:
        assert precision == pytest.approx(tilted)
    else:  # too narrow above 1, too wide below
        assert (precision > 1.05 * tilted) if scale > 1 else (precision < 0.95 * tilted)


# ---------------------------------------------------------------- nesting


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


def test_a_tower_of_wrappers_samples_and_costs_what_its_parts_cost():
    schedule = edm()
    count, weak = CountCalls(PLANE.denoiser(schedule)), CountCalls(toys.eight_modes().denoiser(schedule))
    free = ClassifierFree(count, ANY, 2.0)
    tower = Interval(DynamicThreshold(Rescaled(Autoguidance(free, weak, 1.5))), count, schedule, 0.1, 2.0)
    # EDM's grid: sigma = 80 t
    times = torch.tensor([80.0, 10.0, 2.1, 1.9, 1.0, 0.3, 0.11, 0.09, 0.0]) / 80
    x = multistep(tower, schedule, 80 * draw(16, 2), times, order=1, cond=torch.ones(16, dtype=torch.long))
    assert (weak.examples, count.examples) == (4 * 16, (4 * 2 + 4) * 16)
    assert PLANE.responsibilities(x, 0.05 / 80, schedule)[:, 1:].sum(1).mean() > 0.99


# ---------------------------------------------------------------- where to guide


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [(17, 57, 5), (0, 57, 7), (17, math.inf, 8), (0, math.inf, 10), (81, math.inf, 0), (0, 7, 0)],
)
def test_an_interval_pays_for_guidance_inside_only(low, high, inside):
    """Steps at sigma = 80, 72, ... 8."""
    schedule, y = edm(), torch.zeros(6, dtype=torch.long)
    count = CountCalls(PLANE.denoiser(schedule))
    guided = Interval(ClassifierFree(count, ANY, 3.0), count, schedule, low, high)
    multistep(guided, schedule, 80 * draw(6, 2), grids.uniform(10), order=2, cond=y)
    assert (count.calls, count.examples) == (10, 6 * (10 + inside))


def test_the_upper_end_belongs_to_an_interval_and_the_lower_does_not():
    low, high = torch.tensor(0.25), torch.tensor(0.75)
    interval = Interval(lambda x, t, cond=None: x + 1, lambda x, t, cond=None: x, edm(), 20.0, 60.0)
    x = torch.zeros(3, 1)
    assert not interval(x, low).any() and interval(x, high).all()
    assert interval(x, torch.tensor([0.25, 0.75, 0.5])).flatten().tolist() == [0, 1, 1]
    both_ends = Interval(interval.guided, interval.plain, rectified(), 0.0, math.inf)
    assert both_ends(x, 1.0).all() and not both_ends(x, 0.0).any()


# ---------------------------------------------------------------- contrast and range


def pictures(scale: float = 1.0) -> Tensor:
    return scale * draw(5, 3, 8, 8) + 0.3


class Answers:
    """A denoiser that answers cond where it is asked for a condition, and half of x_t where not."""

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        return 0.5 * x_t if cond is None else cond


@quick
@given(scale=st.floats(1.5, 8), mix=st.floats(0, 1))
def test_rescaling_takes_back_the_contrast_and_nothing_else(scale, mix):
    x_t, wanted = pictures(), pictures(0.5)
    free = CountCalls(Answers())
    guided = ClassifierFree(free, None, scale)
    plain, full, some = (Rescaled(guided, part)(x_t, 0.5, wanted) for part in (0.0, 1.0, mix))
    assert free.calls == 3 * 2
    exactly(plain, guided(x_t, 0.5, wanted))
    exactly(full.flatten(1).std(1), wanted.flatten(1).std(1))
    exactly(some, (1 - mix) * plain + mix * full)
    ratio = full / plain
    exactly(ratio, ratio[:, :1, :1, :1].expand_as(ratio))


def test_an_answer_without_contrast_is_left_alone():
    flat = torch.ones(2, 1, 4, 4)
    rescaled = Rescaled(Autoguidance(lambda *_: flat, lambda *_: 3 * flat, 2.0), 1.0)
    assert torch.equal(rescaled(flat, 0.5), -flat)


@quick
@given(size=st.floats(0.1, 5), percentile=st.floats(0, 100))
def test_a_threshold_keeps_the_range_and_the_order(size, percentile):
    x0 = pictures(size)
    kept = DynamicThreshold(lambda *_: x0, percentile)(x0, 0.5)
    assert kept.abs().max() <= 1
    order = x0.flatten(1).argsort(1)
    assert (kept.flatten(1).gather(1, order).diff() >= 0).all()
    assert torch.equal(DynamicThreshold(lambda *_: kept, percentile)(x0, 0.5), kept)
    alone = DynamicThreshold(lambda *_: x0[2:3], percentile)(x0, 0.5)
    assert torch.equal(alone, kept[2:3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_in_range_is_left_alone(dtype):
    x0 = pictures().tanh().to(dtype)
    for percentile in (0, 50, 99.5, 100):
        kept = DynamicThreshold(lambda *_: x0, percentile)(x0, 0.5)
        assert torch.equal(kept, x0) and kept.dtype == dtype


def test_a_threshold_lies_between_the_static_clamp_and_pure_shrinking():
    x0 = pictures(1.5)
    clamped, shrunk = (DynamicThreshold(lambda *_: x0, percentile)(x0, 0.5) for percentile in (0, 100))
    assert torch.equal(clamped, x0.clamp(-1, 1))
    exactly(shrunk, x0 / x0.abs().amax((1, 2, 3), keepdim=True))
    # with 101 values the 90th percentile is the 91st of them: 10 are clipped, and it becomes the white point
    ramp = torch.linspace(0, 5, 101, dtype=torch.float64)[None]
    kept = DynamicThreshold(lambda *_: ramp, 90)(ramp, 0.5)[0]
    assert (kept == 1).sum() == 11
    exactly(kept[:91], torch.linspace(0, 1, 91, dtype=torch.float64))


# ---------------------------------------------------------------- refusals


def nothing(x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
    return x_t


X, Y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)
REFUSED = {
    "scale": (lambda: ClassifierFree(nothing, ANY, math.nan), ValueError, "a scale is a finite number"),
    "scale in two dimensions": (lambda: Autoguidance(nothing, nothing, X), ValueError, "a scale is a finite number"),
    "endless scale": (lambda: Classifier(nothing, nothing, edm(), math.inf), ValueError, "a scale is a finite number"),
    "scales of other examples": (
        lambda: Autoguidance(nothing, nothing, torch.ones(2))(X, 0.5),
        ValueError,
        r"one for each of 3 examples; got \(2,\)",
    ),
    "no condition": (lambda: ClassifierFree(nothing, ANY, 2.0)(X, 0.5), ValueError, "pass cond="),
    "no class": (lambda: Classifier(nothing, nothing, edm(), 2.0)(X, 0.5), ValueError, "pass cond="),
    "pure noise": (
        lambda: Classifier(nothing, nothing, rectified(), 2.0)(X, 1.0, Y),
        ValueError,
        "guidance divides by alpha",
    ),
    "logits": (lambda: Classifier(nothing, nothing, edm(), 2.0)(X, 0.5, Y), ValueError, r"shape \(3,\).*got .*3, 2"),
    "a cut graph": (
        lambda: Classifier(nothing, lambda x, t, y: x.detach().sum(1), edm(), 2.0)(X, 0.5, Y),
        ValueError,
        "cut off from x_t",
    ),
    "an empty interval": (lambda: Interval(nothing, nothing, edm(), 2.0, 1.0), ValueError, "0 <= low < high"),
    "no number": (lambda: Interval(nothing, nothing, edm(), math.nan, 1.0), ValueError, "0 <= low < high"),
    "nothing to take contrast from": (lambda: Rescaled(nothing), TypeError, "needs a guidance with parts.*function"),
    "mix": (lambda: Rescaled(Autoguidance(nothing, nothing, 2.0), 1.1), ValueError, "mix runs from 0"),
    "percentile": (lambda: DynamicThreshold(nothing, 101), ValueError, "a percentile runs from 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence(case):
    action, error, words = REFUSED[case]
    with pytest.raises(error, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)

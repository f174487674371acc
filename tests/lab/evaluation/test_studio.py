"""The studio of the guidance lesson: its networks, what a picture costs, and what its judges say of known pictures."""

from __future__ import annotations

import pytest
import torch

from survey_lib.core import grids
from survey_lib.core.schedules import vp_linear
from survey_lib.design.guidance import Classifier, ClassifierFree, Interval
from survey_lib.lab import data
from survey_lib.lab.evaluation.studio import Studio

SCHEDULE = vp_linear()


@pytest.fixture(scope="module")
def studio():
    return Studio.of("glyphs", SCHEDULE)


@pytest.fixture(scope="module")
def glyphs():
    return data.load("glyphs", split="test", count=60)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def free(studio, scale):
    return lambda net: ClassifierFree(net("conditional"), studio.null, scale)


def test_a_guided_picture_costs_exactly_twice_the_plain_one(studio):
    plain, guided = studio.bill(lambda net: net("conditional"), 5), studio.bill(free(studio, 3.0), 5)
    assert plain.evaluations == 5 and guided.evaluations == 10
    assert guided.macs == 2 * plain.macs


def test_outside_the_interval_a_step_is_paid_once(studio):
    low, high = 0.28, 2.9

    def within(net):
        return Interval(free(studio, 3.0)(net), net("conditional"), SCHEDULE, low, high)

    noise = torch.exp(-SCHEDULE.lam(grids.karras(16, SCHEDULE)[:-1]))
    inside = int(((noise > low) & (noise <= high)).sum())
    plain, bill = studio.bill(lambda net: net("conditional")), studio.bill(within)
    assert 0 < inside < 16
    assert bill.evaluations == 16 + inside
    assert bill.macs * 16 == plain.macs * (16 + inside)


def test_the_classifier_costs_work_but_no_evaluation(studio):
    plain = studio.bill(lambda net: net("base"), 4)
    guided = studio.bill(lambda net: Classifier(net("base"), studio.noisy.log_prob, SCHEDULE, 2.0), 4)
    assert guided.evaluations == plain.evaluations == 4
    assert guided.macs > 1.2 * plain.macs


def test_the_network_without_labels_ignores_them(studio):
    x, base = studio.noise(2, generator()), studio.net("base")
    torch.testing.assert_close(base(x, 0.5, torch.tensor([1, 2])), base(x, 0.5))


def test_judges_know_real_pictures(studio, glyphs):
    x = glyphs.float()
    assert studio.hits(x, glyphs.labels) > 0.9
    assert studio.hits(x, (glyphs.labels + 1) % 10) < 0.1
    assert studio.praise(x, glyphs.labels, generator()) > studio.praise(x, (glyphs.labels + 1) % 10, generator()) + 1


def test_noise_blinds_the_clean_classifier_first(studio, glyphs):
    x = glyphs.float()
    calm, loud = (studio.accuracies(x, glyphs.labels, noise, generator()) for noise in (0.05, 1.0))
    assert min(calm) > 0.9
    assert loud[0] > loud[1] + 0.2


def test_pictures_that_are_all_alike_do_not_spread(studio, glyphs):
    same = glyphs.float(slice(1)).expand(4, -1, -1, -1)
    assert studio.spread(same, torch.zeros(4)) == pytest.approx(0, abs=1e-6)
    assert studio.spread(glyphs.float(), glyphs.labels) > 0.1
    with pytest.raises(ValueError, match="two images of one label"):
        studio.spread(glyphs.float(slice(2)), torch.tensor([0, 1]))


def test_the_clean_classifier_gives_probabilities(studio):
    x = studio.noise(3, generator())
    every = torch.stack([studio.clean_log_prob(x, 0.3, torch.full((3,), k)) for k in range(studio.classes)])
    torch.testing.assert_close(every.exp().sum(0), torch.ones(3))


def test_guidance_at_scale_one_moves_nothing_on_its_way(studio):
    x, y = studio.noise(2, generator()), torch.tensor([3, 4])
    levels, moves = studio.pushes(free(studio, 1.0)(studio.net), x, y)
    assert moves == [0.0] * 16
    assert levels == sorted(levels)

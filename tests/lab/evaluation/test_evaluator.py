"""The evaluator on images whose features are three pixels: what it counts, what it compares, what it refuses."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from survey_lib.lab.data.images import ImageSet, to_float
from survey_lib.lab.evaluation import cost, evaluator, metrics
from survey_lib.lab.evaluation.evaluator import Evaluator
from survey_lib.lab.training import checkpoints

N = 30


class Corner(nn.Module):
    """Sees three pixels of a row, and names the brightest of them."""

    def __init__(self, row):
        super().__init__()
        self.row, self.weight = row, nn.Parameter(torch.ones(()))

    def features(self, x):
        return self.weight * x[:, 0, self.row, :3]

    def classify(self, x):
        return (self.features(x).argmax(1),)


@pytest.fixture
def judge():
    """Sixty random images, sorted by their first pixel, with the labels that the held-out network names."""
    images = torch.randint(256, (2 * N, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = images[images[:, 0, 0, 0].argsort()]
    labels = images[:, 0, 1, :3].argmax(1)
    return Evaluator(ImageSet("toy", images, labels, ("a", "b", "c")), Corner(0), Corner(1))


def real(judge):
    return to_float(judge.test.images[:N])


def test_the_images_that_are_compared_with_are_perfect_and_one_of_them_alone_is_not(judge):
    same = judge.score(real(judge), judge.test.labels[:N])
    assert same["fd"] == pytest.approx(0, abs=1e-9) and same["fd_held_out"] == pytest.approx(0, abs=1e-9)
    assert same["precision"] == same["recall"] == same["coverage"] == same["accuracy"] == 1
    narrow = judge.score(real(judge)[:1].expand(N, -1, -1, -1))
    assert narrow["precision"] == 1 and narrow["recall"] < 0.2 and narrow["coverage"] < 0.5 and narrow["fd"] > 0.5


def test_each_distance_has_features_of_its_own_and_labels_are_named_by_the_held_out_network(judge):
    spoilt = real(judge).clone()
    spoilt[:, 0, 0] = -1
    seen = judge.score(spoilt, judge.test.labels[:N])
    assert seen["fd"] > 0.5 and seen["fd_held_out"] == pytest.approx(0, abs=1e-9) and seen["accuracy"] == 1
    assert judge.score(spoilt, (judge.test.labels[:N] + 1) % 3)["accuracy"] == 0
    assert "accuracy" not in judge.score(spoilt)


def test_the_floor_is_the_mean_of_random_splits_with_their_deviation(judge):
    generator = torch.Generator().manual_seed(1)
    seen = metrics.features(judge.feature_net, judge.test.images)
    splits = torch.tensor([metrics.floor(metrics.frechet_distance, seen, N, generator=generator) for _ in range(400)])
    error = splits.std() / evaluator.SPLITS**0.5
    assert abs(judge.floor["fd"] - splits.mean()) < 4 * error
    assert splits.std() / 2 < judge.floor["fd_std"] < 2 * splits.std()
    in_order = metrics.frechet_distance(seen[:N], seen[N:])
    assert judge.floor["fd"] < 0.2 * in_order, "the files are sorted, and the splits are not"
    again = Evaluator(judge.test, judge.feature_net, judge.held_out_net)
    assert again.floor == judge.floor and judge.score(real(judge))["floor"] == judge.floor["fd"]


def test_real_images_score_about_the_floor():
    images = torch.randint(256, (2 * N, 1, 4, 4), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    judge = Evaluator(ImageSet("toy", images, torch.zeros(2 * N).long(), ("a",)), Corner(0), Corner(1))
    others = judge.score(images[N:])
    assert others["fd"] == pytest.approx(judge.floor["fd"], abs=4 * judge.floor["fd_std"])
    assert others == judge.score(to_float(images[N:])), "bytes and floats are the same images"


def test_evaluations_are_examples_an_image_and_those_of_classifiers_do_not_count(judge):
    def sample(first, second, classifier):
        x = real(judge)
        first(torch.cat([x, x]), 0.5)  # both predictions of a guided step in one batch
        for part in x.chunk(3):
            second(part, 0.5)
        classifier(x)
        return x

    found = judge.measure(sample, lambda x, t: x, lambda x, t: x, classifiers=[lambda x: x.sum((1, 2, 3))])
    assert found.evaluations == 3
    assert found.numbers()["images"] == N and found.numbers()["evaluations"] == 3


def test_macs_equal_a_count_by_hand_gradients_included(judge):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = nn.Conv2d(1, 1, 3, padding=1)
        classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))

    def sample(net, classify):
        x = net(net(real(judge)))
        with torch.enable_grad():
            x.requires_grad_()
            torch.autograd.grad(classify(x).sum(), x)
        return x.detach()

    by_hand = 2 * (16 * 9) + (16 * 5 + 5 * 16)
    assert judge.measure(sample, denoiser, classifiers=[classifier]).macs == by_hand


def test_the_clock_runs_for_the_sampler_alone(judge, monkeypatch):
    running, scored, features = [], [], metrics.features

    @contextmanager
    def clock(device):
        running.append(device)
        yield SimpleNamespace(cost=SimpleNamespace(core_seconds=60.0))
        running.clear()

    monkeypatch.setattr(cost, "measure", clock)
    monkeypatch.setattr(metrics, "features", lambda *given: scored.append(len(running)) or features(*given))
    found = judge.measure(lambda net: net(3 * len(running) * real(judge)), lambda x: x)
    assert found.core_seconds == 60 / N and scored and not any(scored)
    assert torch.equal(found.images, 3 * real(judge)), "images are clamped for the score, not by the sampler"
    assert found.quality == judge.score(found.images.clamp(-1, 1))


def test_a_sampler_that_diverged_has_no_quality_and_its_cost(judge):
    def sample(net):
        x = net(real(judge))
        x[:2, 0, 0, 0], x[2, 0, 3, 3] = torch.nan, torch.inf
        return x

    found = judge.measure(sample, lambda x: x)
    assert found.quality == {"diverged": pytest.approx(0.1)} and found.evaluations == 1


def test_what_cannot_be_scored_is_refused_in_one_sentence(judge, monkeypatch):
    x = real(judge)
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=r"^30 of 30 images hold NaN or infinity: the sampler diverged$"):
            judge.score(torch.full_like(x, value))
    with pytest.raises(ValueError, match=r"^metrics need equal N: got 30 real and 29 fake; cut both to 29$"):
        judge.score(x[:-1])
    with pytest.raises(ValueError, match=r"^labels are one for each of 30 images; got shape \(30, 1\)$"):
        judge.score(x, torch.zeros(N, 1))
    monkeypatch.setattr(evaluator, "load", lambda name, split, most: judge.test.take(slice(most)))
    monkeypatch.setattr(checkpoints, "load", lambda name, device, root: Corner(int("features2" in name)))
    loaded = Evaluator.load("toy", N)
    assert (loaded.count, loaded.shape, loaded.held_out_net.row) == (N, (1, 4, 4), 1)
    assert loaded.score(x) == judge.score(x)


def test_a_small_data_set_is_halved_and_one_that_is_too_small_is_refused(judge, monkeypatch):
    monkeypatch.setattr(checkpoints, "load", lambda name, device, root: Corner(int("features2" in name)))
    assert Evaluator.load("digits", 1000).count == 180  # of 360 test images
    for there, asked, wanted in ((159, 1000, 80), (59, 30, 30)):
        monkeypatch.setattr(evaluator, "load", lambda *_, there=there, **__: judge.test.take(torch.arange(there) % 60))
        with pytest.raises(ValueError, match=f"^{wanted} images on each side need {2 * wanted} .*; there are {there}$"):
            Evaluator.load("toy", asked)

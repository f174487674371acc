"""Metrics against closed forms, hand-made cases and the statistics that they claim."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from survey_lib.lab.data.images import to_uint8
from survey_lib.lab.evaluation import metrics
from survey_lib.nets.classifier import Classifier


def gaussian(n, d, generator, shift=0.0, scale=1.0):
    return shift + scale * torch.randn(n, d, generator=generator, dtype=torch.float64)


def rotation(d, generator):
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


# ---------------------------------------------------------------- features


def test_features_of_a_set_do_not_depend_on_batch_number_format_or_mode(rng):
    net = Classifier(3, (10, 4), widths=(4, 8), dims=6).train()
    images = torch.randint(0, 256, (7, 3, 8, 8), generator=rng, dtype=torch.uint8)
    whole = metrics.features(net, images)
    assert whole.shape == (7, 6) and whole.dtype == torch.float64
    assert net.training  # as it was found
    torch.testing.assert_close(metrics.features(net, images, batch=2), whole)
    torch.testing.assert_close(metrics.features(net, images.float() / 127.5 - 1), whole)
    for labels, batched in zip(metrics.classify(net, images), metrics.classify(net, images, batch=3), strict=True):
        assert labels.shape == (7,) and torch.equal(labels, batched)


def test_generated_images_are_judged_as_the_files_they_become(rng):
    net = Classifier(1, widths=(4, 8), dims=6)
    x = 2 * torch.randn(5, 1, 8, 8, generator=rng)  # overshoots [-1, 1]
    assert torch.equal(metrics.features(net, x), metrics.features(net, to_uint8(x)))


@pytest.mark.parametrize(
    "images, sentence",
    [
        (torch.full((3, 1, 8, 8), torch.nan), "3 of 3 images hold NaN"),
        (torch.full((3, 1, 8, 8), 255.0), r"lie in \[-1, 1\].*reach 255"),
        (torch.zeros(3, 8, 8), r"\(N, C, H, W\).*\(3, 8, 8\)"),
        (torch.zeros(0, 1, 8, 8), "N at least 1"),
    ],
)
def test_images_that_cannot_be_judged_are_refused(images, sentence):
    with pytest.raises(ValueError, match=sentence):
        metrics.features(Classifier(1), images)


def test_images_in_zero_to_one_are_told_of(rng):
    """They would be taken for images without a dark pixel; a warning, as such images exist."""
    net, x = Classifier(1, widths=(4, 8), dims=6), torch.rand(5, 1, 8, 8, generator=rng)
    with pytest.warns(RuntimeWarning, match=r"images in \[0, 1\] are to be passed as 2 \* x - 1"):
        metrics.features(net, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.features(net, 2 * x - 1)


# ---------------------------------------------------------------- Fréchet distance


@given(st.lists(st.tuples(*[st.floats(0.0, 3.0)] * 2, *[st.floats(-2.0, 2.0)] * 2), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_gaussians_with_common_axes_are_sums_over_lines(axes):
    deviation1, deviation2, mean1, mean2 = torch.tensor(axes, dtype=torch.float64).T
    turn = rotation(len(axes), torch.Generator().manual_seed(1))
    got = metrics.gaussian_frechet(
        turn @ mean1, turn * deviation1**2 @ turn.T, turn @ mean2, turn * deviation2**2 @ turn.T
    )
    on_lines = sum((s1 - s2) ** 2 + (m1 - m2) ** 2 for s1, s2, m1, m2 in axes)
    assert got == pytest.approx(on_lines, abs=1e-6)  # a root of a variance of 0 known to 1e-16


def test_gaussians_with_different_axes(rng):
    zero = torch.zeros(2, dtype=torch.float64)
    for _ in range(5):
        a, b = (x @ x.T for x in torch.randn(2, 2, 2, generator=rng, dtype=torch.float64))
        # in two dimensions tr(M^(1/2))^2 = tr(M) + 2 det(M)^(1/2)
        root = ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
        expected = float(a.trace() + b.trace() - 2 * root)
        assert metrics.gaussian_frechet(zero, a, zero, b) == pytest.approx(expected, abs=1e-9)


def test_flat_gaussians_have_a_distance(rng):
    u, v = torch.randn(2, 5, generator=rng, dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    expected = float(u @ u + v @ v - 2 * (u @ v).abs())
    assert metrics.gaussian_frechet(zero, u.outer(u), zero, v.outer(v)) == pytest.approx(expected, abs=1e-6)


def test_frechet_distance_of_samples_comes_to_that_of_their_laws(rng):
    d, n = 6, 40_000
    real, fake = gaussian(n, d, rng), gaussian(n, d, rng, shift=0.4, scale=1.5)
    law = d * 0.4**2 + d * 0.5**2
    assert metrics.frechet_distance(real, fake) == pytest.approx(law, rel=0.03)


def test_frechet_distance_of_one_feature_is_that_of_two_lines():
    real, fake = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [4.0], [7.0]])  # deviations 1 and 3
    assert metrics.frechet_distance(real, fake) == pytest.approx((4 - 1) ** 2 + (3 - 1) ** 2)


def test_frechet_distance_is_a_squared_distance(rng):
    real, fake = gaussian(60, 5, rng), gaussian(60, 5, rng, shift=0.3, scale=1.5)
    value, turn = metrics.frechet_distance(real, fake), rotation(5, rng)
    assert metrics.frechet_distance(real, real) == pytest.approx(0, abs=1e-12)
    assert metrics.frechet_distance(real, real + 2) == pytest.approx(5 * 2**2)
    assert metrics.frechet_distance(fake, real) == pytest.approx(value)
    assert metrics.frechet_distance(real @ turn + 7, fake @ turn + 7) == pytest.approx(value)
    assert metrics.frechet_distance(3 * real, 3 * fake) == pytest.approx(9 * value)
    dead = nn.functional.pad(torch.stack([real, fake]), (0, 3))  # features that are 0 for every image
    assert metrics.frechet_distance(*dead) == pytest.approx(value)


@pytest.mark.parametrize("d, n", [(8, 400), (32, 400), (32, 1600)])
def test_the_bias_between_two_samples_of_one_law_is_the_documented_one(d, n, rng):
    values = [metrics.frechet_distance(gaussian(n, d, rng), gaussian(n, d, rng)) for _ in range(40)]
    assert sum(values) / len(values) == pytest.approx(d * (d + 5) / (2 * n), rel=0.1)


def test_frechet_distance_agrees_with_torchmetrics(rng):
    fid = pytest.importorskip("torchmetrics.image.fid")
    real, fake = gaussian(300, 16, rng).exp(), gaussian(300, 16, rng, 0.2, 0.8).exp()

    class Same(nn.Module):
        num_features = 16

        def forward(self, x):
            return x

    theirs = fid.FrechetInceptionDistance(Same(), normalize=True).set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    assert metrics.frechet_distance(real, fake) == pytest.approx(float(theirs.compute()), rel=1e-9)


# ---------------------------------------------------------------- kernel distance


def test_kid_by_hand():
    points = torch.tensor([[1.0], [-1.0]])  # k(1, 1) = 8 and k(1, -1) = 0; within a set only the pair of both
    assert metrics.kid(points, points) == pytest.approx(0 + 0 - 2 * (8 + 8 + 0 + 0) / 4)


def test_kid_agrees_with_torchmetrics_and_does_not_care_about_order(rng):
    theirs = pytest.importorskip("torchmetrics.image.kid").poly_mmd
    real, fake = gaussian(1200, 8, rng), gaussian(1200, 8, rng, 0.3)
    value = metrics.kid(real, fake)
    assert value == pytest.approx(float(theirs(real, fake)), rel=1e-9)
    assert metrics.kid(real.flip(0), fake[torch.randperm(1200, generator=rng)]) == pytest.approx(value)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_kid_is_unbiased_at_any_number_of_samples(shift, rng):
    law = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2  # moments of N(shift, 1) against N(0, 1)
    values = torch.tensor([metrics.kid(gaussian(6, 1, rng), gaussian(6, 1, rng, shift)) for _ in range(1500)])
    assert abs(values.mean() - law) < 4 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("shift, low, high", [(0.0, 1.0, 1.8), (0.6, 0.8, 1.3)])
def test_kid_error_is_the_deviation_over_fresh_sets(shift, low, high, rng):
    pairs = [(gaussian(120, 3, rng), gaussian(120, 3, rng, shift)) for _ in range(150)]
    deviation = torch.tensor([metrics.kid(*pair) for pair in pairs]).std()
    errors = torch.tensor([metrics.kid_error(*pair, generator=rng) for pair in pairs])
    assert low < errors.square().mean().sqrt() / deviation < high  # equal laws: 1.4 times too large, as documented


def test_kid_error_of_samples_in_the_order_of_their_class(rng):
    real, fake = gaussian(400, 3, rng), gaussian(400, 3, rng)
    by_class = [x[x[:, 0].argsort(descending=down)] for x, down in ((real, False), (fake, True))]
    ordered, drawn = metrics.kid_error(*by_class, generator=rng), metrics.kid_error(real, fake, generator=rng)
    assert ordered == pytest.approx(drawn, rel=0.8)  # blocks cut from the order would give 100 times as much


# ---------------------------------------------------------------- sliced Wasserstein


@given(st.integers(1, 9), st.floats(-5, 5), st.integers(1, 3))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_sliced_wasserstein_of_a_shift_is_exact_with_whole_sets_of_directions(d, shift, sets):
    rng = torch.Generator().manual_seed(d)
    real = gaussian(50, d, rng)
    delta = shift * gaussian(1, d, rng)
    moved = (real + delta)[torch.randperm(50, generator=rng)]
    got = metrics.sliced_wasserstein(real, moved, generator=rng, projections=sets * d)
    assert got == pytest.approx(float(delta.norm()) / math.sqrt(d), abs=1e-9)


def test_sliced_wasserstein_on_a_line_matches_the_sorted_points(rng):
    real, fake = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[7.0], [0.0], [1.0]])
    assert metrics.sliced_wasserstein(real, fake, generator=rng) == pytest.approx(math.sqrt((0 + 0 + 4) / 3))


def test_sliced_wasserstein_with_few_directions_scatters_about_the_truth(rng):
    real = gaussian(20, 64, rng)
    delta = gaussian(1, 64, rng)
    squares = [metrics.sliced_wasserstein(real, real + delta, generator=rng, projections=5) ** 2 for _ in range(300)]
    truth = float(delta.square().sum()) / 64
    assert sum(squares) / 300 == pytest.approx(truth, rel=0.15)


# ---------------------------------------------------------------- labels


class Brightest(nn.Module):
    """Names the brightest of the first three pixels."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))  # says on which device the network lives

    def classify(self, x):
        return (x[:, 0, 0, :3].argmax(1),)


def test_label_accuracy_is_the_fraction_named_right():
    images = torch.full((4, 1, 2, 3), -1.0)
    for place, image in zip((0, 1, 2, 2), images, strict=True):
        image[0, 0, place] = 1.0
    assert metrics.label_accuracy(Brightest(), images, torch.tensor([0, 1, 2, 2])) == 1
    assert metrics.label_accuracy(Brightest(), images, torch.tensor([0, 2, 2, 0])) == 0.5
    with pytest.raises(ValueError, match=r"4 images need labels of shape \(4,\); got \(1,\)"):
        metrics.label_accuracy(Brightest(), images, torch.tensor([0]))


def test_within_class_std_knows_nothing_of_where_classes_stand(rng):
    x, labels = gaussian(3000, 4, rng, scale=3.0), torch.arange(3000) % 3
    x[labels == 0] *= 2
    spread = metrics.within_class_std(x, labels)
    assert spread == pytest.approx(3 * math.sqrt(4 * (4 + 1 + 1) / 3), rel=0.03)
    shifted = x + 100.0 * labels[:, None]
    assert metrics.within_class_std(shifted, labels) == pytest.approx(spread)
    alone = torch.cat([shifted, torch.full((1, 4), 1e6, dtype=torch.float64)])
    assert metrics.within_class_std(alone, torch.cat([labels, torch.tensor([3])])) == pytest.approx(spread)


def test_within_class_std_by_hand():
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [5.0, 5.0]])
    assert metrics.within_class_std(x, torch.tensor([0, 0, 1, 1])) == pytest.approx(1.0)  # variances 2 and 0
    with pytest.raises(ValueError, match="two examples of one class"):
        metrics.within_class_std(x, torch.arange(4))


# ---------------------------------------------------------------- fidelity and diversity


def two_modes(rng, left, right):
    """Points about (-50, 0) and (50, 0): no ball of a few neighbours reaches from one to the other."""
    centre = torch.tensor([[-50.0, 0.0]] * left + [[50.0, 0.0]] * right)
    return centre + torch.randn(left + right, 2, generator=rng)


def test_a_set_covers_itself(rng):
    x = two_modes(rng, 60, 40)
    assert metrics.precision_recall(x, x) == (1, 1)
    assert metrics.density_coverage(x, x).coverage == 1


def test_a_dropped_mode_costs_recall_and_coverage_alone(rng):
    real, fake = two_modes(rng, 300, 100), two_modes(rng, 400, 0)
    precision, recall = metrics.precision_recall(real, fake)
    density, coverage = metrics.density_coverage(real, fake)
    assert precision > 0.9 and 0.65 < recall <= 0.75
    assert density > 0.9 and 0.65 < coverage <= 0.75


def test_junk_costs_precision_and_density_alone(rng):
    real, fake = two_modes(rng, 200, 200), two_modes(rng, 200, 200)
    spoilt = fake.clone()
    spoilt[::4] = 1e4 * (1 + torch.arange(100.0)[:, None])  # a quarter of the fakes, each far from everything
    assert metrics.precision_recall(real, spoilt).precision <= 0.75 < metrics.precision_recall(real, fake).precision
    assert metrics.density_coverage(real, spoilt).density < 0.85 * metrics.density_coverage(real, fake).density
    assert metrics.density_coverage(real, spoilt).coverage > 0.85


def test_neighbourhoods_by_hand():
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # second neighbours at 2, 1, 2, 9
    fake = torch.tensor([[3.0], [3.5], [-3.0], [19.5]])  # first neighbours at 0.5, 0.5, 6, 16
    # balls of real: [-2, 2], [0, 2], [0, 4], [1, 19]; 3 and 3.5 lie in two of them, -3 and 19.5 in none
    assert metrics.density_coverage(real, fake, k=2) == (4 / (2 * 4), 2 / 4)
    # balls of fake: [2.5, 3.5], [3, 4], [-9, 3], [3.5, 35.5]: every real sample lies in one
    assert metrics.precision_recall(real, fake, k=2).precision == 2 / 4
    assert metrics.precision_recall(real, fake, k=1).recall == 1


def test_an_outlier_spoils_precision_and_not_density(rng):
    real, fake = two_modes(rng, 199, 1), two_modes(rng, 200, 0) + torch.tensor([50.0, 0.0])  # fakes between the modes
    assert metrics.precision_recall(real, fake).precision == 1  # in the huge ball of the one lonely real sample
    assert metrics.density_coverage(real, fake).density == pytest.approx(1 / 5)
    assert metrics.density_coverage(real, fake).coverage == 1 / 200


def test_density_and_coverage_of_equal_laws(rng):
    got = [metrics.density_coverage(gaussian(500, 2, rng), gaussian(500, 2, rng), k=3) for _ in range(10)]
    assert sum(x.density for x in got) / 10 == pytest.approx(1, abs=0.05)
    assert sum(x.coverage for x in got) / 10 == pytest.approx(1 - 2**-3, abs=0.03)


def test_neighbourhoods_do_not_depend_on_the_rows_taken_at_once(rng, monkeypatch):
    real, fake = gaussian(150, 4, rng) + 1000, gaussian(150, 4, rng, 0.5) + 1000
    whole = metrics.precision_recall(real, fake), metrics.density_coverage(real, fake), metrics.kid(real, fake)
    monkeypatch.setattr(metrics, "_ROWS", 40)
    assert metrics.precision_recall(real, fake) == whole[0]
    assert metrics.density_coverage(real, fake) == whole[1]
    assert metrics.kid(real, fake) == pytest.approx(whole[2], rel=1e-6)


# ---------------------------------------------------------------- known modes


def test_modes_by_hand():
    character, face = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 2, 2])
    got = metrics.mode_coverage((character, face), (2, 3))
    assert (got.modes, got.samples, got.hit) == (6, 4, 2)
    assert got.fraction == pytest.approx(2 / 6)
    assert got.ideal_fraction == pytest.approx(1 - (5 / 6) ** 4)
    assert got.entropy == pytest.approx(math.log(2))
    assert got.divergence == pytest.approx(math.log(3))


def test_all_modes_evenly_and_one_mode_alone():
    even = metrics.mode_coverage([torch.arange(30) % 10], [10])
    assert even.fraction == 1 and even.divergence == pytest.approx(0, abs=1e-12)
    single = metrics.mode_coverage([torch.zeros(30, dtype=torch.int64)], [10])
    assert single.hit == 1 and single.divergence == pytest.approx(math.log(10))
    only = metrics.mode_coverage([torch.zeros(30, dtype=torch.int64)], [1])
    assert (only.fraction, only.ideal_fraction, only.ideal_divergence) == pytest.approx((1, 1, 0))


def test_an_ideal_sampler_scores_what_is_said_of_it(rng):
    labels = [torch.randint(0, size, (2000, 60), generator=rng) for size in (4, 5)]
    got = [metrics.mode_coverage(pair, (4, 5)) for pair in zip(*labels, strict=True)]
    assert sum(x.fraction for x in got) / 2000 == pytest.approx(got[0].ideal_fraction, abs=0.005)
    assert sum(x.divergence for x in got) / 2000 == pytest.approx(got[0].ideal_divergence, rel=0.03)


def test_labels_that_are_no_modes_are_refused():
    with pytest.raises(ValueError, match=r"0 to 9 here; got 0 to 10"):
        metrics.mode_coverage([torch.tensor([0, 10])], [10])
    with pytest.raises(ValueError, match="2 label tensors of one length"):
        metrics.mode_coverage([torch.tensor([0, 1])], [10, 4])


# ---------------------------------------------------------------- intervals and floors


@pytest.mark.parametrize("d, n, shift, scale", [(2, 200, 0.5, 1.3), (8, 100, 0.2, 1.1)])
def test_intervals_of_the_frechet_distance_hold_the_truth(d, n, shift, scale, rng):
    def draw():
        return gaussian(n, d, rng), gaussian(n, d, rng, shift, scale)

    law = d * shift**2 + d * (scale - 1) ** 2
    at_this_n = sum(metrics.frechet_distance(*draw()) for _ in range(400)) / 400
    held = held_debiased = 0
    for _ in range(40):
        pair = draw()
        at = metrics.bootstrap(metrics.frechet_distance, *pair, generator=rng, resamples=30)
        held += at.low <= at_this_n <= at.high
        endless = metrics.bootstrap(metrics.frechet_distance, *pair, generator=rng, resamples=30, debias=True)
        held_debiased += endless.low <= law <= endless.high
    assert min(held, held_debiased) > 0.84 * 40  # 95 % nominal, 3 binomial deviations below


def test_drawing_with_replacement_would_miss_its_own_value(rng):
    """Why `bootstrap` is none in the narrow sense: every redrawn pair lies farther apart than the pair itself."""
    real, fake = gaussian(100, 8, rng), gaussian(100, 8, rng)
    value = metrics.bootstrap(metrics.frechet_distance, real, fake, generator=rng, resamples=30)
    redrawn = [
        metrics.frechet_distance(*(x[torch.randint(100, (100,), generator=rng)] for x in (real, fake)))
        for _ in range(30)
    ]
    assert min(redrawn) > value.value
    assert value.low < value.value < value.high


def test_debiasing_takes_the_floor_away(rng):
    def mean(debias):
        intervals = (
            metrics.bootstrap(
                metrics.frechet_distance, gaussian(200, 8, rng), gaussian(200, 8, rng),
                generator=rng, resamples=10, debias=debias,
            )
            for _ in range(30)
        )  # fmt: skip
        return sum(interval.value for interval in intervals) / 30

    biased = mean(False)
    assert biased == pytest.approx(8 * 13 / 400, rel=0.15)
    assert abs(mean(True)) < 0.2 * biased


def test_the_width_of_an_interval_is_that_of_a_mean(rng):
    """On the difference of two means the half-width must be z times the known standard error, N odd or even."""
    for n in (5, 100):
        real, fake = gaussian(n, 1, rng), gaussian(n, 1, rng)
        got = metrics.bootstrap(
            lambda a, b: float(a.mean() - b.mean()), real, fake, generator=rng, resamples=1500, level=0.9
        )
        error = float((real.var() / n + fake.var() / n).sqrt())
        assert (got.high - got.low) / 2 == pytest.approx(1.645 * error, rel=0.08)
    assert str(metrics.Interval(1.0, 0.5, 1.5)) == "1 [0.5, 1.5]"


def test_a_floor_compares_disjoint_parts_of_the_same_size(rng):
    seen = {}

    def metric(a, b):
        seen.update(a=set(a[:, 0].tolist()), b=set(b[:, 0].tolist()))
        return 0.0

    metrics.floor(metric, torch.arange(20.0)[:, None], 8, generator=rng)
    assert len(seen["a"]) == len(seen["b"]) == 8 and not seen["a"] & seen["b"]
    with pytest.raises(ValueError, match="needs 22 real samples; there are 20"):
        metrics.floor(metric, torch.arange(20.0)[:, None], 11, generator=rng)


# ---------------------------------------------------------------- all together, and bad input


def test_evaluate_gives_every_metric_and_repeats(rng):
    real, fake = gaussian(200, 6, rng), gaussian(200, 6, rng, 0.5)
    got = metrics.evaluate(real, fake, generator=torch.Generator().manual_seed(5))
    assert got == metrics.evaluate(real, fake, generator=torch.Generator().manual_seed(5))
    assert got["samples"] == 200
    assert got["fd"] == metrics.frechet_distance(real, fake)
    assert (got["precision"], got["recall"]) == metrics.precision_recall(real, fake)
    assert set(got) == {
        "samples", "fd", "kid", "kid_error", "precision", "recall", "density", "coverage", "sliced_wasserstein",
    }  # fmt: skip


@pytest.mark.parametrize("metric", [metrics.frechet_distance, metrics.kid, metrics.precision_recall])
@pytest.mark.parametrize(
    "real, fake, sentence",
    [
        (torch.zeros(9, 2), torch.full((9, 2), torch.nan), "9 of 9 rows of the fake features hold NaN"),
        (torch.zeros(9, 2), torch.zeros(7, 2), "equal N: got 9 real and 7 fake; cut both to 7"),
        (torch.zeros(9, 2), torch.zeros(9, 3), "d = 2 and d = 3"),
        (torch.zeros(9), torch.zeros(9), r"real ones have shape \(9,\)"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(metric, real, fake, sentence):
    with pytest.raises(ValueError, match=sentence):
        metric(real, fake)


def test_numbers_that_make_no_sense_are_refused(rng):
    few, x = torch.zeros(5, 5), torch.zeros(5, 2)
    with pytest.raises(ValueError, match="more than 5 samples a side; got 5"):
        metrics.frechet_distance(few, few)
    with pytest.raises(ValueError, match="number of samples less one, 4; got 5"):
        metrics.precision_recall(x, x, k=5)
    with pytest.raises(ValueError, match="half of the 5 samples; got 3"):
        metrics.kid_error(x, x, generator=rng, blocks=3)
    with pytest.raises(ValueError, match=r"level lies in \(0, 1\).*got level 95"):
        metrics.bootstrap(metrics.kid, x, x, generator=rng, level=95)
    with pytest.raises(ValueError, match="positive number of directions; got 0"):
        metrics.sliced_wasserstein(x, x, generator=rng, projections=0)
    with pytest.raises(ValueError, match="pass generator="):
        metrics.sliced_wasserstein(x, x, generator=None)

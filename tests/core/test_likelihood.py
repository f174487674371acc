"""The likelihood against laws whose density is known, and its estimate against the exact trace."""

import math

import pytest
import torch

from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.heads import Reschedule
from survey_lib.core.likelihood import bits_per_dim, log_likelihood, probability_flow
from survey_lib.core.losses import BYTE_STEP
from survey_lib.core.schedules import edm, rectified, ve, vp_cosine, vp_linear

MIXTURE = GaussianMixture(
    torch.tensor([[-0.7, 0.2], [0.6, 0.5], [0.1, -0.8]]), scales=torch.tensor([0.3, 0.2, 0.25]), weights=torch.ones(3)
)
LAW = GaussianLaw(torch.tensor([0.3, -0.2]), torch.tensor([[0.4, 0.1], [0.1, 0.2]]))
SCHEDULES = [vp_linear(), vp_cosine(), ve(), edm(), rectified()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("law", [LAW, MIXTURE], ids=["normal", "mixture"])
def test_the_density_of_the_data_comes_out(law, schedule):
    """In nats, within what of the data is left at t = 1, where it is taken for pure noise: about ``alpha / sigma``."""
    x0 = law.sample(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = log_likelihood(law.denoiser(schedule), schedule, x0, probes=None, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(got, law.log_prob(x0), rtol=0, atol=1e-4 + schedule.lam(1.0).exp().item())


def test_the_error_falls_with_the_tolerance():
    x0 = MIXTURE.sample(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    schedule = vp_cosine()
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-8):
        options = {"rtol": tolerance, "atol": tolerance, "t_min": 1e-6, "probes": None}
        got = log_likelihood(MIXTURE.denoiser(schedule), schedule, x0, **options)
        errors.append((got - MIXTURE.log_prob(x0)).abs().max().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def test_signs_over_all_corners_give_the_exact_trace():
    """Hutchinson's estimate is unbiased: its mean over every sign vector is the trace itself, on a linear denoiser."""
    schedule = vp_cosine()
    matrix = torch.tensor([[0.5, 0.3], [-0.2, 0.1]], dtype=torch.float64)
    x0 = torch.tensor([[0.3, -0.4]], dtype=torch.float64).expand(4, 2)
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)

    def denoiser(x, t, cond=None):
        return x @ matrix.T

    options = {"rtol": 1e-9, "atol": 1e-9}
    exact = log_likelihood(denoiser, schedule, x0, probes=None, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("survey_lib.core.protocols.normal", lambda shape, generator, dtype: corners)
        estimates = log_likelihood(denoiser, schedule, x0, probes=1, **options)
    assert (estimates - exact).abs().min() > 0.01
    assert estimates.mean().item() == pytest.approx(exact[0].item(), abs=1e-6)


def test_many_probes_are_nearer_and_the_seed_decides():
    schedule = vp_cosine()
    denoiser = MIXTURE.denoiser(schedule)
    x0 = MIXTURE.sample(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = log_likelihood(denoiser, schedule, x0, probes=None)

    def estimate(probes):
        options = {"rtol": 1e-3, "atol": 1e-3, "generator": torch.Generator().manual_seed(1)}
        return log_likelihood(denoiser, schedule, x0, probes=probes, **options)

    assert torch.equal(estimate(1), estimate(1))
    assert (estimate(32) - exact).square().mean() < 0.2 * (estimate(1) - exact).square().mean()


def test_flow_and_likelihood_agree():
    """Change of variables by hand: the Jacobian of the flow that was integrated, by finite differences."""
    schedule, times = vp_linear(), [0.6, 0.05]
    denoiser = MIXTURE.denoiser(schedule)
    x = torch.tensor([[0.4, -0.5]], dtype=torch.float64)
    step = 1e-4
    nudged = torch.cat([x, x + step * torch.eye(2), x - step * torch.eye(2)])
    ends = probability_flow(denoiser, schedule, nudged, times, rtol=1e-10, atol=1e-10)
    jacobian = (ends[1:3] - ends[3:5]).T / (2 * step)
    change = MIXTURE.log_prob(x, times[0], schedule) - MIXTURE.log_prob(ends[:1], times[1], schedule)
    assert change.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-5)


@pytest.mark.parametrize(
    ("values", "bits"), [(torch.arange(256), 8), (torch.arange(256) * 2 / 255 - 1, 8), (torch.tensor([0.0, 1.0]), 1)]
)
def test_bits_per_dim_of_uniform_values_are_the_logarithm_of_their_number(values, bits):
    """N equally likely values, dequantised: a uniform density over N of their steps; with 2/255 the bytes of images."""
    step = (values[1] - values[0]).item()
    nats = torch.full((1,), 10 * math.log(len(values) * step), dtype=torch.float64)  # -log p in 10 dimensions
    assert bits_per_dim(nats, 10, bin_width=step).item() == pytest.approx(bits, abs=1e-12)


def test_bits_per_dim_of_categories_need_no_bins():
    """A fair coin costs one bit, in any number of dimensions."""
    assert bits_per_dim(torch.tensor([math.log(2)]), 1).item() == pytest.approx(1)
    assert bits_per_dim(torch.tensor([7 * math.log(2)]), 7).item() == pytest.approx(1)


def test_bytes_in_the_packages_own_scale_take_eight_bits_exactly():
    nats = torch.tensor([3 * math.log(256 * BYTE_STEP)], dtype=torch.float64)
    assert bits_per_dim(nats, 3, bin_width=BYTE_STEP).item() == 8.0


def test_single_precision_and_images():
    """A batch of images in float32 gives a float32 per example, near the double one."""
    shape = (2, 1, 2, 2)
    law = GaussianLaw(torch.zeros(1, 2, 2), torch.tensor(0.3))
    x0 = torch.linspace(-1, 1, 8).reshape(shape)
    got = log_likelihood(law.denoiser(edm()), edm(), x0, probes=None)
    assert got.shape == (2,)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), law.log_prob(x0.double()), rtol=0, atol=5e-3)


def test_what_cannot_be_differentiated_is_refused():
    x0 = torch.zeros(1, 2)

    @torch.no_grad()
    def frozen(x, t, cond=None):
        return 0.5 * x

    with pytest.raises(RuntimeError, match="cut its graph"):
        log_likelihood(frozen, edm(), x0, probes=None)
    with pytest.raises(ValueError, match="pass generator="):
        log_likelihood(LAW.denoiser(edm()), edm(), x0)
    with pytest.raises(ValueError, match="falls strictly"):
        log_likelihood(LAW.denoiser(edm()), edm(), x0, t_min=0.5, t_max=0.2, probes=None)
    with pytest.raises(ValueError, match="t_min lies above 0"):
        log_likelihood(LAW.denoiser(edm()), edm(), x0, t_min=0.0, probes=None)


@pytest.mark.parametrize("sampled", [vp_linear(), ve(), edm(), rectified()], ids=lambda s: s.name)
def test_a_denoiser_that_errs_has_one_likelihood_under_every_schedule(sampled):
    """A schedule is a change of time and scale, so the same network gives the same density between the same levels."""
    trained, exact = vp_cosine(), LAW.denoiser(vp_cosine())
    x0 = LAW.sample(2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def errs(x_t, t, cond=None):
        return 0.9 * exact(x_t, t) + 0.02 * torch.sin(3 * x_t)

    def likelihood(denoiser, schedule):
        lam = torch.tensor([5.0, -3.5], dtype=torch.float64)
        t_min, t_max = schedule.time(lam).tolist()
        return log_likelihood(denoiser, schedule, x0, probes=None, rtol=1e-6, atol=1e-6, t_min=t_min, t_max=t_max)

    own = likelihood(errs, trained)
    assert (own - LAW.log_prob(x0)).abs().min() > 0.01, "the denoiser errs by more than the tolerance"
    torch.testing.assert_close(likelihood(Reschedule(errs, trained, sampled), sampled), own, rtol=0, atol=2e-3)

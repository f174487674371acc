"""The table of symbols against the papers, executed: each translation goes there and back, and means the same data."""

import pytest
import torch

from survey_lib.core import notation
from survey_lib.core.schedules import edm, rectified, vp_cosine, vp_linear

T = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)


@pytest.mark.parametrize("schedule", [vp_linear(), vp_cosine()], ids=lambda s: s.name)
def test_ddpm_there_and_back(schedule) -> None:
    alpha, sigma = schedule.scales(T)
    back = notation.from_ddpm(notation.to_ddpm(alpha, sigma))
    torch.testing.assert_close(torch.stack(back), torch.stack((alpha, sigma)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("schedule", [vp_linear(), rectified(), edm()], ids=lambda s: s.name)
def test_edm_there_and_back(schedule) -> None:
    alpha, sigma = schedule.scales(T)
    back = notation.from_edm(*notation.to_edm(alpha, sigma))
    torch.testing.assert_close(torch.stack(back), torch.stack((alpha, sigma)), rtol=1e-14, atol=0)


def test_snr_there_and_back_and_by_lam() -> None:
    alpha, sigma = vp_cosine().scales(T)
    snr = notation.to_snr(alpha, sigma)
    torch.testing.assert_close(snr, torch.exp(2 * vp_cosine().lam(T)), rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.stack(notation.from_snr(snr)), torch.stack((alpha, sigma)), rtol=1e-12, atol=0)


def test_ncsn_and_edm_agree_on_the_noise() -> None:
    """NCSN adds noise and never shrinks: it sees ``x_t / alpha``, whose noise is EDM's sigma, at the same lam."""
    alpha, sigma = rectified().scales(T)
    one, noise = notation.from_ncsn(notation.to_ncsn(alpha, sigma))
    torch.testing.assert_close((one / noise).log(), rectified().lam(T))
    assert torch.equal(noise, notation.to_edm(alpha, sigma)[1])


def test_flow_time_runs_the_other_way_and_its_scales_are_its_times() -> None:
    alpha, sigma = rectified().scales(T)
    time = notation.to_flow(T)
    torch.testing.assert_close(alpha, time)
    torch.testing.assert_close(sigma, 1 - time)
    torch.testing.assert_close(notation.from_flow(time), T)


def test_alpha_bar_of_a_schedule_that_does_not_preserve_variance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alpha\^2 \+ sigma\^2 = 1"):
        notation.to_ddpm(*rectified().scales(T))

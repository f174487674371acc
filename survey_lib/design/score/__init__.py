"""Scores and stochastic differential equations (EDS-3): what `core` leaves to tell of the third design strategy.

The score is the denoiser in other units, ``grad log p(x_t) = (alpha x0 - x_t) / sigma^2``. With it noise can be walked
down level by level (`langevin`), along an SDE (`sde`, `adaptive`) or with a velocity beside the position (`damped`);
without a denoiser it can be learned from the data directly (`matching`). Reverse SDE, predictor-corrector, probability
flow and its likelihood stand in `core.samplers` and `core.likelihood`.
"""

from survey_lib.design.score.adaptive import adaptive_sde
from survey_lib.design.score.bits import dequantise, image_bits
from survey_lib.design.score.damped import CriticallyDamped
from survey_lib.design.score.langevin import annealed_langevin, langevin, noise_times, score_of
from survey_lib.design.score.matching import (
    ScoreNet,
    denoising,
    explicit,
    fit,
    gradient_noise,
    implicit,
    noised_losses,
    sliced,
)
from survey_lib.design.score.sde import Trajectories, ddpm_sde_ode, ks_critical_value, ks_distance, mixture_cdf, sub_vp
from survey_lib.design.score.spectrum import (
    Filter,
    Whitening,
    contraction,
    one_over_f,
    power_spectrum,
    spectral_law,
)
from survey_lib.design.score.spots import mode_divergence, mode_frequencies, shape_error

__all__ = [
    "CriticallyDamped",
    "Filter",
    "ScoreNet",
    "Trajectories",
    "Whitening",
    "adaptive_sde",
    "annealed_langevin",
    "contraction",
    "ddpm_sde_ode",
    "denoising",
    "dequantise",
    "explicit",
    "fit",
    "gradient_noise",
    "image_bits",
    "implicit",
    "ks_critical_value",
    "ks_distance",
    "langevin",
    "mixture_cdf",
    "mode_divergence",
    "mode_frequencies",
    "noise_times",
    "noised_losses",
    "one_over_f",
    "power_spectrum",
    "score_of",
    "shape_error",
    "sliced",
    "spectral_law",
    "sub_vp",
]

"""Scores and stochastic differential equations (EDS-3): what `core` leaves to tell of the third design strategy.

The score is the denoiser in other units, ``grad log p(x_t) = (alpha x0 - x_t) / sigma^2``. With it noise can be walked
down level by level (`langevin`), along an SDE (`sde`, `adaptive`) or with a velocity beside the position (`damped`);
without a denoiser it can be learned from the data directly (`matching`). Reverse SDE, predictor-corrector, probability
flow and its likelihood stand in `core.samplers` and `core.likelihood`.
"""

from survey_lib.design.score.adaptive import adaptive_sde
from survey_lib.design.score.bits import dequantise, image_bits
from survey_lib.design.score.damped import Damped
from survey_lib.design.score.langevin import annealed_langevin, langevin, noise_times, score_of
from survey_lib.design.score.matching import (
    ScoreNet,
    denoising,
    explicit,
    fit,
    implicit,
    noised_losses,
    sliced,
    vote_scatter,
)
from survey_lib.design.score.sde import Views, cdf_gap, chance_gap, mixture_cdf, sub_vp, three_views
from survey_lib.design.score.spectrum import (
    Filter,
    Whitening,
    contraction,
    one_over_f,
    power_spectrum,
    spectral_law,
)
from survey_lib.design.score.spots import shape_error, share_divergence, shares

__all__ = [
    "Damped",
    "Filter",
    "ScoreNet",
    "Views",
    "Whitening",
    "adaptive_sde",
    "annealed_langevin",
    "cdf_gap",
    "chance_gap",
    "contraction",
    "denoising",
    "dequantise",
    "explicit",
    "fit",
    "image_bits",
    "implicit",
    "langevin",
    "mixture_cdf",
    "noise_times",
    "noised_losses",
    "one_over_f",
    "power_spectrum",
    "score_of",
    "shape_error",
    "share_divergence",
    "shares",
    "sliced",
    "spectral_law",
    "sub_vp",
    "three_views",
    "vote_scatter",
]

"""Scores and stochastic differential equations (EDS-3): the parts that are not in `core`.

The score is the denoiser in other units, ``grad log p(x_t) = (alpha x0 - x_t) / sigma^2``.

* `langevin`: Langevin steps at one noise level, and annealed Langevin dynamics (NCSN);
* `spectrum`: Langevin steps preconditioned by the spectrum of images (PDS);
* `sde`: the sub-VP SDE; one process as DDPM's chain, as SDE and as ODE;
* `adaptive_sde`: the reverse SDE with step sizes from an error estimate (Gotta Go Fast);
* `critically_damped`: diffusion with a velocity (CLD);
* `score_matching`: losses that learn a score from samples;
* `likelihood`: bits per dimension of images;
* `distances`: distances between samples and a known distribution.

The reverse SDE, predictor-corrector sampling and the probability flow are in `core.samplers` and `core.likelihood`.
"""

from survey_lib.design.score.adaptive_sde import adaptive_sde
from survey_lib.design.score.critically_damped import CriticallyDamped
from survey_lib.design.score.distances import (
    ks_critical_value,
    ks_distance,
    mixture_cdf,
    mode_divergence,
    mode_frequencies,
    shape_error,
)
from survey_lib.design.score.langevin import annealed_langevin, langevin, noise_times, score_of
from survey_lib.design.score.likelihood import dequantise, image_bits
from survey_lib.design.score.score_matching import (
    ScoreNet,
    denoising,
    explicit,
    fit,
    gradient_noise,
    implicit,
    noised_losses,
    sliced,
)
from survey_lib.design.score.sde import Trajectories, ddpm_sde_ode, sub_vp
from survey_lib.design.score.spectrum import (
    Filter,
    Whitening,
    contraction,
    one_over_f,
    power_spectrum,
    spectral_law,
)

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

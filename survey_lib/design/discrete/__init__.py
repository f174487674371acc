"""Discrete diffusion (EDS-2): the same loop where data are integers, and what is gained and lost by it.

* `denoisers`: a network as a denoiser of categories, D3PM's loss, the exact bound, guidance of categories;
* `bits`: integers as real-valued bits in an ordinary diffusion, with self-conditioning (Analog Bits);
* `tokens`: masks filled in by confidence, several at a time, or one after another (VQ-Diffusion, MaskGIT);
* `jumps`: chains in continuous time, tau-leaping and its corrector;
* `paths`: the bound of a Gaussian chain in continuous time, along any path of noise levels (VDM);
* `neighbours`: a count of tokens that do not fit.

The chains themselves are in `survey_lib.core.categorical`.
"""

from survey_lib.design.discrete.bits import (
    Asymmetric,
    Remembering,
    from_bits,
    self_conditioned_loss,
    to_bits,
)
from survey_lib.design.discrete.denoisers import (
    CategoricalDenoiser,
    LogitGuidance,
    bound_in_bits,
    chain_steps,
    cross_entropy,
    hybrid_loss,
)
from survey_lib.design.discrete.jumps import START, TauLeaping, leap, rates, reverse_rates, tau_leaping
from survey_lib.design.discrete.neighbours import strangers
from survey_lib.design.discrete.paths import along, bound_terms, learned_path
from survey_lib.design.discrete.tokens import (
    Ordered,
    anywhere,
    autoregressive,
    confidence,
    cosine_times,
    left_to_right,
    log_likelihood,
    purity,
)

__all__ = [
    "START",
    "Asymmetric",
    "CategoricalDenoiser",
    "LogitGuidance",
    "Ordered",
    "Remembering",
    "TauLeaping",
    "along",
    "anywhere",
    "autoregressive",
    "bound_in_bits",
    "bound_terms",
    "chain_steps",
    "confidence",
    "cosine_times",
    "cross_entropy",
    "from_bits",
    "hybrid_loss",
    "leap",
    "learned_path",
    "left_to_right",
    "log_likelihood",
    "purity",
    "rates",
    "reverse_rates",
    "self_conditioned_loss",
    "strangers",
    "tau_leaping",
    "to_bits",
]

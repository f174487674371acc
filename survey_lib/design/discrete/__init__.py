"""Discrete diffusion (EDS-2): denoisers, losses and samplers of categorical data.

* `denoisers`: networks as denoisers of categories, D3PM's loss, the exact bound, guidance of logits;
* `analog_bits`: integers as real-valued bits in a Gaussian diffusion, self-conditioning, asymmetric time intervals;
* `decoding`: masked tokens decoded several at a time by confidence (MaskGIT), or autoregressively;
* `tau_leaping`: chains in continuous time, tau-leaping and its corrector;
* `unseen_pairs`: the fraction of adjacent token pairs that never occur in real data.

The chains themselves are in `survey_lib.core.categorical`.
"""

from survey_lib.design.discrete.analog_bits import (
    AsymmetricTime,
    SelfConditioned,
    from_bits,
    self_conditioned_loss,
    to_bits,
)
from survey_lib.design.discrete.decoding import (
    ConfidenceDecoding,
    autoregressive,
    confidence,
    cosine_times,
    log_likelihood,
    purity,
    random_order,
    raster_order,
)
from survey_lib.design.discrete.denoisers import (
    CategoricalDenoiser,
    LogitGuidance,
    bound_in_bits,
    chain_steps,
    cross_entropy,
    hybrid_loss,
)
from survey_lib.design.discrete.tau_leaping import START, TauLeaping, rates, reverse_rates, tau_leap, tau_leaping
from survey_lib.design.discrete.unseen_pairs import unseen_pair_rate

__all__ = [
    "START",
    "AsymmetricTime",
    "CategoricalDenoiser",
    "ConfidenceDecoding",
    "LogitGuidance",
    "SelfConditioned",
    "TauLeaping",
    "autoregressive",
    "bound_in_bits",
    "chain_steps",
    "confidence",
    "cosine_times",
    "cross_entropy",
    "from_bits",
    "hybrid_loss",
    "log_likelihood",
    "purity",
    "random_order",
    "raster_order",
    "rates",
    "reverse_rates",
    "self_conditioned_loss",
    "tau_leap",
    "tau_leaping",
    "to_bits",
    "unseen_pair_rate",
]

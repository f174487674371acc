"""Training strategies (EPS-1).

* `emphasis`: distributions of noise levels and weights of the loss, which are one choice seen twice;
* `distillation`: students that take fewer steps than their teacher;
* `variances`: learned variances of the reverse steps;
* `bound`: the variational bound in continuous time, estimated along any path of noise levels (VDM).
"""

from survey_lib.process.training.bound import Path, bound_terms, min_variance_path, schedule_path
from survey_lib.process.training.distillation import (
    TwoSteps,
    consistency_loss,
    guided_loss,
    pair_loss,
    progressive_loss,
)
from survey_lib.process.training.emphasis import (
    LogNormalLevels,
    TimeLevels,
    emphasis,
    min_snr_weight,
    p2_weight,
    reweighted,
    truncated_snr_weight,
    weighted_loss,
)
from survey_lib.process.training.variances import LearnedVariance, interpolated_variance, variance_loss

__all__ = [
    "LearnedVariance",
    "LogNormalLevels",
    "Path",
    "TimeLevels",
    "TwoSteps",
    "bound_terms",
    "consistency_loss",
    "emphasis",
    "guided_loss",
    "interpolated_variance",
    "min_snr_weight",
    "min_variance_path",
    "p2_weight",
    "pair_loss",
    "progressive_loss",
    "reweighted",
    "schedule_path",
    "truncated_snr_weight",
    "variance_loss",
    "weighted_loss",
]

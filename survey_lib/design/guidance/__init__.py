"""Guidance (EDS-1): denoisers that trade diversity for fidelity, what the studies change in them, and exact laws.

* `wrappers`: the formulas that all of it is made of, and where the scale is explained.
* `studies`: which scale (ED-DPM), which training (DLSM), which weaker answer (SAG).
* `methods`: all of them by name, for comparisons.
* `exact`: the labels of a mixture, the tilted law, and the density of what guidance samples instead.
"""

from survey_lib.design.guidance.exact import ExactLabels, Tilted, guided_error, guided_log_prob
from survey_lib.design.guidance.methods import GuidanceMethod, guidance_methods
from survey_lib.design.guidance.studies import (
    EntropyScaled,
    SelfGuidance,
    blur,
    entropy,
    entropy_constraint,
    likelihood_score_loss,
)
from survey_lib.design.guidance.wrappers import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    DynamicThreshold,
    Guidance,
    Interval,
    Rescaled,
)

__all__ = [
    "Autoguidance",
    "Classifier",
    "ClassifierFree",
    "DynamicThreshold",
    "EntropyScaled",
    "ExactLabels",
    "Guidance",
    "GuidanceMethod",
    "Interval",
    "Rescaled",
    "SelfGuidance",
    "Tilted",
    "blur",
    "entropy",
    "entropy_constraint",
    "guidance_methods",
    "guided_error",
    "guided_log_prob",
    "likelihood_score_loss",
]

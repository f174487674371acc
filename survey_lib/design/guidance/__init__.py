"""Guidance (EDS-1): denoisers that trade diversity for fidelity. They nest, and every sampler accepts them.

* `base`: the scale, which has one meaning in all methods;
* `classifier`: classifier guidance, its scale by entropy (ED-DPM), its training for the gradient (DLSM);
* `classifier_free`: classifier-free guidance, autoguidance, guidance by a blurred prediction (SAG);
* `corrections`: intervals of noise levels, rescaled contrast, dynamic thresholding;
* `exact`: exact labels of a mixture, the tilted distribution, and the density that guidance samples instead;
* `methods`: all of them by name, for comparisons.
"""

from survey_lib.design.guidance.base import Guidance
from survey_lib.design.guidance.classifier import (
    Classifier,
    EntropyScaled,
    entropy,
    entropy_constraint,
    likelihood_score_loss,
)
from survey_lib.design.guidance.classifier_free import Autoguidance, ClassifierFree, SelfGuidance, blur
from survey_lib.design.guidance.corrections import DynamicThreshold, Interval, Rescaled
from survey_lib.design.guidance.exact import ExactLabels, Tilted, guided_error, guided_log_prob
from survey_lib.design.guidance.methods import GuidanceMethod, guidance_methods

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

"""Guidance methods by name: each makes a denoiser from networks and a scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule
from survey_lib.design.guidance.classifier import Classifier, EntropyScaled
from survey_lib.design.guidance.classifier_free import Autoguidance, ClassifierFree, SelfGuidance, guided
from survey_lib.design.guidance.corrections import DynamicThreshold, Interval, Rescaled

Nets = Callable[[str], Denoiser]  #: returns the network of a role: "base", "conditional" or "weak"
GuidanceMethod = Callable[[Nets, float], Denoiser]


def guidance_methods(
    schedule: Schedule,
    labels: Any,
    clean: Callable[[Tensor, Tensor | float, Any], Tensor],
    null: int,
    interval: tuple[float, float],
) -> dict[str, GuidanceMethod]:
    """Every guidance method by name, called as ``methods[name](net, scale)``.

    labels: a `LabelPosterior` of noisy data, which guides the "base" network.
    clean: ``log_prob`` of a classifier of clean data.
    null: the label for "no condition" of the "conditional" network, which classifier-free methods guide.
    interval: bounds of sigma / alpha for `Interval`.

    Classifier-free guidance at scale 1 is the conditional network; classifier guidance at scale 0 is the base network.
    """

    def free(net: Nets, scale: float) -> Any:
        return guided(net("conditional"), null, scale)

    def rescaled(net: Nets, scale: float) -> Denoiser:
        strong = free(net, scale)
        return strong if scale == 1 else Rescaled(strong)  # at scale 1 the contrast is right already

    def steered(net: Nets, scale: float) -> Denoiser:
        plain = net("base")
        return plain if scale == 0 else Classifier(plain, labels.log_prob, schedule, scale)

    def within(net: Nets, scale: float) -> Denoiser:
        strong = net("conditional")
        return Interval(ClassifierFree(strong, null, scale), strong, schedule, *interval)

    return {
        "classifier-free": free,
        "interval": within,
        "autoguidance": lambda net, scale: Autoguidance(net("conditional"), net("weak"), scale),
        "rescaled": rescaled,
        "thresholded": lambda net, scale: DynamicThreshold(free(net, scale)),
        "classifier": steered,
        "clean classifier": lambda net, scale: Classifier(net("base"), clean, schedule, scale),
        "entropy-scaled": lambda net, scale: EntropyScaled(net("base"), labels, schedule, scale),
        "contrastive": lambda net, scale: Classifier(net("base"), labels.similarity, schedule, scale),
        "blurred": lambda net, scale: SelfGuidance(net("base"), schedule, scale),
        "blurred, sharpening": lambda net, scale: SelfGuidance(net("base"), schedule, scale, extrapolated="x0"),
    }

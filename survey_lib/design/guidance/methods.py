"""Guidance methods by name: each makes a denoiser from networks and a scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule
from survey_lib.design.guidance.studies import EntropyScaled, SelfGuidance
from survey_lib.design.guidance.wrappers import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    DynamicThreshold,
    Interval,
    Rescaled,
)

Nets = Callable[[str], Denoiser]  #: gives the network of a role: "base", "conditional" or "weak"
GuidanceMethod = Callable[[Nets, float], Denoiser]


def guidance_methods(
    schedule: Schedule,
    labels: Any,
    clean: Callable[[Tensor, Tensor | float, Any], Tensor],
    null: int,
    interval: tuple[float, float],
) -> dict[str, GuidanceMethod]:
    """Every guidance method by name, called as ``methods[name](net, scale)``.

    Classifier-free methods guide the "conditional" network, classifiers the "base" network. ``labels`` is a
    `LabelPosterior` of noisy data, ``clean`` the ``log_prob`` of a classifier of clean data. At scale 1 classifier-free
    guidance is the conditional network itself; at scale 0 classifier guidance is the base network itself.
    """

    def free(net: Nets, scale: float) -> Any:
        strong = net("conditional")
        return strong if scale == 1 else ClassifierFree(strong, null, scale)

    def rescaled(net: Nets, scale: float) -> Denoiser:
        loud = free(net, scale)
        return loud if scale == 1 else Rescaled(loud)  # unguided, it has the contrast that it should have

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

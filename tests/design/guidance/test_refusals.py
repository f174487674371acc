"""Bad input of guidance is refused in one sentence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import edm, rectified
from survey_lib.design.guidance import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    DynamicThreshold,
    EntropyScaled,
    ExactLabels,
    Interval,
    Rescaled,
    SelfGuidance,
    Tilted,
    blur,
)
from tests.design.guidance.support import ANY, MEANS


def nothing(x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
    return x_t


X, Y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)
REFUSED = {
    "scale": (lambda: ClassifierFree(nothing, ANY, math.nan), ValueError, "scale must be a finite number"),
    "scale in two dimensions": (lambda: Autoguidance(nothing, nothing, X), ValueError, "scale must be a finite number"),
    "endless scale": (
        lambda: Classifier(nothing, nothing, edm(), math.inf),
        ValueError,
        "scale must be a finite number",
    ),
    "scales of other examples": (
        lambda: Autoguidance(nothing, nothing, torch.ones(2))(X, 0.5),
        ValueError,
        r"one for each of 3 examples; got \(2,\)",
    ),
    "no condition": (lambda: ClassifierFree(nothing, ANY, 2.0)(X, 0.5), ValueError, "pass cond="),
    "no class": (lambda: Classifier(nothing, nothing, edm(), 2.0)(X, 0.5), ValueError, "pass cond="),
    "pure noise": (
        lambda: Classifier(nothing, nothing, rectified(), 2.0)(X, 1.0, Y),
        ValueError,
        "guidance divides by alpha",
    ),
    "logits": (lambda: Classifier(nothing, nothing, edm(), 2.0)(X, 0.5, Y), ValueError, r"shape \(3,\).*got .*3, 2"),
    "a cut graph": (
        lambda: Classifier(nothing, lambda x, t, y: x.detach().sum(1), edm(), 2.0)(X, 0.5, Y),
        ValueError,
        "detached from x_t",
    ),
    "an empty interval": (lambda: Interval(nothing, nothing, edm(), 2.0, 1.0), ValueError, "0 <= low < high"),
    "no number": (lambda: Interval(nothing, nothing, edm(), math.nan, 1.0), ValueError, "0 <= low < high"),
    "nothing to take contrast from": (lambda: Rescaled(nothing), TypeError, "needs a Guidance.*got function"),
    "mix": (lambda: Rescaled(Autoguidance(nothing, nothing, 2.0), 1.1), ValueError, "mix must lie in .0, 1."),
    "percentile": (lambda: DynamicThreshold(nothing, 101), ValueError, "percentile must lie in"),
    "a law without labels": (
        lambda: ExactLabels(GaussianMixture(MEANS, scales=1.0), edm()),
        ValueError,
        "numbered 0, 1, 2",
    ),
    "labels with a gap": (
        lambda: ExactLabels(GaussianMixture(MEANS, scales=1.0, labels=torch.tensor([0, 2, 2])), edm()),
        ValueError,
        "without a gap",
    ),
    "no label to ask for": (
        lambda: GaussianMixture(MEANS, scales=1.0).label_log_probs(MEANS, 0.5, edm()),
        ValueError,
        "has no labels",
    ),
    "a law in space": (
        lambda: Tilted(GaussianMixture(torch.zeros(1, 3), scales=1.0, labels=torch.zeros(1)), 0, 2.0),
        ValueError,
        r"a line or a plane.*\(3,\)",
    ),
    "no blur": (lambda: blur(torch.zeros(1, 1, 8, 8), 0.0), ValueError, "positive number of pixels; got 0"),
    "extrapolated": (lambda: SelfGuidance(None, edm(), 2.0, blur, "v"), ValueError, "must be .eps. or .x0.; got 'v'"),
    "limit": (lambda: EntropyScaled(None, None, edm(), 2.0, limit=0.5), ValueError, "at least 1; got 0.5"),
    "a scale by entropy": (
        lambda: EntropyScaled(None, None, edm(), math.inf),
        ValueError,
        "scale must be a finite number",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence(case):
    action, error, words = REFUSED[case]
    with pytest.raises(error, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)

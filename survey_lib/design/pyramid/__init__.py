"""Pyramids: one scale after the other, each at its own size."""

from survey_lib.design.pyramid.stages import Stage, enlarge, enlarged, lifted, noise, renoised, sample_pyramid
from survey_lib.design.pyramid.wavelets import Scale, divergence, haar, scales, steps_needed, unhaar

__all__ = [
    "Scale", "Stage", "divergence", "enlarge", "enlarged", "haar", "lifted", "noise", "renoised", "sample_pyramid",
    "scales", "steps_needed", "unhaar",
]  # fmt: skip

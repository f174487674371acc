"""Pyramids: one scale after the other, each at its own size."""

from survey_lib.design.pyramid.wavelets import Scale, divergence, haar, scales, steps_needed, unhaar

__all__ = ["Scale", "divergence", "haar", "scales", "steps_needed", "unhaar"]

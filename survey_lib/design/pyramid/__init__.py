"""Pyramids: one scale after the other, each at its own size."""

from survey_lib.design.pyramid.cascade import Cascade, OneScale, PooledPyramid, Switched, pack, pooled_time, unpack
from survey_lib.design.pyramid.deblurring import ByBand
from survey_lib.design.pyramid.frido import Frido
from survey_lib.design.pyramid.stages import Stage, enlarge, enlarged, lifted, noise, renoised, sample_pyramid
from survey_lib.design.pyramid.wavelets import Scale, divergence, haar, scales, steps_needed, unhaar

__all__ = [
    "ByBand", "Cascade", "Frido", "OneScale", "PooledPyramid", "Scale", "Stage", "Switched", "divergence", "enlarge",
    "enlarged", "haar", "lifted", "noise", "pack", "pooled_time", "renoised", "sample_pyramid", "scales",
    "steps_needed", "unhaar", "unpack",
]  # fmt: skip

"""Frido (Fan et al. 2022): a cascade in latents whose coarse scale was trained to be a plan."""

from __future__ import annotations

from dataclasses import dataclass

from survey_lib.design.pyramid.cascade import Cascade


@dataclass(frozen=True, eq=False)
class Frido(Cascade):
    """A `Cascade` of latents with codes at two scales (`PyramidAutoencoder`) and one `PyramidUNet` for both."""

"""Latent diffusion: conditions, what the smaller space costs and saves, and the pipeline from noise to image."""

from survey_lib.design.latent.layout import empty, paint
from survey_lib.design.latent.pipeline import Known, LatentDiffusion
from survey_lib.design.latent.principal import decoded_distance, lost_variance

__all__ = ["Known", "LatentDiffusion", "decoded_distance", "empty", "lost_variance", "paint"]

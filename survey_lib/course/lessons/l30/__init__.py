"""Lesson 30: latent diffusion from nothing to a caption."""

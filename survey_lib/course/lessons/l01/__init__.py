"""Lesson 01: denoising diffusion from nothing."""

"""Lesson 14: latent spaces."""

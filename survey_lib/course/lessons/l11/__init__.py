"""Lesson 11: discrete diffusion."""

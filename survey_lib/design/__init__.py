"""Efficient Design Strategies: a room for each of the survey's ways to build a diffusion model for less."""

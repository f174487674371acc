"""Latent diffusion: autoencoders, layouts and captions as conditions, and what the smaller space buys."""

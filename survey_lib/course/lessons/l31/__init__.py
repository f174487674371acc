"""Lesson 31: Frido, a pyramid of latents."""

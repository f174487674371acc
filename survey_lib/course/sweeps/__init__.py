"""One lesson over a grid of parameters."""

"""Training, checkpoints, and the recipes of the shipped ones."""

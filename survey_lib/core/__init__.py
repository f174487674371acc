"""The mathematics: schedules, grids, exact models, corruptions, heads, losses, samplers, integrators."""

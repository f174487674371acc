"""Schedules and grids chosen after training (EPS-4): one frozen denoiser, many ways to walk with it.

* `chains`: sub-sequences of a chain, FastDPM's continuous steps, the variance that is free, a start below t = 1;
* `bounds`: what each step adds to the variational bound, and the best grid of every length by dynamic programming;
* `search`: where the error of a grid arises, coordinate search and brute force on any measure of a grid;
* `learned`: grids and coefficients found by gradients, through the sampler or from the bound.
"""

from survey_lib.process.scheduling.bounds import BoundTable, ShortestPaths, bound_table, shortest_paths
from survey_lib.process.scheduling.chains import (
    DenoisingError,
    come_closer,
    denoising_error,
    nearest,
    optimal_variance,
    projected,
    subsequence,
    variance_grid,
)
from survey_lib.process.scheduling.learned import LearnedSampler, StepNetwork, fit, kernel_distance
from survey_lib.process.scheduling.search import (
    Search,
    coordinate_search,
    error_by_step,
    exhaustive_search,
    resample_grid,
    trajectory_error,
)

__all__ = [
    "BoundTable",
    "DenoisingError",
    "LearnedSampler",
    "Search",
    "ShortestPaths",
    "StepNetwork",
    "bound_table",
    "come_closer",
    "coordinate_search",
    "denoising_error",
    "error_by_step",
    "exhaustive_search",
    "fit",
    "kernel_distance",
    "nearest",
    "optimal_variance",
    "projected",
    "resample_grid",
    "shortest_paths",
    "subsequence",
    "trajectory_error",
    "variance_grid",
]

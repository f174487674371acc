"""Schedules and grids chosen after training (EPS-4): one frozen denoiser, many ways to walk with it.

* `chains`: sub-sequences of a chain, FastDPM's continuous steps, the variance that is free, a start below t = 1;
* `bounds`: what each step adds to the variational bound, and the best grid of every length by dynamic programming;
* `search`: where the error of a grid arises, coordinate search and brute force on any measure of a grid;
* `learned`: grids and coefficients found by gradients, through the sampler or from the bound.
"""

from survey_lib.process.scheduling.bounds import Paths, Table, bound_table, cheapest_paths
from survey_lib.process.scheduling.chains import (
    Probe,
    come_closer,
    consistent,
    nearest,
    optimal_variance,
    probe,
    subsequence,
    variance_grid,
)
from survey_lib.process.scheduling.learned import FewSteps, StepNetwork, kernel_distance, learn
from survey_lib.process.scheduling.search import (
    Search,
    coordinate_search,
    error_by_step,
    exhaustive_search,
    stretched,
    trajectory_error,
)

__all__ = [
    "FewSteps",
    "Paths",
    "Probe",
    "Search",
    "StepNetwork",
    "Table",
    "bound_table",
    "cheapest_paths",
    "come_closer",
    "consistent",
    "coordinate_search",
    "error_by_step",
    "exhaustive_search",
    "kernel_distance",
    "learn",
    "nearest",
    "optimal_variance",
    "probe",
    "stretched",
    "subsequence",
    "trajectory_error",
    "variance_grid",
]

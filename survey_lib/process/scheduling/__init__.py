"""Schedules and grids chosen after training (EPS-4), for one frozen denoiser.

* `subsequences`: sub-sequences of a chain (DDIM), FastDPM's continuous steps, a start below t = 1 (CCDF);
* `variances`: optimal variances of the reverse steps (Analytic-DPM);
* `bounds`: the cost of each step in the variational bound, and the optimal grid of every length;
* `search`: error of a grid by step, and coordinate search on any objective;
* `learned`: grids and coefficients learned by gradients, through the sampler or from the bound.
"""

from survey_lib.process.scheduling.bounds import BoundTable, ShortestPaths, bound_table, shortest_paths
from survey_lib.process.scheduling.learned import LearnedSampler, StepNetwork, fit
from survey_lib.process.scheduling.search import (
    Search,
    coordinate_search,
    error_by_step,
    resample_grid,
    trajectory_error,
)
from survey_lib.process.scheduling.subsequences import come_closer, nearest, projected, subsequence, variance_grid
from survey_lib.process.scheduling.variances import DenoisingError, denoising_error, optimal_variance

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
    "fit",
    "nearest",
    "optimal_variance",
    "projected",
    "resample_grid",
    "shortest_paths",
    "subsequence",
    "trajectory_error",
    "variance_grid",
]

"""Data distributions with closed-form denoisers, scores and densities: the ground truth of lessons and tests.

They share these methods. ``x_t`` is (B, *event) in any dtype, ``t`` is () or (B,); arithmetic is in float64 and the
result has the dtype of ``x_t``. A Gaussian corruption may stand for its ``schedule``.

* ``denoiser(schedule)``: ``E[x0 | x_t]`` as a `Denoiser`;
* ``score(x_t, t, schedule)``: ``grad log p_t(x_t)``;
* ``log_prob(x0)`` and ``log_prob(x_t, t, schedule)``: (B,), in nats, of clean and of noised data;
* ``sample(n, generator=)`` from the data, ``sample_posterior(x_t, t, schedule, generator=)`` from ``p(x0 | x_t)``.

`CategoricalTable` is the categorical counterpart: it takes a ``Categorical`` corruption for the schedule.
"""

from survey_lib.core.exact.categorical import CategoricalTable
from survey_lib.core.exact.empirical import Empirical
from survey_lib.core.exact.gaussian import GaussianLaw, GaussianMixture

__all__ = ["CategoricalTable", "Empirical", "GaussianLaw", "GaussianMixture"]

"""Training strategies (EPS-1).

* `bound`: the variational bound in continuous time, estimated along any path of noise levels (VDM).
"""

from survey_lib.process.training.bound import Path, bound_terms, min_variance_path, schedule_path

__all__ = ["Path", "bound_terms", "min_variance_path", "schedule_path"]

"""Experiments, the store of their results, and the fingerprints of the code behind them."""

from survey_lib.lab.experiments.experiment import Experiment, product
from survey_lib.lab.experiments.results import Missing, Results

__all__ = ["Experiment", "Missing", "Results", "product"]

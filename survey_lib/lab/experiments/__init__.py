"""Experiments, the store of their results, and the fingerprints of the code behind them."""

from survey_lib.lab.experiments.experiment import Experiment, Missing, Results, product

__all__ = ["Experiment", "Missing", "Results", "product"]

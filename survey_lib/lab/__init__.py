"""Tools of an experiment: data, training, evaluation, records of results, plots, widgets."""

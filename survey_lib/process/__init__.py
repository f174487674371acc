"""Efficient Process Strategies of the survey, one package for each lesson: training, noise, scheduling."""

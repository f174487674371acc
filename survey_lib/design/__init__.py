"""Efficient Design Strategies of the survey, one package for each lesson: guidance, discrete data, scores and SDEs."""

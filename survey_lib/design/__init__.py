"""Efficient Design Strategies of the survey, one module a strategy."""

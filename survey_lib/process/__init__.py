"""Efficient Process Strategies of the survey, one module a strategy."""

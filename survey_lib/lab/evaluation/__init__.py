"""Metrics, their intervals, costs, and the solvers that are compared."""

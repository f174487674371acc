"""Lesson 25: solvers."""

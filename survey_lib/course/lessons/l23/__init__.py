"""Lesson 23: noise schedules and grids."""

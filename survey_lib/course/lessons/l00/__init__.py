"""Lesson 00: the map of the survey."""

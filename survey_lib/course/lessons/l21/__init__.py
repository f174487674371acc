"""Lesson 21: noise of other kinds, and none."""

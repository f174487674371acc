"""Lesson 12: scores and differential equations."""

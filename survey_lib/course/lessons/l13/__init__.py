"""Lesson 13: pyramids, or one scale after the other."""

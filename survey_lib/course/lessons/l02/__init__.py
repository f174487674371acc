"""Lesson 02: measuring."""

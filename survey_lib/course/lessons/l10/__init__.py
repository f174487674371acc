"""Lesson 10: guidance."""

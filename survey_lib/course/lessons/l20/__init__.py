"""Lesson 20: weights and levels of a training, learned variances, and students."""

"""Measurements: what is measured, on record, and by which code."""

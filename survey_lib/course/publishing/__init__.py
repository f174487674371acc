"""Notebooks, runs, outputs, pages and assignments."""

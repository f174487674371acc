"""Code of single lessons: a folder for each lesson, with its exercises."""

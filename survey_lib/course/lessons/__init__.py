"""Code that belongs to one lesson alone: a folder a lesson, with its exercises."""

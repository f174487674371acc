"""survey_lib: *Efficient Diffusion Models for Vision* (arXiv 2210.09292) as a course that runs."""

from survey_lib import home

__version__ = "0.1.0"

home.settle()

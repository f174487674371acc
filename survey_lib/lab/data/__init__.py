"""Data sets in memory: `load` returns any of them by name, as an `images.ImageSet`."""

from survey_lib.lab.data.sets import load

__all__ = ["load"]

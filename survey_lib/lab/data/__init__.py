"""Data sets: `load` gives any of them by name, as an `ImageSet` in memory."""

from survey_lib.lab.data.glyphs import DIGITS, FACES, LETTERS, glyphs
from survey_lib.lab.data.images import ImageSet, resize, to_float, to_uint8
from survey_lib.lab.data.sets import load

__all__ = ["DIGITS", "FACES", "LETTERS", "ImageSet", "glyphs", "load", "resize", "to_float", "to_uint8"]

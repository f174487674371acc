"""The survey as a map: seventy studies, what each changes in the one loop, and which lesson shows it.

::

    atlas.load()                       # a DataFrame, a study a row
    atlas.figure()                     # the map
    atlas.figure(part="grid")          # the same, with one part of the loop lit
    atlas.explorer()                   # choose, and read

A study *represents* its strategy. The survey is confirmed to name those whose ``standing`` says so.
"""

from survey_lib.course.atlas.data import (
    EVIDENCE,
    LESSONS,
    PARTS,
    QUESTIONS,
    STRATEGIES,
    bibliography,
    choose,
    later,
    lesson_file,
    load,
    questions,
)
from survey_lib.course.atlas.explorer import Explorer, cards, explorer
from survey_lib.course.atlas.map import PART_COLOURS, figure

__all__ = [
    "EVIDENCE",
    "LESSONS",
    "PARTS",
    "PART_COLOURS",
    "QUESTIONS",
    "STRATEGIES",
    "Explorer",
    "bibliography",
    "cards",
    "choose",
    "explorer",
    "figure",
    "later",
    "lesson_file",
    "load",
    "questions",
]

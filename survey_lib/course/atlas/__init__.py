"""Map of the survey: seventy studies, the part of the sampling loop that each changes, and the lesson that shows it.

::

    atlas.load()                       # a DataFrame with a row for each study
    atlas.figure()                     # the map
    atlas.figure(part="grid")          # the map with the studies of one part highlighted
    atlas.explorer()                   # menus, and the chosen studies

A study *represents* its strategy; ``standing`` states whether the survey is confirmed to name it.
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

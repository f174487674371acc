"""``python -m survey_lib`` is the command ``survey``."""

from survey_lib.course.cli import main

main(prog_name="survey")

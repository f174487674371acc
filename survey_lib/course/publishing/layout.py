"""The shell of every page: style, the links to its neighbours, and the status of a run in one line."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple

from pygments.formatters import HtmlFormatter

from survey_lib.course.publishing.runner import Outcome

COURSE = "Efficient diffusion models for vision"


def page(title: str, body: str) -> str:
    """A whole page that loads nothing: ``body`` under the course's style, light or dark as the reader's system asks."""
    style = resources.files(__package__).joinpath("page.css").read_text()
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("friendly", "github-dark"))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{style}\n</style></head>\n"
        f'<body><a class="skip" href="#text">Skip to the text</a>{body}</body></html>\n'
    )


def bar(before: Outcome | None, after: Outcome | None) -> str:
    """The line at the top: home, and the numbers of the lessons before and after."""
    back = _step(before, "← {number}", "prev") + _step(after, "{number} →", "next")
    return (
        f'<nav class="bar" aria-label="Course"><a class="home" href="index.html">{COURSE}</a>'
        f'<span class="steps">{back}</span></nav>'
    )


def foot(outcome: Outcome, before: Outcome | None, after: Outcome | None) -> str:
    """The end of a lesson's page: the titles of its neighbours, and how to solve the lesson."""
    own = f'<a href="notebooks/{outcome.lesson}.ipynb">this page as a notebook</a>'
    solve = f"<code>survey lab {outcome.number}</code> opens it without the solutions"
    steps = _step(before, "← {number} {title}", "prev") + _step(after, "{number} {title} →", "next")
    return f'<footer><p class="steps">{steps}</p><p>{own}; {solve}</p></footer>'


def status(outcome: Outcome, claims: str = "") -> str:
    """The status of a run in one line, with the counts of verdicts in words; a failure adds a second line."""
    given = [
        f"{name} {outcome.parameters[name]}" for name in ("profile", "dataset", "seed") if name in outcome.parameters
    ]
    parts = [
        f"<b>{'Ran to its end' if outcome.passed else 'Failed'}</b> in {outcome.minutes:.1f} min",
        f"{outcome.checks_passed} of {outcome.checks} checks passed",
        escape(", ".join(given)),
        escape(f"claims: {claims}") if claims else "",
    ]
    error = f'<br><span class="error">{escape(outcome.error)}</span>' if outcome.error else ""
    return f'<p class="status {outcome.status}">{" · ".join(filter(None, parts))}{error}</p>'


class Verdicts(NamedTuple):
    """Counts of the verdicts on claims, in words: by the number of a lesson, and of the whole course."""

    lessons: Mapping[str, str] = MappingProxyType({})
    course: str = ""


def verdicts() -> Verdicts:
    """Count the verdicts that all claims have now."""
    from survey_lib.course import claims

    found = claims.verdicts()
    lessons = dict.fromkeys(one.claim.lesson for one in found)
    own = {lesson: claims.in_words(one for one in found if one.claim.lesson == lesson) for lesson in lessons}
    return Verdicts(own, claims.in_words(found) if found else "")


def _step(outcome: Outcome | None, form: str, direction: str) -> str:
    if outcome is None:
        return ""
    text = form.format(number=outcome.number, title=outcome.title)
    about = f' title="{escape(outcome.title)}"' if "{title}" not in form else ""
    return f'<a rel="{direction}" href="{outcome.lesson}.html"{about}>{escape(text)}</a>'

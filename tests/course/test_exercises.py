"""Every exercise accepts its reference, refuses its stub, and names what is wrong with each catalogued mistake."""

import re

import pytest
import torch

from survey_lib.course import exercises
from survey_lib.course.exercises import Exercise, Mistake, Property, card, check

EVERY = exercises.every()
MISTAKES = [(one, mistake) for one in EVERY for mistake in one.mistakes]


def _name(value):
    return value.id if isinstance(value, Exercise) else re.sub(r"\W+", "-", value.name)


@pytest.mark.parametrize("exercise", EVERY, ids=_name)
def test_the_reference_passes_whatever_the_seed(exercise):
    for seed in range(20):
        assert f"{len(exercise.properties)} of {len(exercise.properties)}" in repr(
            check(exercise, exercise.reference, seed)
        )


@pytest.mark.parametrize("exercise", EVERY, ids=_name)
def test_the_stub_is_refused_in_its_own_words(exercise):
    with pytest.raises(AssertionError, match="nothing to check yet"):
        check(exercise, exercise.stub)
    empty = (lambda *args, **kwargs: None) if callable(exercise.stub) else None
    with pytest.raises(AssertionError, match="nothing to check yet"):
        check(exercise, empty)


@pytest.mark.parametrize("exercise, mistake", MISTAKES, ids=_name)
def test_a_known_mistake_is_refused_and_named(exercise, mistake):
    for seed in range(5):
        with pytest.raises(AssertionError) as caught:
            check(exercise, mistake.answer, seed)
        message = str(caught.value)
        assert f"“{mistake.name}”" in message and mistake.why in message, message
        assert "\n" not in message and " fails: " in message


@pytest.mark.parametrize("exercise", EVERY, ids=_name)
def test_an_exercise_is_complete(exercise):
    assert len(exercise.mistakes) >= 3 and len(exercise.hints) == 3 and exercise.minutes > 0
    assert len({one.name for one in exercise.mistakes}) == len(exercise.mistakes)
    html = card(exercise)
    assert html.count("<details>") == 3 and exercise.difficulty in html and f"{exercise.minutes} minutes" in html


def test_ids_lead_to_exercises():
    assert exercises.get("01.A").title == "corrupt"
    with pytest.raises(ValueError, match=r"no exercise '01\.Z'; there are .*01\.A"):
        exercises.get("01.Z")


def _double():
    def problem(generator):
        return torch.rand((), generator=generator)

    return Exercise(
        "99.A", "double", "guided", 1, ("a", "b", "c"), problem,
        (Property("doubles", lambda answer, x: answer(x), lambda x: 2 * x),),
        (Mistake("squared", "the star was typed twice.", lambda x: x**2),),
        lambda x: 2 * x, lambda x: None,
    )  # fmt: skip


def test_a_wrong_answer_without_a_name_still_learns_the_numbers():
    with pytest.raises(AssertionError, match=r"“doubles” fails: found 3 where [\d.]+ is exact\.$"):
        check(_double(), lambda x: torch.tensor(3.0))


def test_an_answer_that_raises_is_told_so():
    with pytest.raises(AssertionError, match="stopped with ZeroDivisionError"):
        check(_double(), lambda x: 1 / 0)


def test_a_wrong_shape_is_named():
    with pytest.raises(AssertionError, match=r"the shape is \(2,\) where \(\) is right"):
        check(_double(), lambda x: torch.stack([x, x]))


def test_a_check_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    check("01.A", exercises.get("01.A").reference)
    with pytest.raises(AssertionError):
        check("01.A", exercises.get("01.A").mistakes[-1].answer)
    assert torch.equal(before, torch.random.get_rng_state())

"""Every exercise accepts its reference, refuses its stub, and names each catalogued mistake."""

import inspect
import re

import pytest
import torch

from survey_lib.course import exercises
from survey_lib.course.exercises import Exercise, Mistake, Property, card, check
from survey_lib.course.publishing import notebooks

EVERY = exercises.every()
MISTAKES = [(one, name) for one in EVERY for name in one.mistakes]


def _name(value):
    return value.id if isinstance(value, Exercise) else re.sub(r"\W+", "-", value)


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
    answer, why = exercise.wrong(exercise.mistakes[mistake]), exercise.mistakes[mistake].why
    for seed in range(5):
        with pytest.raises(AssertionError) as caught:
            check(exercise, answer, seed)
        message = str(caught.value)
        assert f"“{mistake}”" in message and why in message, message
        assert "\n" not in message and " fails: " in message


@pytest.mark.parametrize("exercise", EVERY, ids=_name)
def test_an_exercise_is_complete(exercise):
    assert len(exercise.mistakes) >= 3 and len(exercise.hints) == 3 and exercise.minutes > 0
    html = card(exercise.id)._repr_html_()
    assert html.count("<details>") == 3 and exercise.difficulty in html and f"{exercise.minutes} minutes" in html
    assert exercise.title in repr(card(exercise.id)) and exercise.importance in html


@pytest.mark.parametrize("exercise", [one for one in EVERY if callable(one.reference)], ids=_name)
def test_a_mistake_is_an_edit_of_the_reference_or_another_algorithm(exercise):
    source = inspect.getsource(exercise.reference)
    for name, mistake in exercise.mistakes.items():
        assert bool(mistake.edit) != (mistake.answer is not None), name
        wrong = exercise.wrong(mistake)  # refuses an edit that does not match exactly once
        assert inspect.signature(wrong) == inspect.signature(exercise.reference), name
    assert inspect.getsource(exercise.reference) == source


@pytest.mark.parametrize("exercise", [one for one in EVERY if callable(one.reference)], ids=_name)
def test_no_hint_is_the_solution(exercise):
    lines = [line.strip().removeprefix("return ") for line in inspect.getsource(exercise.reference).splitlines()[1:]]
    told = " ".join(exercise.hints).replace("²", "**2")
    assert not [line for line in lines if len(line) > 12 and not line.endswith(":") and line in told]


@pytest.mark.parametrize("lesson", notebooks.all_lessons(), ids=lambda lesson: lesson.number)
def test_a_lesson_shows_each_card_before_its_solution_and_types_no_hint(lesson):
    sources = [cell.source for cell in lesson.notebook.cells]
    assert not [source for source in sources if "<summary>Hint" in source]
    for exercise in EVERY:
        if exercise.id.startswith(lesson.number):
            (checked,) = [at for at, one in enumerate(sources) if one.startswith(f'check("{exercise.id}", ')]
            assert sources[checked - 2] == f'card("{exercise.id}")' and "### BEGIN SOLUTION" in sources[checked - 1]


def test_ids_lead_to_exercises():
    assert exercises.get("01.A").title == "corrupt"
    for unknown in ("01.Z", "99.A", "A", "01"):
        with pytest.raises(ValueError, match=rf"no exercise '{unknown}'; there are .*01\.A"):
            exercises.get(unknown)


def _doubled(x):
    return 2 * x


def _double(**mistakes):
    return Exercise(
        "99.A", "double", 1, ("use `2 * x` & more", "b", "c"), lambda generator: torch.rand((), generator=generator),
        _doubled, {"doubles": Property(lambda answer, x: answer(x), _doubled)}, mistakes,
    )  # fmt: skip


def test_an_edit_replaces_what_matches_once_and_nothing_else():
    exercise = _double()
    squared = exercise.wrong(Mistake("the star was typed twice.", ("2 * x", "x**2")))
    assert squared(3) == 9 and _doubled(3) == 6
    both = exercise.wrong(Mistake("two edits, one after the other.", (("2 * x", "3 * x"), ("3 *", "4 *"))))
    assert both(1) == 4
    with pytest.raises(ValueError, match="'5' occurs 0 times in _doubled; an edit must match exactly once"):
        exercise.wrong(Mistake("nothing matches.", ("5", "6")))
    with pytest.raises(ValueError, match=r"'x' occurs 2 times in _doubled"):
        exercise.wrong(Mistake("two places match.", ("x", "y")))


def test_a_wrong_answer_that_behaves_like_an_edit_gets_its_name():
    exercise = _double(squared=Mistake("the star was typed twice.", ("2 * x", "x**2")))
    with pytest.raises(AssertionError, match=r"a known mistake, “squared”: the star was typed twice\.$"):
        check(exercise, torch.square)


def test_the_stub_has_the_signature_of_the_reference():
    with pytest.raises(NotImplementedError):
        _double().stub(1)
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        _double().stub()


def test_a_card_sets_code_and_escapes_the_rest():
    html = exercises.Card(_double())._repr_html_()
    assert "use <code>2 * x</code> &amp; more" in html and "guided" in html and "1 minute ·" in html


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
        exercise = exercises.get("01.A")
        check(exercise, exercise.wrong(exercise.mistakes["noise that cannot be repeated"]))
    assert torch.equal(before, torch.random.get_rng_state())

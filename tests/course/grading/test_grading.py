"""A class of thirty: honest, half right, empty, every catalogued mistake, and hostile submissions."""

import ast
import hashlib
import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from survey_lib.course import cli, exercises
from survey_lib.course.exercises import framework
from survey_lib.course.grading import courses, grade, sheets, submissions
from survey_lib.course.grading.remote import Answer, Limits
from survey_lib.course.publishing import assignments, notebooks
from survey_lib.lab.experiments.provenance import PACKAGE

LINUX = sys.platform.startswith("linux")
FAST = Limits(seconds=20, memory=2**30)


def _solutions(lesson):
    marked = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell.source for cell in lesson.notebook.cells}
    return {task.exercise: marked[task.cells[-1]] for task in submissions.tasks(lesson.number)}


def _hand_in(folder, student, number, answers):
    """Write a student's notebook of a lesson with these sources for exercises; the others are empty."""
    (lesson,) = notebooks.select([number])
    handed = assignments.strip(lesson.notebook)
    cells = {task.cells[-1]: answers[task.exercise] for task in submissions.tasks(number) if task.exercise in answers}
    for cell in handed.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = cells.get(name, cell.source)
    path = folder / student / f"lesson{number}" / lesson.path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(handed, path)
    return path


def _grade(folder, secret="a secret", limits=FAST, out=None, **how):
    jobs = grade.plan(submissions.find(folder), secret, limits)
    return grade.grade(jobs, out or folder.parent / "grades.csv", workers=os.cpu_count() or 1, **how)


LESSONS = [lesson.number for lesson in notebooks.all_lessons()]


@pytest.mark.parametrize("number", LESSONS)
def test_the_honest_submission_of_a_lesson_gets_all_points(number, tmp_path):
    (lesson,) = notebooks.select([number])
    _hand_in(tmp_path / "class", "ada", number, _solutions(lesson))
    found = [grade.grade_one(job)[0] for job in grade.plan(submissions.find(tmp_path / "class"), "a secret", FAST)]
    assert [one.status for one in found] == ["right"] * 3, [one.message for one in found]
    assert sum(one.points for one in found) == sum(one.of for one in found) > 0


# ---------------------------------------------------------------- the class

SIGNATURE = "def corrupt(x0, t, schedule, generator):\n"
WRONG = SIGNATURE + "    return x0"

#: Hostile answers to 01.A by name: what each gets, and its source, to which `WRONG` is added where it defines nothing.
HOSTILE = {
    "redefines check": ("wrong stopped", "import builtins; builtins.check = check = lambda *a, **k: 'passed'"),
    "patches torch": ("wrong stopped", "torch.allclose = torch.equal = lambda *a, **k: True"),
    "patches the library": (
        "wrong stopped",
        "import survey_lib.core.schedules as s; s.Schedule.scales = lambda self, *a: (0, 0)",
    ),
    "imports the reference": (
        "stopped",
        "from survey_lib.course.lessons.l01.exercises import A; corrupt = A.reference",
    ),
    "looks for the reference": (
        "stopped",
        "import gc; corrupt = [o for o in gc.get_objects() if type(o).__name__ == 'Exercise'][0].reference",
    ),
    "writes a file": ("stopped", "open({victim!r}, 'w').write('gone')"),
    "deletes a file": ("stopped", "import os; os.unlink({victim!r})"),
    "changes rights": ("stopped", "import os; os.chmod({victim!r}, 0)"),
    "reads another submission": ("stopped", "raise ValueError(open({victim!r}).read())"),
    "looks for the secret": ("stopped", "raise ValueError(open({secret!r}).read())"),
    "reads the parent": ("stopped", "import os; raise ValueError(open('/proc/%d/environ' % os.getppid()).read())"),
    "kills the parent": ("stopped", "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"),
    "forks": ("stopped", "import os\nwhile True: os.fork()"),
    "starts a program": ("stopped", "import subprocess; subprocess.run(['true'])"),
    "uses the network": ("stopped", "import socket; socket.create_connection(('127.0.0.1', 9))"),
    "exits": ("ended", SIGNATURE + "    import os; os._exit(0)"),
    "forges messages": (
        "ended",
        SIGNATURE + "    import os, contextlib\n    for fd in range(3, 20):\n"
        "        with contextlib.suppress(OSError): os.write(fd, b'x' * 64)",
    ),
    "loops": ("slow ended", SIGNATURE + "    while True: pass"),
    "prints without end": ("slow ended", SIGNATURE + "    while True: print('x' * 10**6)"),
    "hogs memory": ("stopped ended", SIGNATURE + "    return bytearray(10**11), 0"),
    "answers with too much": ("stopped ended", SIGNATURE + "    return torch.zeros(10**8), x0"),
}


def _class(folder, secret):
    """Students of lesson 01, with one of each hostile kind; the answers that each hands in."""
    (lesson,) = notebooks.select(["01"])
    right = _solutions(lesson)
    half = {"01.A": right["01.A"], "01.B": "def step(x_t, x0, t, s, schedule):\n    return x_t"}
    made = {"honest": right, "honest too": right, "half right": half, "empty": {}}
    made["does not parse"] = right | {"01.A": "def corrupt(:"}
    victim = _hand_in(folder, "honest", "01", right)
    for name, (_, source) in HOSTILE.items():
        source = source.replace("{victim!r}", repr(str(victim))).replace("{secret!r}", repr(str(secret)))
        made[name] = {"01.A": source if "corrupt" in source else f"{source}\n{WRONG}"}
    for student, answers in made.items():
        _hand_in(folder, student, "01", answers)
    (folder / "broken").mkdir()
    (folder / "broken" / "01_foundations_ddpm.ipynb").write_text("{ this is no notebook")
    return made


def _digests(*folders):
    paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
    files = [path for path in paths if path.is_file() and ".pyc" not in path.name]
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode) for path in files}


@pytest.mark.skipif(not LINUX, reason="the kernel's means to confine a process are those of Linux")
def test_a_class_with_hostile_students(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("known to the teacher alone")
    folder = tmp_path / "class"
    made = _class(folder, secret)
    before = _digests(folder, PACKAGE)
    if missing := grade.grade_one(grade.plan([submissions.find(folder)[0]], "s", FAST)[0])[1]:
        pytest.skip(f"this kernel cannot confine {', '.join(missing)}")
    limits = Limits(seconds=8, memory=2**30)
    found = _grade(folder, secret.read_text(), limits)
    by = {(one.student, one.exercise): one for one in found}
    assert len(by) == 3 * (len(made) + 1) >= 80
    assert _digests(folder, PACKAGE) == before, "no file has changed"
    for student in ("honest", "honest too"):
        assert [by[student, f"01.{letter}"].points for letter in "ABC"] == [2, 3, 5]
    assert [by["half right", f"01.{letter}"].status for letter in "ABC"] == ["right", "wrong", "empty"]
    assert [by["does not parse", f"01.{letter}"].status for letter in "ABC"] == ["stopped", "right", "right"]
    assert {by["empty", f"01.{letter}"].status for letter in "ABC"} == {"empty"}
    assert {by["broken", f"01.{letter}"].status for letter in "ABC"} == {"unreadable"}
    for name, (statuses, _) in HOSTILE.items():
        one = by[name, "01.A"]
        assert one.points == 0 and one.held < one.properties, name
        assert one.status.split()[-1] in statuses.split(), (name, one.status, one.message)
        assert "known to the teacher" not in one.message and "def corrupt" not in one.message, name
        assert [by[name, f"01.{letter}"].status for letter in "BC"] == ["empty", "empty"]


@pytest.mark.parametrize("letter", "ABC")
def test_every_known_mistake_is_named(letter, tmp_path):
    """The catalogue of lesson 25, whose mistakes are edits of one formula each."""
    (lesson,) = notebooks.select(["25"])
    exercise, wrong = exercises.get(f"25.{letter}"), {}
    for name, mistake in exercise.mistakes.items():
        pairs = (mistake.edit,) if mistake.edit and isinstance(mistake.edit[0], str) else mistake.edit
        source = _solutions(lesson)[exercise.id]
        if pairs and all(source.count(old) == 1 for old, _ in pairs):
            for old, new in pairs:
                source = source.replace(old, new)
            wrong[f"makes {len(wrong)}"] = (name, source)
    assert wrong
    for student, (_, source) in wrong.items():
        _hand_in(tmp_path / "class", student, "25", {exercise.id: source})
    jobs = grade.plan(submissions.find(tmp_path / "class"), "s", FAST)
    for job in jobs:
        if job.task.exercise != exercise.id:
            continue
        one, _ = grade.grade_one(job)
        assert one.status == "wrong" and one.mistake == wrong[one.student][0], one


# ---------------------------------------------------------------- the run


def test_an_interrupted_run_goes_on_and_a_changed_answer_is_graded_again(tmp_path):
    (lesson,) = notebooks.select(["25"])
    folder, out, started = tmp_path / "class", tmp_path / "grades.csv", []
    _hand_in(folder, "ada", "25", _solutions(lesson))

    def stop(one, missing):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _grade(folder, out=out, on_done=stop)
    assert len(grade.read(out)) >= 1
    _grade(folder, out=out, on_start=started.append)
    found = _grade(folder, out=out, on_start=started.append)
    assert started[0] in (1, 2) and started[1] == 0 and sum(one.points for one in found) == 10
    _hand_in(folder, "ada", "25", {"25.A": "def order(steps, errors):\n    return 1.0"})
    found = _grade(folder, out=out, on_start=started.append)
    assert started[2] == 3 and [one.status for one in found] == ["wrong", "empty", "empty"]
    assert grade.plan(submissions.find(folder), "another")[0].key != found[0].key


def test_a_table_is_read_as_it_was_written_and_holds_no_formula(tmp_path):
    one = grade.Grade("=1+1", "01", "01.A", 0.0, 2.0, 0, 5, "wrong", "", "it is, so", 1.5, '@sum("x")\nand more', "abc")
    grade.write(tmp_path / "grades.csv", [one])
    assert grade.read(tmp_path / "grades.csv") == [one]
    text = (tmp_path / "grades.csv").read_text()
    assert "'=1+1" in text and "'@sum" in text
    (tmp_path / "other.csv").write_text("name,age\n")
    with pytest.raises(ValueError, match="is no table of grades"):
        grade.read(tmp_path / "other.csv")


def test_a_sheet_tells_what_was_found_and_holds_no_markup_of_the_student(tmp_path):
    row = ("01", "01.A", 0.0, 2.0, 2, 5, "wrong", "the root is missing", "it is so", 1.5, "<script>x</script>", "abc")
    (path,) = sheets.write(tmp_path, [grade.Grade("ada <b>", *row)])
    text = path.read_text()
    assert "<script>" not in text and "ada &lt;b&gt;" in text
    assert "0 of 2 points" in text and "2 of 5 properties hold" in text and "the root is missing" in text


def test_imports_are_those_of_the_lesson_that_the_answer_names():
    task = submissions.tasks("23")[2]
    found = submissions.imports_of(task, ["def f(): return Gaussian(torch.zeros(1))"])
    assert found == ["import torch", "from survey_lib.core.corruptions import Gaussian"]
    assert not any("survey_lib.course" in line for line in task.imports)
    assert all(ast.parse(line) for line in task.imports)


def test_gradients_pass_through_functions_of_the_other_side():
    source = (
        "def slope(f, x):\n"
        "    with torch.enable_grad():\n"
        "        x = x.clone().requires_grad_()\n"
        "        (g,) = torch.autograd.grad(f(x, 2.0).sum(), x)\n"
        "    return g"
    )
    import torch

    with Answer(["import torch"], [source], "slope", FAST) as answer:
        x = torch.arange(3, dtype=torch.float64)
        torch.testing.assert_close(answer.value()(lambda x, power: x**power, x), 2 * x)


def test_gradients_pass_through_the_answer():
    import torch

    source = "def straight(x, y):\n    return x * y + (x**2 - x * y).detach()"
    with Answer(["import torch"], [source], "straight", FAST) as answer:
        x, y = (torch.arange(3, dtype=torch.float64).requires_grad_() for _ in range(2))
        found = answer.value()(x, y)
        torch.testing.assert_close(found, (x**2).detach().expand(3), check_stride=False)
        found.sum().backward()
        torch.testing.assert_close(x.grad, y.detach())


def test_a_generator_is_used_up_as_it_is_here():
    import torch

    source = "def draw(generator):\n    return torch.rand(2, generator=generator)"
    here, there = (torch.Generator().manual_seed(3) for _ in range(2))
    with Answer(["import torch"], [source], "draw", FAST) as answer:
        call = answer.value()
        for _ in range(2):
            torch.testing.assert_close(call(there), torch.rand(2, generator=here))


# ---------------------------------------------------------------- the command line


def _run(*arguments):
    return CliRunner().invoke(cli.main, [str(one) for one in arguments])


def test_the_command_grades_and_makes_a_secret(tmp_path):
    (lesson,) = notebooks.select(["25"])
    _hand_in(tmp_path / "class", "ada", "25", _solutions(lesson))
    arguments = ("grade", tmp_path / "class", "--seed-file", tmp_path / "secret", "--out", tmp_path / "grades.csv")
    found = _run(*arguments, "--jobs", "1")
    assert found.exit_code == 0 and "1 student, 10 of 10 points" in found.output, found.output
    assert (tmp_path / "grades_sheets" / "ada.html").exists()
    assert len((tmp_path / "secret").read_text().strip()) == 32 and (tmp_path / "secret").stat().st_mode & 0o077 == 0
    assert "3 graded before, 0 left" in _run(*arguments).output


def test_a_folder_without_notebooks_or_answers_is_told_in_a_sentence(tmp_path):
    (tmp_path / "class").mkdir()
    assert "no notebook is in" in _run("grade", tmp_path / "class", "--seed-file", tmp_path / "none").output
    assert not (tmp_path / "none").exists()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "class" / "ada.ipynb")
    found = _run("grade", tmp_path / "class", "--seed-file", tmp_path / "secret", "--out", tmp_path / "grades.csv")
    assert found.exit_code == 1 and "no notebook in" in found.output and "Traceback" not in found.output
    (tmp_path / "secret").write_text(" \n")
    found = _run("grade", tmp_path / "class", "--seed-file", tmp_path / "secret")
    assert "is empty; write a secret into it" in found.output


def test_a_course_for_nbgrader_is_laid_out_once(tmp_path):
    found = _run("class", "init", tmp_path / "course", "01", "25")
    assert found.exit_code == 0 and "nbgrader generate_assignment lesson01" in found.output
    (lesson,) = notebooks.select(["25"])
    assert (tmp_path / "course/source/lesson25" / lesson.path.name).read_bytes() == lesson.path.read_bytes()
    compile((tmp_path / "course/nbgrader_config.py").read_text(), "nbgrader_config.py", "exec")
    assert courses.init(tmp_path / "course", ["01"]) == ["lesson01"]
    Path(tmp_path / "course/source/lesson01/01_foundations_ddpm.ipynb").write_text(json.dumps({}))
    assert "is there and differs" in _run("class", "init", tmp_path / "course", "01").output


def test_an_answer_that_is_a_value_is_measured_as_one():
    (lesson,) = notebooks.select(["00"])
    task = next(one for one in submissions.tasks("00") if one.exercise == "00.B")
    with Answer([], [_solutions(lesson)["00.B"]], task.name, FAST) as answer:
        assert framework.assess(exercises.get("00.B"), answer.value(), 5).status == "right"

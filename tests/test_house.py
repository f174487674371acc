"""The rules of the house, held by walking syntax trees and notebooks."""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from survey_lib.course.publishing import notebooks
from survey_lib.course.publishing.mathml import mathml

HOME = Path(__file__).parents[1]
MODULES = sorted((HOME / "survey_lib").rglob("*.py"))
TESTS = sorted((HOME / "tests").rglob("*.py"))
NOTEBOOKS = sorted((HOME / "notebooks").glob("*.ipynb"))

#: What each room may import: of the package, and of others (None: anything).
ROOMS = {
    "core": ({"core"}, {"torch", "numpy"}),
    "nets": ({"nets"}, {"torch", "einops"}),
    "design": ({"core", "nets", "design"}, {"torch", "numpy", "einops"}),
    "process": ({"core", "nets", "process"}, {"torch", "numpy", "einops"}),
    "lab": ({"core", "nets", "design", "process", "lab"}, None),
    "course": ({"core", "nets", "design", "process", "lab", "course"}, None),
}

#: Functions that draw from a global generator unless they are given one.
DRAWS = {
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"),
    *("rand_like", "randn_like", "randint_like", "normal_", "uniform_", "bernoulli_", "exponential_"),
    *("random_", "cauchy_", "log_normal_", "geometric_"),
}
SEEDS = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"}
#: numpy's and Python's ways that carry their own state.
STATEFUL = {"default_rng", "Generator", "SeedSequence", "PCG64", "Random", "SystemRandom"}


def tree_of(path):
    return ast.parse(path.read_text())


def name_of(path):
    return str(path.relative_to(HOME))


def imports(path):
    """Every module that a file imports, as (dotted name, line), relative ones resolved."""
    package = path.relative_to(HOME).with_suffix("").parts[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            yield from ((f"{name}.{alias.name}" if name == "survey_lib" else name, node.lineno) for alias in node.names)


def dotted(node):
    """``torch.nn.init.normal_`` for such an attribute chain; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{base}.{node.attr}" if (base := dotted(node.value)) else f"?.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def forked(tree):
    """Calls under ``with torch.random.fork_rng()``: torch's initialisers know no generator, and this undoes them."""
    inside = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and any("fork_rng" in ast.dump(item.context_expr) for item in node.items)
    ]
    return {id(call) for block in inside for call in ast.walk(block) if isinstance(call, ast.Call)}


def global_draws(tree):
    """Calls that use or set global random state, as (what, line)."""
    allowed = forked(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in allowed:
            continue
        name = dotted(node.func)
        last = name.rpartition(".")[2]
        given = any(keyword.arg in ("generator", None) for keyword in node.keywords)
        other = name.startswith(("np.random.", "numpy.random.", "random.")) and last not in STATEFUL
        drawn = last in DRAWS and not given and (name.startswith("torch.") or last.endswith("_"))
        if other or drawn or name in SEEDS:
            yield name, node.lineno


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path):
    room = path.relative_to(HOME / "survey_lib").parts[0]
    if room not in ROOMS:
        return
    own, others = ROOMS[room]
    if path.name in ("integrators.py", "likelihood.py"):
        others = others | {"torchdiffeq"}
    for name, line in imports(path):
        top, _, rest = name.partition(".")
        if top == "survey_lib":
            target = rest.split(".")[0]
            assert not target or target in own or target not in ROOMS, f"line {line}: {room} imports {target}"
        elif others is not None and top not in sys.stdlib_module_names:
            assert top in others, f"line {line}: {room} imports {top}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_fit_a_screen(path):
    assert len(path.read_text().splitlines()) <= 350
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_print_no_cuda_no_bare_except_no_mutable_default(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            assert dotted(node.func) != "print", f"print in line {node.lineno}"
            assert dotted(node.func).rpartition(".")[2] != "cuda", f".cuda() in line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            assert not any(isinstance(one, ast.List | ast.Dict | ast.Set) for one in defaults), f"line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_randomness_comes_from_a_generator(path):
    assert list(global_draws(tree_of(path))) == []


def test_the_search_for_global_randomness_finds_it():
    guilty = "torch.manual_seed(0)\ntorch.randn(3)\nx.normal_()\nnp.random.rand(3)\nrandom.random()\ntorch.rand_like(x)"
    assert [line for _, line in global_draws(ast.parse(guilty))] == [1, 2, 3, 4, 5, 6]
    clean = "torch.randn(3, generator=g)\nx.normal_(generator=g)\nnp.random.default_rng(0)\nGenerator().manual_seed(0)"
    assert not list(global_draws(ast.parse(clean)))
    assert not list(global_draws(ast.parse("with torch.random.fork_rng():\n    torch.manual_seed(0)")))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_public_has_a_docstring(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree), "the module has none"
    for node in tree.body:
        plain = isinstance(node, ast.ClassDef) and any(dotted(base) == "NamedTuple" for base in node.bases)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not plain:
            assert ast.get_docstring(node), f"{node.name} has none"


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=HOME, capture_output=True, text=True)
    return [HOME / name for name in listed.stdout.split("\0") if name and (HOME / name).is_file()]


def test_no_file_names_a_place_on_somebodys_disk():
    place = re.compile(rb"(?<![\w.~:/])/(?:home|root|work|tmp|Users|mnt|srv|opt)/\w[^\s\"']*|\b[A-Z]:\\\\?Users")
    found = {}
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content[:4096] and (places := place.findall(content)):
            found[name_of(path)] = places[:3]
    assert not found


def test_test_files_have_names_of_their_own():
    names = [path.stem for path in TESTS if path.stem.startswith("test_")]
    assert len(names) == len(set(names))


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def lesson(request):
    return notebooks.Lesson(request.param)


def code_cells(lesson):
    return [cell for cell in lesson.notebook.cells if cell.cell_type == "code"]


def test_a_lesson_is_a_valid_small_notebook(lesson):
    nbformat.validate(lesson.notebook)
    assert lesson.path.stat().st_size < 1.5e6
    assert "widgets" not in lesson.notebook.metadata
    assert lesson.title != lesson.name, "it begins with a heading"


def test_a_lesson_takes_the_four_parameters_first(lesson):
    dataset = "scenes" if lesson.number in ("13", "14", "30", "31") else "glyphs"
    expected = {"profile": "auto", "seed": 0, "dataset": dataset, "train": False}
    assert list(lesson.parameters.items())[:4] == list(expected.items())


def test_the_cells_of_a_lesson_are_short(lesson):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(lesson)]
    assert max(lengths) <= 30
    assert statistics.median(lengths) <= 8


def test_a_lesson_carries_outputs_that_belong_to_its_cells(lesson):
    noted = lesson.notebook.metadata.get("survey", {}).get("source_sha256")
    assert noted == notebooks.source_hash(lesson.notebook), f"run: survey outputs {lesson.number}"
    assert all(cell.execution_count for cell in code_cells(lesson))
    outputs = [output for cell in code_cells(lesson) for output in cell.outputs]
    assert outputs and not [output.ename for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_sections_and_exercises_of_a_lesson_are_counted_in_order(lesson):
    prose = "\n".join(cell.source for cell in lesson.notebook.cells if cell.cell_type == "markdown")
    sections = [int(number) for number in re.findall(r"^## (\d+)\.", prose, re.MULTILINE)]
    assert sections == list(range(1, len(sections) + 1))
    assert re.findall(r"^### Exercise (\w)", prose, re.MULTILINE) == ["A", "B", "C"]


def unseen(source):
    """Tables and figures that a cell makes as a bare statement, but not as its last: nobody sees them."""
    tree = ast.parse(source)
    last = tree.body[-1:]
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and node not in last:
            name, on_axes = dotted(node.value.func), any(keyword.arg == "ax" for keyword in node.value.keywords)
            drawn = name.startswith("plots.") and name != "plots.use"  # which sets the style
            if (drawn or name.endswith(".table")) and not on_axes:
                yield f"{name}, line {node.lineno}"


def test_a_table_that_a_cell_makes_is_shown(lesson):
    assert not [lost for cell in code_cells(lesson) for lost in unseen(cell.source)]


def test_the_search_for_unseen_tables_finds_them():
    assert [*unseen("if a:\n    rows.table()\nplots.bars(x)\ny = 1")] == ["plots.bars, line 3", "rows.table, line 2"]
    assert not [*unseen("display(rows.table())\nplots.curves(x, ax=axes[0])\nplots.bars(x)")]


def test_every_picture_of_a_lesson_says_what_there_is_to_see(lesson):
    for cell in code_cells(lesson):
        for output in cell.outputs:
            for kind in ("image/png", "image/jpeg", "image/svg+xml"):
                if kind in output.get("data", {}):
                    alt = output.metadata.get(kind, {}).get("alt", "") or cell.metadata.get("alt", "")
                    assert len(alt.split()) >= 4, f"no alt text: {cell.source[:60]!r}"


def test_every_formula_of_a_lesson_can_be_set(lesson):
    for cell in lesson.notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"```.*?```|`[^`\n]*`", "", cell.source, flags=re.DOTALL)
            for block, inline in re.findall(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$]+?)\$", prose, re.DOTALL):
                mathml(block or inline, block=bool(block))

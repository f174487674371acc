"""Tables of the atlas, read from ``data/atlas/`` and checked against the accepted words."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from survey_lib.lab import runtime

if TYPE_CHECKING:
    import pandas

#: The five parts of the sampling loop, any of which a method may change to reduce the cost.
PARTS = MappingProxyType(
    {
        "bridge": "how data is destroyed, and the way back if it were known",
        "denoiser": "who is asked for the clean data: the network, its training, its guidance",
        "grid": "at which noise levels it is asked",
        "integrator": "how its answers are joined into a path",
        "space": "where all this happens: pixels, a code, a pyramid",
    }
)

#: The survey's strategies of design (EDS) and process (EPS) after the baselines, in the survey's order.
STRATEGIES = MappingProxyType(
    {
        "baseline": "baselines",
        "EDS-1": "guidance",
        "EDS-2": "discrete states",
        "EDS-3": "scores and SDEs",
        "EDS-4": "pyramids",
        "EDS-5": "latent spaces",
        "EPS-1": "training",
        "EPS-2": "noise",
        "EPS-3": "mixing",
        "EPS-4": "scheduling",
        "EPS-5": "retrieval",
    }
)

#: The lessons of the course, by number.
LESSONS = MappingProxyType(
    {
        "00": "survey_map",
        "01": "foundations_ddpm",
        "02": "foundations_measuring",
        "10": "eds_guidance",
        "11": "eds_discrete",
        "12": "eds_score_sde",
        "13": "eds_pyramid",
        "14": "eds_latent",
        "20": "eps_training",
        "21": "eps_noise",
        "22": "eps_mixing",
        "23": "eps_scheduling",
        "24": "eps_retrieval",
        "25": "eps_sampling",
        "30": "latent_diffusion",
        "31": "pyramid_frido",
        "40": "question_design",
        "41": "question_process",
        "42": "question_latent",
        "43": "question_tradeoffs",
        "44": "gan_gap",
        "50": "since_the_survey",
    }
)

#: The survey's four guiding questions, and its question about GANs.
QUESTIONS = MappingProxyType(
    {
        "RQ1": "Which choices of design save most computation?",
        "RQ2": "Which techniques of process speed sampling up most without losing quality?",
        "RQ3": "How do latent and multi-scale models compare with pixel space?",
        "RQ4": "What does speed cost in fidelity?",
        "GAN gap": "How far are diffusion models from GANs?",
    }
)

#: Evidence for a published number.
EVIDENCE = MappingProxyType(
    {
        "V": "read in the study's table, abstract or official page",
        "M": "from memory: check before you quote it",
        "n/a": "no number given",
    }
)


def load() -> pandas.DataFrame:
    """The studies by number, a row each. Raises ValueError for a word outside the lists above."""
    table = _read("studies.csv").set_index("number", drop=False)
    also = table["also"].str.split("; ").explode()
    _only("strategy", table["strategy"], STRATEGIES)
    _only("part", table["part"], PARTS)
    _only("also", also[also != ""], PARTS)
    _only("lesson", table["lesson"], LESSONS)
    _only("evidence", table["evidence"], EVIDENCE)
    return table.astype({"number": int, "year": int})


def later() -> pandas.DataFrame:
    """Methods published after the survey, with the part of the loop that each changes."""
    table = _read("since_2022.csv")
    _only("part", table["part"], PARTS)
    _only("evidence", table["evidence"], EVIDENCE)
    return table


def questions() -> pandas.DataFrame:
    """Findings on the survey's questions: the published result, a small demonstration, and its criterion."""
    table = _read("questions.csv")
    _only("question", table["question"], QUESTIONS)
    return table


def choose(strategy: str | None = None, part: str | None = None) -> pandas.DataFrame:
    """Studies of a strategy, studies that change a part of the loop (first or also), or studies that do both.

    Raises ValueError for an unknown strategy or part, with the accepted names.
    """
    table = load()
    if strategy is not None:
        _only("strategy", [strategy], STRATEGIES)
        table = table[table["strategy"] == strategy]
    if part is not None:
        _only("part", [part], PARTS)
        table = table[(table["part"] == part) | table["also"].str.split("; ").map(lambda parts: part in parts)]
    return table


def lesson_file(number: str) -> str | None:
    """File name of a lesson's notebook, as ``"01_foundations_ddpm.ipynb"``; None if it does not exist yet."""
    name = f"{number}_{LESSONS[number]}.ipynb"
    return name if (runtime.HOME / "notebooks" / name).exists() else None


def bibliography() -> dict[str, dict[str, str]]:
    """Entries of ``references.bib``: key to fields."""
    text = (runtime.HOME / "data" / "atlas" / "references.bib").read_text()
    entries = re.findall(r"@misc\{(\w+),\n(.*?)\n\}", text, re.DOTALL)
    return {key: {name: value.strip("{}") for name, value in _fields(body)} for key, body in entries}


def _fields(body: str) -> list[tuple[str, str]]:
    return re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", body, re.MULTILINE)


def _read(name: str) -> pandas.DataFrame:
    import pandas

    path = runtime.HOME / "data" / "atlas" / name
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: the atlas is read from the project's data folder")
    return pandas.read_csv(path, dtype=str, keep_default_na=False)


def _only(column: str, values, accepted) -> None:
    if unknown := sorted(set(values) - set(accepted)):
        raise ValueError(f"{column} {', '.join(map(repr, unknown))} is not one of {', '.join(accepted)}")

"""The survey's structure as the course follows it: its parts, and the lessons of each that are still to come."""

from __future__ import annotations

from typing import NamedTuple

from survey_lib.course.atlas.data import QUESTIONS


class Part(NamedTuple):
    """A part of the survey: its lessons have numbers that begin with ``digit``."""

    digit: str
    name: str
    about: str
    planned: dict[str, str]  # number and title of its lessons in the survey's order, used until a lesson exists


PARTS = (
    Part(
        "0",
        "Foundations",
        "The loop that everything else changes, and what “efficient” means.",
        {"00": "The survey as a map", "01": "DDPM and DDIM", "02": "Measuring cost and quality"},
    ),
    Part(
        "1",
        "Efficient design strategies",
        "What is modelled, and with which network: the design decides what a step costs.",
        {
            "10": "Guidance",
            "11": "Discrete states",
            "12": "Scores and SDEs",
            "13": "Pyramids",
            "14": "Latent spaces",
        },
    ),
    Part(
        "2",
        "Efficient process strategies",
        "How a network is trained and sampled: the process decides how many steps there are.",
        {
            "20": "Training",
            "21": "Noise of other kinds",
            "22": "Mixing with other models",
            "23": "Scheduling",
            "24": "Retrieval",
            "25": "Sampling",
        },
    ),
    Part(
        "3",
        "Architectures",
        "Two systems of the survey, built from end to end.",
        {"30": "Latent diffusion", "31": "Frido: a pyramid of latents"},
    ),
    Part(
        "4",
        "Questions",
        "What the survey asks, answered by measurement.",
        dict(zip(("40", "41", "42", "43", "44"), QUESTIONS.values(), strict=True)),
    ),
    Part("5", "Since the survey", "Later methods, placed on the same map.", {"50": "Since the survey"}),
)

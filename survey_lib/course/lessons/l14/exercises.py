"""Exercises of lesson 14: what components lose, latents in units, and a factor chosen for a budget."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: what is lost ----------------------------------------------------------------------------------------------


def _lost(eigenvalues, kept):
    largest_first = eigenvalues.sort(descending=True).values
    return largest_first[kept:].sum()


def _spectrum_problem(generator):
    axes = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    eigenvalues = torch.rand(6, generator=generator, dtype=torch.float64) ** 3
    return SimpleNamespace(eigenvalues=eigenvalues, cov=axes @ eigenvalues.diag() @ axes.mT)


def _reconstruction_error(p, kept: int) -> Tensor:
    """The smallest mean squared error of all linear autoencoders with ``kept`` numbers, by projection."""
    axes = torch.linalg.eigh(p.cov).eigenvectors
    rest = axes[:, : 6 - kept]  # eigh sorts upwards
    return (rest.mT @ p.cov @ rest).trace()


A = Exercise(
    id="14.A",
    title="what a smaller space loses",
    minutes=8,
    importance="the lesson builds on it",
    hints=(
        "In its principal axes a normal law is a set of independent numbers, and each eigenvalue is a variance.",
        "A number that is not kept is replaced by its mean, 0. What is the mean of its square?",
        "The largest are kept, in whatever order they come. The rest adds up.",
    ),
    problem=_spectrum_problem,
    reference=_lost,
    properties={
        f"with {kept} of 6 numbers, the error of the best projection": Property(
            lambda answer, p, k: answer(p.eigenvalues, k), _reconstruction_error, given=(kept,)
        )
        for kept in (0, 2, 5)
    },
    mistakes={
        "not sorted": Mistake(
            "eigenvalues come in any order. The largest are worth keeping: sort them first.",
            (".sort(descending=True).values", ""),
        ),
        "sorted upwards": Mistake(
            "the smallest were kept, and the largest thrown away.",
            ("sort(descending=True)", "sort(descending=False)"),
        ),
        "what is kept": Mistake(
            "that is the variance that remains. What is lost is the rest.",
            ("largest_first[kept:]", "largest_first[:kept]"),
        ),
        "standard deviations": Mistake(
            "an eigenvalue of a covariance is a variance already: squared errors add, their roots do not.",
            ("largest_first[kept:].sum()", "largest_first[kept:].sqrt().sum()"),
        ),
    },
)

# --- B: latents in units ------------------------------------------------------------------------------------------


def _normalise(z):
    mean = z.mean((0, 2, 3), keepdim=True)
    deviation = z.std((0, 2, 3), keepdim=True)
    return 0.5 * (z - mean) / deviation


def _latent_problem(generator):
    scale = torch.tensor([0.2, 1.0, 6.0], dtype=torch.float64)[:, None, None]
    shift = torch.tensor([3.0, 0.0, -1.0], dtype=torch.float64)[:, None, None]
    per_image = 1 + torch.rand(20, 1, 1, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(20, 3, 4, 4, generator=generator, dtype=torch.float64)
    return SimpleNamespace(z=scale * per_image * noise + shift)


B = Exercise(
    id="14.B",
    title="latents in units that a denoiser knows",
    minutes=8,
    importance="the lesson builds on it",
    hints=(
        "The denoiser's c_in and c_skip are made for data of standard deviation 0.5 (and mean 0) in every number.",
        "Channels differ from each other; places of a channel do not. Which axes does one mean run over?",
        "All images share one mean and one deviation a channel: what differs from image to image is the image.",
    ),
    problem=_latent_problem,
    reference=_normalise,
    properties={
        "every channel has mean 0": Property(lambda answer, p: answer(p.z).mean((0, 2, 3)), lambda p: torch.zeros(3)),
        "every channel has standard deviation 0.5": Property(
            lambda answer, p: answer(p.z).std((0, 2, 3)), lambda p: torch.full((3,), 0.5)
        ),
        "bright and dark images stay apart": Property(
            lambda answer, p: answer(p.z).square().mean((1, 2, 3)),
            lambda p: torch.stack(
                [0.25 * (c - c.mean()).square().flatten(1).mean(1) / c.var() for c in p.z.unbind(1)]
            ).mean(0),
        ),
    },
    mistakes={
        "one deviation for all channels": Mistake(
            "channels of an autoencoder have scales of their own: with one deviation for all, a loud channel drowns "
            "the others.",
            (("z.mean((0, 2, 3)", "z.mean((0, 1, 2, 3)"), ("z.std((0, 2, 3)", "z.std((0, 1, 2, 3)")),
        ),
        "each image for itself": Mistake(
            "what is bright and what is dark is gone, and the decoder would need to be told: statistics are those "
            "of the data, not of one image.",
            (("z.mean((0, 2, 3)", "z.mean((2, 3)"), ("z.std((0, 2, 3)", "z.std((2, 3)")),
        ),
        "unit deviation": Mistake(
            "the course's denoisers are made for a deviation of 0.5, that of images in [-1, 1].",
            ("0.5 * (z", "(z"),
        ),
        "the mean stays": Mistake(
            "a constant that is the same in all data is learned, but noise has to climb over it first: subtract it.",
            ("(z - mean)", "z"),
        ),
        "the variance": Mistake(
            "divide by the standard deviation, the root of the variance.",
            ("z.std(", "z.var("),
        ),
    },
)

# --- C: a factor for a budget -------------------------------------------------------------------------------------


def _choose(rows, minutes):
    affordable = [row for row in rows if row["autoencoder"] + row["denoiser"] <= minutes]
    best = min(affordable, key=lambda row: row["fd"])
    alike = [row for row in affordable if row["low"] <= best["high"]]
    return min(alike, key=lambda row: row["macs"])


def _spaces_problem(generator):
    """Two latents that cannot be told apart, pixels that can, and a factor that only a larger budget affords."""
    unit = float(0.8 + 0.4 * torch.rand((), generator=generator))
    columns = ("space", "autoencoder", "denoiser", "fd", "low", "high", "macs")
    table = (
        ("p4", 0.0, 8.0, 20.0, 18.0, 22.0, 30.0),
        ("p2", 0.0, 9.0, 15.0, 13.0, 17.0, 203.0),
        ("f2", 3.0, 6.0, 9.0, 8.0, 10.0, 190.0),
        ("f4", 3.0, 6.0, 10.0, 9.5, 10.5, 47.0),
        ("f8", 6.0, 8.0, 5.0, 4.0, 6.0, 50.0),
    )
    rows = [dict(zip(columns, (row[0], *(unit * value for value in row[1:])), strict=True)) for row in table]
    return SimpleNamespace(rows=rows, minutes=(10 * unit, 15 * unit))


def _work_of(answer, p, which: int) -> float:
    return float(answer(p.rows, p.minutes[which])["macs"])


def _least_work(p, which: int) -> float:
    """By trying every space: affordable, not surely worse than any other, and the least work of these."""
    inside = [row for row in p.rows if row["autoencoder"] + row["denoiser"] <= p.minutes[which]]
    nearest = sorted(inside, key=lambda row: row["fd"])[0]
    return min(row["macs"] for row in inside if not row["low"] > nearest["high"])


C = Exercise(
    id="14.C",
    title="which factor, for a budget",
    minutes=20,
    hints=(
        "What does a space cost to train? Latents cannot be had without their autoencoder.",
        "The nearest on average may be nearest by luck: a space whose interval reaches into that of the best is not "
        "worse for all we know.",
        "Among those that cannot be told apart, take the one whose samples take the least work.",
    ),
    problem=_spaces_problem,
    reference=_choose,
    properties={
        "with a small budget": Property(_work_of, _least_work, given=(0,)),
        "with a budget for all": Property(_work_of, _least_work, given=(1,)),
    },
    mistakes={
        "the autoencoder is free": Mistake(
            "somebody paid for the autoencoder: its training is part of the budget.",
            ('row["autoencoder"] + row["denoiser"]', 'row["denoiser"]'),
        ),
        "the best on average": Mistake(
            "where intervals overlap the order may be luck. Of what cannot be told apart, take the cheaper.",
            ('row["low"] <= best["high"]', "row is best"),
        ),
        "the cheapest of all": Mistake(
            "cheap samples are no use where they are surely worse than what the budget allows.",
            ('if row["low"] <= best["high"]', ""),
        ),
    },
)

"""Bad input and bad luck where the parts meet: one clear sentence, or a run that goes on where it was stopped.

Each part refuses for itself in its own tests: data sets in lab/test_data_errors, profiles and types in
lab/test_runtime, grids and samplers in core, parameters and killed runs of lessons in course.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from survey_lib.core import grids, integrators, losses, samplers, toys
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned, Reschedule
from survey_lib.core.schedules import edm, rectified, vp_cosine
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.training import checkpoints, recipes
from survey_lib.nets.mlp import MLP
from survey_lib.nets.unet import UNet

LAW = toys.eight_modes()
X = torch.zeros(3, 2)
DENOISERS = {
    "exact": LAW.denoiser(vp_cosine()),
    "trained": Preconditioned(MLP(2, width=8, layers=1), vp_cosine()),
    "rescheduled": Reschedule(LAW.denoiser(edm()), edm(), vp_cosine()),
}
SAMPLERS = {
    "ancestral": lambda denoiser, schedule, x, times, **k: samplers.ancestral(
        denoiser, Gaussian(schedule), x, times, **k
    ),
    "euler_maruyama": samplers.euler_maruyama,
    "predictor_corrector": samplers.predictor_corrector,
    "heun": samplers.heun,
    "multistep": integrators.multistep,
    "dpm_singlestep": integrators.dpm_singlestep,
    "pndm": integrators.pndm,
    "probability_flow": integrators.probability_flow,
}
RANDOM = ("ancestral", "euler_maruyama", "predictor_corrector")


def sentence(call, kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message
    return message


@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize("t", [-0.01, 1.01, math.nan, math.inf])
def test_a_time_outside_is_refused_by_every_denoiser(denoiser, t):
    for times in (torch.tensor(t), torch.tensor([0.5, t, 0.5])):
        assert "times lie in [0, 1]" in sentence(lambda times=times: DENOISERS[denoiser](X, times))


def test_a_time_outside_is_refused_by_the_loss():
    model, generator = DENOISERS["trained"], torch.Generator()
    t = torch.tensor([0.1, 0.2, 1.2])
    call = lambda: losses.denoising_loss(model, Gaussian(vp_cosine()), X, t, generator=generator)  # noqa: E731
    assert "times lie in [0, 1]" in sentence(call)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([0.2, 0.9], "falls strictly from noise to data"),
        ([0.9, 0.5, 0.5, 0.0], "falls strictly from noise to data; times 1 and 2 are 0.5 and 0.5"),
        ([1.5, 0.0], "times lie in [0, 1]"),
        ([math.nan, 0.0], "times lie in [0, 1]"),
        ([0.5], "at least two times"),
        ([], "at least two times"),
        ([[0.9, 0.1]], "one dimension"),
    ],
)
def test_a_grid_that_is_none_is_refused_by_every_sampler(name, times, words):
    more = {"generator": torch.Generator()} if name in RANDOM else {}
    call = lambda: SAMPLERS[name](DENOISERS["exact"], vp_cosine(), X, torch.tensor(times), **more)  # noqa: E731
    assert words in sentence(call)


@pytest.mark.parametrize("name", RANDOM)
def test_hidden_randomness_is_refused(name):
    message = sentence(lambda: SAMPLERS[name](DENOISERS["exact"], vp_cosine(), X, grids.uniform(3, start=0.9)))
    assert "pass generator=" in message


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: Preconditioned(MLP(2), edm(), "noise"), ValueError, "accepted: x0, eps, score, v, flow, edm"),
        (
            lambda: integrators.multistep(LAW.denoiser(edm()), edm(), X, grids.uniform(3), predict="v"),
            ValueError,
            '"x0"',
        ),
        (lambda: grids.uniform(-3), ValueError, "steps is at least 1; got -3"),
        (lambda: grids.uniform(2.5), TypeError, "steps is a whole number; got 2.5"),
        (lambda: recipes.train("cifar10_codes"), ValueError, 'no training "cifar10_codes"'),
        (lambda: checkpoints.load("mnist_bose"), FileNotFoundError, 'no checkpoint "mnist_bose"'),
        (lambda: LAW.denoiser(rectified())(torch.zeros(3, 5), 0.5), ValueError, "(B, 2); got (3, 5)"),
    ],
)
def test_unknown_names_and_wrong_values_are_refused(call, kind, words):
    assert words in sentence(call, kind)


# ---------------------------------------------------------------------- a training that is killed


def shrink_recipes(patch: pytest.MonkeyPatch, home) -> None:
    """`survey train mnist_conditional` in miniature: 250 steps of a tiny network on sixty tiny images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (60, 1, 4, 4), generator=generator, dtype=torch.uint8)
    made = ImageSet("mnist", images, torch.arange(60) % 3, ("a", "b", "c"))
    row = recipes.TRAININGS["conditional"]
    patch.setattr(recipes.data, "load", lambda name, **_: made)
    patch.setattr(recipes, "HOME", home)
    small = replace(
        row,
        recipe=replace(row.recipe, batch=4, steps=250),
        model=lambda images: Preconditioned(UNet(1, widths=(4,), classes=3), edm()),
        score=lambda *_: {},
    )
    patch.setitem(recipes.TRAININGS, "conditional", small)


CHILD = """
import pathlib, pytest, sys, torch
sys.path.insert(0, {here!r})
import test_bad_luck
torch.set_num_threads({threads})
home = pathlib.Path({home!r})
test_bad_luck.shrink_recipes(pytest.MonkeyPatch(), home)
test_bad_luck.recipes.train("mnist_conditional", root=home / "out")
"""


def test_a_killed_survey_train_resumes_and_makes_the_same_file(tmp_path, monkeypatch):
    """kill -9 after the first save: the same command again goes on from there, and ends with the same bytes."""
    home, state = tmp_path / "home", tmp_path / "home" / "build" / "training" / "mnist_conditional.safetensors"
    code = CHILD.format(here=os.path.dirname(__file__), threads=torch.get_num_threads(), home=str(home))
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as child:
        while not state.exists() and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL and not (home / "out").exists()
    shrink_recipes(monkeypatch, home)
    resumed = recipes.train("mnist_conditional", root=home / "out")
    shrink_recipes(monkeypatch, tmp_path / "calm")
    undisturbed = recipes.train("mnist_conditional", root=tmp_path / "calm" / "out")
    assert resumed.read_bytes() == undisturbed.read_bytes()

"""Measured speed and quality: ``make bench``. Each row is a ratio to a peer, measured in one run.

``python -m tests.benchmarks speed`` leaves out the two trainings of five minutes, the samplers and the two kernels;
``python -m tests.benchmarks sampling`` (also ``quality``, ``training``, ...) runs one benchmark alone.
``growth`` trains for more than three core-hours, and runs only if it is named: all of it, or one length as in
``growth10``. What a benchmark finds is kept when it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from diffusers import DPMSolverMultistepScheduler

from survey_lib.core import grids, integrators, schedules
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned
from survey_lib.course.publishing.runner import refuse_read_only
from survey_lib.lab import runtime
from survey_lib.lab.data import load
from survey_lib.lab.evaluation.cost import Ratio, macs, ratio
from survey_lib.lab.evaluation.evaluator import Evaluator
from survey_lib.lab.evaluation.speed import fast
from survey_lib.lab.experiments import store
from survey_lib.lab.plots import table
from survey_lib.lab.training.recipes import TRAININGS
from survey_lib.lab.training.trainer import Trainer
from tests.benchmarks import growth, kernels, peers, sampling

SECONDS, STEPS = 300.0, 20
BASE = TRAININGS["base"]


def loop_overhead() -> dict[str, tuple[Ratio, float]]:
    """20 steps of 2M with a denoiser that costs nothing, 64 x 3 x 32 x 32, against diffusers' own loop."""
    x = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    answer = x.clone()
    schedule = schedules.vp_linear()
    times = grids.uniform(STEPS)

    def ours() -> None:
        integrators.multistep(lambda x, t, cond: answer, schedule, x, times, order=2)

    def theirs() -> None:
        scheduler = DPMSolverMultistepScheduler(num_train_timesteps=1000, prediction_type="sample")
        scheduler.set_timesteps(STEPS)
        y = x
        for t in scheduler.timesteps:
            y = scheduler.step(answer, t, y).prev_sample

    return {"loop of 20 steps of 2M": (ratio(ours, theirs, repeats=15), 0.4)}


def inference() -> dict[str, tuple[Ratio, float]]:
    """One evaluation of the course's U-Net for 64 glyphs: our fast path, against plain float32 and a peer."""
    generator = torch.Generator().manual_seed(0)
    model, x, c = _started(), torch.randn(64, 3, 32, 32, generator=generator), torch.randn(64, generator=generator)
    work = macs(model.net, x[:1], c[:1])
    peer = peers.unet_of_equal_macs(3, 32, work)
    print(f"MACs an image: ours {work:,}, the peer's {macs(peer, x[:1], c[:1]):,}")
    quick = fast(model.net)
    plain = _started().net.eval()
    with torch.no_grad():
        return {
            "inference: plain float32": (ratio(lambda: quick(x, c), lambda: plain(x, c), 15), 1 / 1.5),
            "inference: UNet2DModel": (ratio(lambda: quick(x, c), lambda: peer(x, c), 15), 1 / 2),
        }


def training() -> dict[str, tuple[Ratio, float]]:
    """A training step on 128 glyphs (corrupt, loss, gradients, update) against the usual one at equal MACs."""
    images = load("glyphs", count=2000)
    trainer = Trainer(BASE.untrained(images, 0), images, replace(BASE.recipe, steps=100_000))
    peer = peers.unet_of_equal_macs(3, 32, macs(trainer.model.net, torch.zeros(1, 3, 32, 32), torch.zeros(1)))
    usual = peers.Usual(peer, images.float())

    def ours() -> None:
        list(trainer.run(every=5, until=trainer.step + 5))

    def theirs() -> None:
        for _ in range(5):
            usual.step()

    return {"training": (ratio(ours, theirs, repeats=7), 1 / 1.5)}


def quality(dataset: str = "mnist") -> dict[str, tuple[Ratio, float]]:
    """Five minutes of training each, then 1000 images in 20 evaluations each: Fréchet distance and time.

    The peer's network is the usual course's, not one of equal MACs: both rows include the choice of network.
    """
    images, evaluator = load(dataset), Evaluator.load(dataset, 1000)

    began = time.perf_counter()
    probe = Trainer(BASE.untrained(images, 0), images, replace(BASE.recipe, steps=100_000))
    list(probe.run(every=10, until=30))
    steps = int(SECONDS / probe.history[-1].seconds * 30)
    trainer = Trainer(BASE.untrained(images, 0), images, replace(BASE.recipe, steps=steps))
    print(f"ours: {steps} steps planned; the probe took {time.perf_counter() - began:.0f} s")
    list(trainer.run(every=steps))
    peer = peers.course_unet(*images.shape[:2])
    one = torch.zeros(1, *images.shape), torch.zeros(1)
    print(f"MACs an image: ours {macs(trainer.model.net, *one):,}, the peer's {macs(peer, *one):,}")
    done = peers.train(peer, images.float(), trainer.seconds)
    print(f"trained for {trainer.seconds:.0f} s each: ours {steps} steps, the peer {done}")

    schedule = schedules.vp_linear()
    denoiser = fast(Preconditioned(trainer.average.net, schedule, "edm", trainer.model.sigma_data))
    noise = Gaussian(schedule).prior((evaluator.count, *images.shape), generator=torch.Generator().manual_seed(1))
    fd, seconds = {}, {}
    for name, sample in (
        ("ours", lambda x: integrators.multistep(denoiser, schedule, x, grids.karras(STEPS, schedule))),
        ("the peer's", lambda x: peers.sample(peer, x, STEPS)),
    ):
        sample(noise[:8])  # first calls allocate and compile
        began = time.perf_counter()
        drawn = sample(noise)
        seconds[name], fd[name] = time.perf_counter() - began, evaluator.score(drawn)["fd"]
        print(f"{name}: FD {fd[name]:.2f}, 1000 images in {seconds[name]:.0f} s", flush=True)
    better, faster = (Ratio(*[found["ours"] / found["the peer's"]] * 3) for found in (fd, seconds))
    return {f"{dataset}: FD after 300 s": (better, 1 / 60), f"{dataset}: time of 1000 images": (faster, 1 / 12)}


def _started() -> Preconditioned:
    """The course's U-Net with no weight at zero, as after training: zeros could be skipped by a clever kernel."""
    model = BASE.untrained(load("glyphs", count=8), 0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def main(which: list[str]) -> None:
    unknown = set(which) - {*GROUPS, *BENCHMARKS}
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join([*GROUPS, *BENCHMARKS])}")
    wanted = {name for word in which for name in GROUPS.get(word, [word])} or set(BENCHMARKS) - set(GROUPS["growth"])
    refuse_read_only(store.destination())
    if wanted & ON_MNIST:
        load("mnist", split="test", count=4)  # where it is missing, nothing is measured before that is said
    for name, benchmark in BENCHMARKS.items():
        if name in wanted:
            _keep(benchmark(), "mnist" if name in ON_MNIST else "glyphs")


def _keep(found: dict[str, tuple[Ratio, float]], dataset: str) -> None:
    """Print the ratios of a benchmark, and save them."""
    rows = [
        {"what": name, "ratio to the peer": (r.median, r.low, r.high), "to reach": f"at most {goal:.3g}",
         "reached": "yes" if r.median <= goal else "no"}
        for name, (r, goal) in found.items()
    ]  # fmt: skip
    print(table(rows, caption=f"Ours over the peer's; threads: {torch.get_num_threads()}"), flush=True)
    run = runtime.start("benchmarks", profile="cpu", dataset=dataset)
    for name, (r, goal) in found.items():
        quality_numbers = {"ratio": r.median, "low": r.low, "high": r.high, "goal": goal}
        store.save("bench", run, {"what": name}, quality=quality_numbers)


SPEED: dict[str, Callable] = {"loop": loop_overhead, "inference": inference, "training": training}
GROWTH: dict[str, Callable] = {f"growth{minutes}": partial(growth.compare, minutes) for minutes in (10, 30, 60)}
OTHERS: dict[str, Callable] = {"quality": quality, "sampling": sampling.compare, "kernels": kernels.two_kernels}
BENCHMARKS = SPEED | OTHERS | GROWTH
ON_MNIST = {"quality", "sampling"}
GROUPS = {"speed": list(SPEED), "growth": list(GROWTH)}


if __name__ == "__main__":
    main(sys.argv[1:])

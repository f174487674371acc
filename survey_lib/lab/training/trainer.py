"""The training loop: one loop that a notebook can watch, stop and resume.

    trainer = Trainer(denoiser, images, Recipe(steps=2000), save_to=Path("build/run.safetensors"))
    for report in trainer.run(every=200):
        print(report.step, report.loss)
    denoiser = trainer.average

Step n draws its examples, times and noise from (seed, n) alone. So a training that was stopped and resumed makes
the same numbers as one that was not, and no state of a generator has to be saved.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import TensorDataset
from tqdm.auto import tqdm

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.losses import denoising_loss, edm_weight, lognormal_times
from survey_lib.lab.data.images import ImageSet, to_float
from survey_lib.lab.evaluation.speed import precision
from survey_lib.lab.runtime import require
from survey_lib.lab.training import state
from survey_lib.lab.training.optimizers import Optimizer

#: Edges of the bins of lam in which losses are reported; the first and the last bin are open.
LAM_EDGES = torch.arange(-3, 5, dtype=torch.float64)

#: ``loss(model, x0, cond, generator)``: losses (B,), and noise levels lam (B,) or None where there are no such levels.
#: All randomness comes from the generator.
Loss = Callable[[nn.Module, Tensor, Tensor | None, torch.Generator], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Recipe:
    """The numbers that decide a training, beside data, network and loss: steps of Adam or Muon on clipped gradients.

    Raises TypeError or ValueError for a value that is not accepted.
    """

    steps: int = 2000  # batches
    batch: int = 128  # examples in a batch
    rate: float = 2e-3  # the largest learning rate of Adam
    rate_schedule: str = "linear"  # or "one_cycle", see `adam`
    optimizer: str = "adam"  # or "muon", see `optimizers.Optimizer`
    matrix_rate: float = 0.015  # the largest learning rate of Muon, which follows the same schedule
    warmup: int = 100  # steps of the linear schedule over which the rate rises
    average: float = 0.998  # decay of the moving average of the weights; 0 keeps the last weights
    clip: float | None = 1.0  # the largest norm of a gradient; None for any
    label_dropout: float = 0.0  # fraction of examples without their label, for classifier-free guidance
    log_sigma_mean: float = -0.8  # noise levels, sigma / alpha, are log-normal (EDM, table 1)
    log_sigma_std: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("steps", "batch"):
            require(field, getattr(self, field), int, low=1)
        for field in ("rate", "matrix_rate", "log_sigma_std", *(["clip"] if self.clip is not None else [])):
            require(field, getattr(self, field), float, low=0)
        for field in ("label_dropout", "average"):
            require(field, getattr(self, field), float, low=0, high=1)
        require("optimizer", self.optimizer, str, choices=("adam", "muon"))
        require("rate_schedule", self.rate_schedule, str, choices=("linear", "one_cycle"))
        require("warmup", self.warmup, int, low=0)
        require("log_sigma_mean", self.log_sigma_mean, float)
        require("seed", self.seed, int, low=0, high=2**32 - 1)

    def adam(self, step: int) -> dict[str, Any]:
        """Learning rate and betas of Adam at a step.

        ``linear``: the rate falls linearly to 0 and rises over ``warmup`` steps. ``one_cycle`` (Smith & Topin 2018, as
        in torch): half-cosines from rate / 25 to rate over 30 % of the steps, and to nearly 0 over the rest, while
        the first beta goes from 0.95 to 0.85 and back.
        """
        if self.rate_schedule == "linear":
            warm = min(1.0, (step + 1) / max(1, self.warmup))
            return {"lr": self.rate * warm * (1 - step / self.steps), "betas": (0.9, 0.99)}
        low, peak, end = self.rate / 25, float(0.3 * self.steps) - 1, self.steps - 1
        if step <= peak:
            rates, betas, position = (low, self.rate), (0.95, 0.85), step / peak
        else:
            rates, betas, position = (self.rate, low / 1e4), (0.85, 0.95), (step - peak) / (end - peak)
        return {"lr": _half_cosine(*rates, position), "betas": (_half_cosine(*betas, position), 0.999)}


def _half_cosine(start: float, end: float, position: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * position) + 1)


@dataclass(frozen=True)
class Report:
    """Progress since the last report; of several processes, the first reports."""

    step: int
    loss: float  # the mean; EDM's loss is about 1 for an untrained network
    loss_by_lam: tuple[float, ...]  # the mean in each bin of `LAM_EDGES`, nan for an empty bin
    seconds: float  # of training since the first step
    images_per_second: float


class Trainer:
    """The state of a training: model, moving average, optimiser, step.

    A loss is called as ``loss(model, x0, cond, generator)``, see `Loss`. ``cond`` are the labels where the data have
    some; for a network with ``classes``, a fraction ``recipe.label_dropout`` of them is replaced by the null label.
    Several processes, started by ``accelerate launch`` or ``torchrun``, share each batch. Raises ValueError for data
    that do not suit the network, and for a state that cannot be resumed.
    """

    def __init__(
        self,
        model: nn.Module,  # changed in place
        data: ImageSet
        | TensorDataset,  # images, or (x0, labels): points (N, D), latents (N, C, H, W), integers (N, ...)
        recipe: Recipe = Recipe(),  # steps, batch, learning rate and the other numbers
        *,
        loss: Loss | None = None,  # EDM's weighted loss of a `Preconditioned` network
        device: str = "cpu",  # "cpu", or a GPU as in "cuda:1"
        save_to: str | Path | None = None,  # file of the state: written at every report, resumed where it exists
    ):
        team = _team(device)
        self.rank, self.ranks, self.device = team.process_index, team.num_processes, str(team.device)
        self.recipe, self.save_to = recipe, None if save_to is None else Path(save_to)
        self.loss = loss
        self.classes = getattr(getattr(model, "net", model), "classes", None)
        x0, labels = _examples(data, self.classes, own_loss=loss is not None)
        self.subject = {} if save_to is None else state.describe(model, x0, labels, loss)
        self.x0, self.labels = x0.to(self.device), None if labels is None else labels.to(self.device)
        self.model = model.to(self.device, memory_format=torch.channels_last).train()
        self.parallel = team.prepare(self.model)  # the same weights; its gradients are means over the team
        self.averaged = AveragedModel(self.model, multi_avg_fn=_moving_average(recipe.average))
        self.optimizer = Optimizer(self.model, recipe)
        self.step, self.history, self.seconds = 0, [], 0.0
        if self.save_to is not None and self.save_to.exists():
            self._resume(self.save_to)

    @property
    def average(self) -> nn.Module:
        """The model with the moving average of its weights, for sampling; the same module at every step."""
        return self.averaged.module.eval()

    def run(self, *, every: int = 200, until: int | None = None, progress: bool = False) -> Iterator[Report]:
        """Train up to step ``until`` (or all of the recipe), and yield a `Report` at every multiple of ``every`` steps.

        Raises FloatingPointError, with the step, the noise level and the last save, if a loss or a gradient is not
        finite; that step is not taken.
        """
        require("every", every, int, low=1)
        until = self.recipe.steps if until is None else min(require("until", until, int, low=0), self.recipe.steps)
        quiet = not progress or self.rank > 0
        with tqdm(total=until, initial=self.step, disable=quiet, desc="training", unit="step") as bar:
            while self.step < until:
                tally, began, first = _Tally(self.device), time.perf_counter(), self.step
                while self.step < min(until, (first // every + 1) * every):
                    tally.add(*self._take_step())
                    bar.update()
                loss, seconds = tally.mean, time.perf_counter() - began
                self.seconds += seconds
                rate = (self.step - first) * self.recipe.batch / seconds
                self.history.append(Report(self.step, loss, tally.by_lam, self.seconds, rate))
                bar.set_postfix(loss=f"{loss:.4f}")
                self.save()
                yield self.history[-1]

    def finish(self, *, every: int = 200, progress: bool = False) -> nn.Module:
        """Train all of the recipe as `run` does, and return the average in eval mode, without gradients."""
        for _ in self.run(every=every, progress=progress):
            pass
        return self.average.requires_grad_(False)

    def _take_step(self) -> tuple[Tensor, Tensor | None]:
        recipe = self.recipe
        x0, cond, generator = self._draw()
        before = [buffer.clone() for buffer in self.model.buffers()]  # running statistics and codes change in the loss
        with precision(self.device):
            losses, lam = (self.loss or self._denoising)(self.parallel, x0, cond, generator)
        self.optimizer.zero_grad()
        losses.mean().backward()
        clip = math.inf if recipe.clip is None else recipe.clip
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        if not torch.isfinite(norm):
            for buffer, value in zip(self.model.buffers(), before, strict=True):
                buffer.copy_(value)
            self._stop(losses.detach(), lam)
        self.optimizer.step(self.step)
        self.step += 1
        self.averaged.update_parameters(self.model)
        return losses.detach(), lam

    def _denoising(
        self, model: nn.Module, x0: Tensor, cond: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """EDM's weighted loss, at log-normal noise levels (EDM, eq. 8)."""
        schedule, mean, std = self.model.schedule, self.recipe.log_sigma_mean, self.recipe.log_sigma_std
        t = lognormal_times(len(x0), schedule, mean=mean, std=std, generator=generator)
        lam = schedule.lam(t)
        weight = edm_weight(lam, self.model.sigma_data)
        return denoising_loss(model, Gaussian(schedule), x0, t, weight=weight, cond=cond, generator=generator), lam

    def _draw(self) -> tuple[Tensor, Tensor | None, torch.Generator]:
        """Examples, labels and a generator for the loss; they depend on (seed, step, process) alone."""
        # The CPU's generator reads only the lower 32 bits of its seed: an odd factor spreads the recipe's over them.
        number = self.recipe.seed * 0x9E3779B9 + self.step * self.ranks + self.rank
        generator = torch.Generator(self.device).manual_seed(number % 2**32)
        count = max(1, self.recipe.batch // self.ranks)
        index = torch.randint(len(self.x0), (count,), generator=generator, device=self.device)
        x0 = self.x0[index]
        x0 = to_float(x0) if x0.dtype == torch.uint8 else x0
        if x0.ndim == 4:
            x0 = x0.contiguous(memory_format=torch.channels_last)
        if self.labels is None:
            return x0, None, generator
        labels = self.labels[index]
        if self.classes is None:
            return x0, labels, generator
        dropped = torch.rand(count, generator=generator, device=self.device) < self.recipe.label_dropout
        return x0, labels.masked_fill(dropped, self.classes), generator

    def _stop(self, losses: Tensor, lam: Tensor | None) -> None:
        bad = ~torch.isfinite(losses)
        if not bad.any():
            where = "in a gradient of finite losses"
        else:
            where = "in the loss" if lam is None else f"lam from {lam[bad].min():.2f} to {lam[bad].max():.2f}"
        saved = self.history[-1].step if self.history else 0
        kept = f"the state of step {saved} is in {self.save_to}" if self.save_to and saved else "nothing was saved"
        raise FloatingPointError(f"loss or gradient is not finite at step {self.step} ({where}); {kept}")

    # ------------------------------------------------------------------ stop and resume

    def save(self) -> None:
        """Write the whole state to ``save_to``, if there is one."""
        if self.save_to is None or self.rank > 0:
            return
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.tensors().items()}
        about = {"step": self.step, "recipe": asdict(self.recipe), "subject": self.subject}
        state.write(self.save_to, tensors, about | {"history": [asdict(report) for report in self.history]})

    def _resume(self, path: Path) -> None:
        """Continue from the state in ``path``. Raises ValueError where that is impossible."""
        about, tensors = state.read(path, asdict(self.recipe), self.subject)
        part = {"model": {}, "averaged": {}, "optimizer": {}} | state.parts(tensors)
        try:
            self.model.load_state_dict(part["model"])
        except RuntimeError as error:
            raise ValueError(f"{path} was begun with another network; delete it to begin again") from error
        self.averaged.load_state_dict(part["averaged"])
        self.optimizer.load(part["optimizer"])
        self.history = [Report(**{**one, "loss_by_lam": tuple(one["loss_by_lam"])}) for one in about["history"]]
        self.step, self.seconds = about["step"], self.history[-1].seconds if self.history else 0.0


def _examples(data: ImageSet | TensorDataset, classes: int | None, *, own_loss: bool) -> tuple[Tensor, Tensor | None]:
    """Images as bytes, integers as they are for a loss of one's own, other data as float32; and labels, if used."""
    x0, *labels = (data.images, data.labels) if isinstance(data, ImageSet) else data.tensors
    if not len(x0):
        raise ValueError("the data set is empty: there is nothing to train on")
    x0 = x0.float() if x0.is_floating_point() or (not own_loss and x0.dtype != torch.uint8) else x0
    if classes is None:
        return x0, labels[0] if labels and own_loss else None
    if not labels:
        raise ValueError("this network has classes, so it needs labels: TensorDataset(x0, labels)")
    low, high = int(labels[0].min()), int(labels[0].max())
    if not 0 <= low <= high < classes:
        raise ValueError(f"this network has {classes} classes, numbered from 0; the labels span {low} to {high}")
    return x0, labels[0]


class _Tally:
    """Sums of losses in bins of lam, the last for losses without one; read once, so that a GPU need not wait."""

    def __init__(self, device: str) -> None:
        self.edges = LAM_EDGES.to(device)
        self.sums, self.counts = torch.zeros(2, len(LAM_EDGES) + 2, dtype=torch.float64, device=device)

    def add(self, losses: Tensor, lam: Tensor | None) -> None:
        if lam is None:
            self.sums[-1] += losses.double().sum()
            self.counts[-1] += len(losses)
            return
        bins = torch.bucketize(lam, self.edges)
        self.sums.index_add_(0, bins, losses.double())
        self.counts.index_add_(0, bins, torch.ones_like(losses, dtype=torch.float64))

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    @property
    def by_lam(self) -> tuple[float, ...]:
        return tuple((self.sums / self.counts)[:-1].tolist())


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Return an update for `AveragedModel` with decay ``min(decay, (1 + n) / (10 + n))`` after n steps."""

    def update(averaged: list[Tensor], current: list[Tensor], seen: Tensor) -> None:
        weight = 1 - min(decay, (1 + int(seen)) / (10 + int(seen)))
        torch._foreach_lerp_(averaged, current, weight)

    return update


def _team(device: str) -> Any:
    """The processes started by ``accelerate launch`` or ``torchrun`` as an ``Accelerator``, or a stand-in for one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return SimpleNamespace(process_index=0, num_processes=1, device=device, prepare=lambda model: model)
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.cuda.is_available())

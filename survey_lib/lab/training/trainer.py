"""Training a network: one loop, which a notebook can watch, stop and resume.

    trainer = Trainer(denoiser, images, Recipe(steps=2000), save_to=Path("build/run.safetensors"))
    for report in trainer.run(every=200):
        print(report.step, report.loss)
    denoiser = trainer.average

Without a ``loss`` it is a denoiser that is trained, by EDM's weighted loss.
Step n draws its examples, times and noise from (seed, n) alone. So a run that was stopped and resumed makes
the same numbers as one that was not, and there is no state of a generator to save.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import TensorDataset
from tqdm.auto import tqdm

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.losses import denoising_loss, edm_weight, lognormal_times
from survey_lib.lab.data import ImageSet, to_float
from survey_lib.lab.evaluation.speed import precision
from survey_lib.lab.runtime import require, write_atomically

#: Edges of the bins of lam in which losses are reported: one bin more than edges, for the outer ones are open.
LAM_EDGES = torch.arange(-3, 5, dtype=torch.float64)

#: ``loss(model, x0, cond, generator)``: a number for each example (B,), and its noise level lam (B,) or None for none.
#: All that is random in it comes from the generator.
Loss = Callable[[nn.Module, Tensor, Tensor | None, torch.Generator], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Recipe:
    """All that decides the outcome of a training, beside the data and the network.

    Adam on ``steps`` batches of ``batch`` examples; gradients longer than ``clip`` are shortened to it.
    ``label_dropout`` is the share of examples that lose their label (classifier-free guidance needs it);
    ``log_sigma_mean, log_sigma_std`` are EDM's law of noise levels; ``average`` is the decay of the
    moving average of the weights; the learning rate rises to ``rate`` over ``warmup`` steps while it falls linearly
    towards 0 at the end. Raises TypeError or ValueError for a number that is not accepted.
    """

    steps: int = 2000
    batch: int = 128
    rate: float = 2e-3
    warmup: int = 100
    average: float = 0.998
    clip: float = 1.0
    label_dropout: float = 0.0
    log_sigma_mean: float = -0.8
    log_sigma_std: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("steps", "batch"):
            require(field, getattr(self, field), int, low=1)
        for field in ("rate", "clip", "log_sigma_std"):
            require(field, getattr(self, field), float, low=0)
        for field in ("label_dropout", "average"):
            require(field, getattr(self, field), float, low=0, high=1)
        require("warmup", self.warmup, int, low=0)
        require("log_sigma_mean", self.log_sigma_mean, float)
        require("seed", self.seed, int, low=0, high=2**32 - 1)


@dataclass(frozen=True)
class Report:
    """What happened since the last report: the mean loss (EDM's is about 1 for a network that knows nothing).

    ``loss_by_lam`` is the same in each of the bins of `LAM_EDGES` (nan where no example fell); ``seconds`` counts
    from the first step, without the time between stop and resumption. Of several processes, the first reports.
    """

    step: int
    loss: float
    loss_by_lam: tuple[float, ...]
    seconds: float
    images_per_second: float


class Trainer:
    """The state of a training: the model, its moving average, the optimiser, the step.

    ``model`` is changed in place; ``average`` is what to sample from. ``data`` is an `ImageSet`, or a
    ``TensorDataset(x0, labels)`` of points (N, D), latents (N, C, H, W) or symbols (N, ...); labels are used if the
    network has classes. Without a ``loss`` the model is a `Preconditioned` network. With ``save_to`` the whole state
    is written there at every report, and a later Trainer with the same arguments resumes from it. Several processes,
    started by ``accelerate launch`` or ``torchrun``, share each batch. Raises ValueError for data that does not suit
    the network, and for a state that cannot be resumed.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ImageSet | TensorDataset,
        recipe: Recipe = Recipe(),
        *,
        loss: Loss | None = None,
        device: str = "cpu",
        save_to: str | Path | None = None,
    ):
        team = _team(device)
        self.rank, self.ranks, self.device = team.process_index, team.num_processes, str(team.device)
        self.recipe, self.save_to = recipe, None if save_to is None else Path(save_to)
        self.loss = loss
        self.classes = getattr(getattr(model, "net", model), "classes", None)
        x0, labels = _examples(data, self.classes, numbers=loss is None)
        self.x0, self.labels = x0.to(self.device), None if labels is None else labels.to(self.device)
        self.model = model.to(self.device, memory_format=torch.channels_last).train()
        self.parallel = team.prepare(self.model)  # the same weights; its gradients are means over the team
        self.averaged = AveragedModel(self.model, multi_avg_fn=_moving_average(recipe.average))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
        self.step, self.history, self.seconds = 0, [], 0.0
        if self.save_to is not None and self.save_to.exists():
            self._resume(self.save_to)

    @property
    def average(self) -> nn.Module:
        """The model with its weights averaged over the last steps: smoother, and better to sample from.

        It is alive: it moves on with the training.
        """
        return self.averaged.module.eval()

    def run(self, *, every: int = 200, until: int | None = None, progress: bool = False) -> Iterator[Report]:
        """Train up to step ``until`` (or all of the recipe), and yield a `Report` at every multiple of ``every`` steps.

        Raises FloatingPointError, with the step, the noise level and the last save, when the loss or a
        gradient is no number any more; that step is not taken.
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
        """All of the recipe, as `run` does it without being watched; the average, ready to be asked."""
        for _ in self.run(every=every, progress=progress):
            pass
        return self.average.requires_grad_(False)

    def _take_step(self) -> tuple[Tensor, Tensor | None]:
        recipe = self.recipe
        x0, cond, generator = self._draw()
        for group in self.optimizer.param_groups:
            warm = min(1.0, (self.step + 1) / max(1, recipe.warmup))
            group["lr"] = recipe.rate * warm * (1 - self.step / recipe.steps)
        with precision(self.device):
            losses, lam = (self.loss or self._denoising)(self.parallel, x0, cond, generator)
        self.optimizer.zero_grad()
        losses.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        if not torch.isfinite(norm):
            self._stop(losses.detach(), lam)
        self.optimizer.step()
        self.step += 1
        self.averaged.update_parameters(self.model)
        return losses.detach(), lam

    def _denoising(
        self, model: nn.Module, x0: Tensor, cond: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """EDM's weighted loss, at its law of noise levels."""
        schedule, mean, std = self.model.schedule, self.recipe.log_sigma_mean, self.recipe.log_sigma_std
        t = lognormal_times(len(x0), schedule, mean=mean, std=std, generator=generator)
        lam = schedule.lam(t)
        weight = edm_weight(lam, self.model.sigma_data)
        return denoising_loss(model, Gaussian(schedule), x0, t, weight=weight, cond=cond, generator=generator), lam

    def _draw(self) -> tuple[Tensor, Tensor | None, torch.Generator]:
        """Examples, labels and a generator for the loss, from (seed, step, process) alone."""
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
        dropped = torch.rand(count, generator=generator, device=self.device) < self.recipe.label_dropout
        return x0, self.labels[index].masked_fill(dropped, self.classes), generator

    def _stop(self, losses: Tensor, lam: Tensor | None) -> None:
        bad = ~torch.isfinite(losses)
        if not bad.any():
            where = "in a gradient of finite losses"
        else:
            where = "in the loss" if lam is None else f"lam from {lam[bad].min():.2f} to {lam[bad].max():.2f}"
        saved = self.history[-1].step if self.history else 0
        kept = f"the state of step {saved} is in {self.save_to}" if self.save_to and saved else "nothing was saved"
        raise FloatingPointError(f"training met a number that is none at step {self.step} ({where}); {kept}")

    # ------------------------------------------------------------------ stop and resume

    def save(self) -> None:
        """Write the whole state to ``save_to``, if there is one: old file or new file, never half a file."""
        if self.save_to is None or self.rank > 0:
            return
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        about = {"step": self.step, "recipe": asdict(self.recipe), "history": [asdict(r) for r in self.history]}
        tensors = {k: v.contiguous() for k, v in tensors.items()}
        write_atomically(self.save_to, to_safetensors(tensors, {"survey": json.dumps(about)}))

    def _resume(self, path: Path) -> None:
        """Continue from the state in ``path``, or say why that is impossible."""
        try:
            with safe_open(path, "pt") as file:  # on the CPU: load_state_dict moves what has to move
                about = json.loads(file.metadata()["survey"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
            step, before, history = about["step"], about["recipe"], about["history"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no training to resume ({error}); delete it to begin anew") from error
        now = asdict(self.recipe)
        if changed := [field for field in {**now, **before} if now.get(field) != before.get(field)]:
            raise ValueError(f"{path} was begun with another recipe ({', '.join(changed)}); delete it to begin anew")
        part: dict[str, dict[str, Tensor]] = {"model": {}, "averaged": {}, "optimizer": {}}
        for key, value in tensors.items():
            owner, _, name = key.partition(".")
            part.setdefault(owner, {})[name] = value
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in part["optimizer"].items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = value
        try:
            self.model.load_state_dict(part["model"])
        except RuntimeError as error:
            raise ValueError(f"{path} was begun with another network; delete it to begin anew") from error
        self.averaged.load_state_dict(part["averaged"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.history = [Report(**{**report, "loss_by_lam": tuple(report["loss_by_lam"])}) for report in history]
        self.step, self.seconds = step, self.history[-1].seconds if self.history else 0.0


def _examples(data: ImageSet | TensorDataset, classes: int | None, *, numbers: bool) -> tuple[Tensor, Tensor | None]:
    """Images as bytes, symbols as they are unless ``numbers``, other data as float32; labels, if there are classes."""
    x0, *labels = (data.images, data.labels) if isinstance(data, ImageSet) else data.tensors
    if not len(x0):
        raise ValueError("there is nothing to train on: the data set is empty")
    x0 = x0.float() if x0.is_floating_point() or (numbers and x0.dtype != torch.uint8) else x0
    if classes is None:
        return x0, None
    if not labels:
        raise ValueError("this network has classes, so it needs labels: TensorDataset(x0, labels)")
    low, high = int(labels[0].min()), int(labels[0].max())
    if not 0 <= low <= high < classes:
        raise ValueError(f"this network has {classes} classes, numbered from 0; the labels span {low} to {high}")
    return x0, labels[0]


class _Tally:
    """Sums of losses in bins of lam (the last: of no lam); read once, so that a GPU need not wait at every step."""

    def __init__(self, device: str) -> None:
        self.edges = LAM_EDGES.to(device)
        self.sums, self.counts = torch.zeros(2, len(LAM_EDGES) + 2, dtype=torch.float64, device=device)

    def add(self, losses: Tensor, lam: Tensor | None) -> None:
        nowhere = torch.full(losses.shape, len(self.sums) - 1, device=losses.device)
        bins = nowhere if lam is None else torch.bucketize(lam, self.edges)
        self.sums.index_add_(0, bins, losses.double())
        self.counts.index_add_(0, bins, torch.ones_like(losses, dtype=torch.float64))

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    @property
    def by_lam(self) -> tuple[float, ...]:
        return tuple((self.sums / self.counts)[:-1].tolist())


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """An update for `AveragedModel` whose memory grows with age, so that the first steps are forgotten."""

    def update(averaged: list[Tensor], current: list[Tensor], seen: Tensor) -> None:
        share = 1 - min(decay, (1 + int(seen)) / (10 + int(seen)))
        torch._foreach_lerp_(averaged, current, share)

    return update


def _team(device: str) -> Any:
    """The processes that ``accelerate launch`` or ``torchrun`` started together, as an ``Accelerator`` or its like."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return SimpleNamespace(process_index=0, num_processes=1, device=device, prepare=lambda model: model)
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.cuda.is_available())

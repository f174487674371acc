"""Training a denoiser: one loop, which a notebook can watch, stop and resume.

    trainer = Trainer(denoiser, images, Recipe(steps=2000), save_to=Path("build/run.safetensors"))
    for report in trainer.run(every=200):
        print(report.step, report.loss)
    denoiser = trainer.average

Step n draws its images, times and noise from (seed, n) alone. So a run that was stopped and resumed makes
the same numbers as one that was not, and there is no state of a generator to save.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned
from survey_lib.core.losses import denoising_loss, edm_weight, lognormal_times
from survey_lib.lab.data import ImageSet, to_float
from survey_lib.lab.runtime import write_atomically
from survey_lib.lab.speed import precision

#: Edges of the bins of lam in which losses are reported; the outer bins are open.
LAM_EDGES = torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0])


@dataclass(frozen=True)
class Recipe:
    """All that decides the outcome of a training, beside the data and the network.

    ``label_dropout`` is the share of examples that lose their label (classifier-free guidance needs it);
    ``log_sigma_mean, log_sigma_std`` are EDM's law of noise levels; ``average`` is the decay of the
    moving average of the weights; the learning rate rises over ``warmup`` steps and then falls linearly to 0.
    """

    steps: int = 2000
    batch: int = 128
    rate: float = 2e-3
    warmup: int = 100
    average: float = 0.998
    clip: float = 1.0
    label_dropout: float = 0.0
    log_sigma_mean: float = -1.0
    log_sigma_std: float = 1.4
    seed: int = 0

    def __post_init__(self) -> None:
        for field, low in (("steps", 1), ("batch", 1), ("rate", 0), ("warmup", 0), ("clip", 0), ("log_sigma_std", 0)):
            if not getattr(self, field) >= low:
                raise ValueError(f"{field} is {getattr(self, field)}; at least {low} is accepted")
        if not (0 <= self.label_dropout <= 1 and 0 <= self.average < 1):
            raise ValueError("label_dropout lies in [0, 1] and average in [0, 1)")


@dataclass(frozen=True)
class Report:
    """What happened since the last report: mean weighted loss, by bins of lam too (nan where none fell)."""

    step: int
    loss: float
    loss_by_lam: tuple[float, ...]
    seconds: float
    images_per_second: float


class Trainer:
    """The state of a training: the model, its moving average, the optimiser, the step.

    ``model`` is a `Preconditioned` network and is changed in place; ``average`` is what to sample from. With
    ``save_to`` the whole state is written there at every report, and a later Trainer with the same
    arguments resumes from it. Several processes started by ``accelerate launch`` share each batch.
    """

    def __init__(
        self,
        model: Preconditioned,
        images: ImageSet,
        recipe: Recipe = Recipe(),
        *,
        device: str = "cpu",
        save_to: Path | None = None,
    ):
        self.accelerator = _accelerator()
        self.device = device if self.accelerator is None else str(self.accelerator.device)
        self.recipe, self.save_to = recipe, save_to
        self.model = model.to(self.device, memory_format=torch.channels_last).train()
        self.parallel = self.model if self.accelerator is None else self.accelerator.prepare(self.model)
        self.averaged = AveragedModel(self.model, multi_avg_fn=_moving_average(recipe.average))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
        self.images, self.labels = images.images.to(self.device), images.labels.to(self.device)
        self.corruption = Gaussian(model.schedule)
        self.step, self.history, self.seconds = 0, [], 0.0
        if save_to is not None and save_to.exists():
            self._resume(save_to)

    @property
    def average(self) -> Preconditioned:
        """The model with its weights averaged over the last steps: smoother, and better to sample from."""
        return self.averaged.module.eval()

    def run(self, *, every: int = 200, until: int | None = None, progress: bool = False) -> Iterator[Report]:
        """Train up to step ``until`` (all of the recipe), and yield a `Report` at every ``every`` steps.

        Raises FloatingPointError, with the step, the noise level and the last save, when the loss or a
        gradient is no number any more.
        """
        until = min(until or self.recipe.steps, self.recipe.steps)
        bar = tqdm(total=until, initial=self.step, disable=not progress, desc="training", unit="step")
        while self.step < until:
            tally, began, first = _Tally(), time.perf_counter(), self.step
            while self.step < min(until, (first // every + 1) * every):
                tally.add(*self._take_step())
                bar.update()
            seconds = time.perf_counter() - began
            self.seconds += seconds
            rate = (self.step - first) * self.recipe.batch / seconds
            self.history.append(Report(self.step, tally.mean, tally.by_lam, self.seconds, rate))
            bar.set_postfix(loss=f"{tally.mean:.4f}")
            self.save()
            yield self.history[-1]
        bar.close()

    def _take_step(self) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        x0, cond, t, generator = self._draw()
        lam = self.model.schedule.lam(t)
        for group in self.optimizer.param_groups:
            warm = min(1.0, (self.step + 1) / max(1, recipe.warmup))
            group["lr"] = recipe.rate * warm * (1 - self.step / recipe.steps)
        with precision(self.device):
            weight = edm_weight(lam, self.model.sigma_data)
            losses = denoising_loss(
                self.parallel, self.corruption, x0, t, weight=weight, cond=cond, generator=generator
            )
        self.optimizer.zero_grad()
        losses.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        if not torch.isfinite(norm):
            self._stop(losses.detach(), lam)
        self.optimizer.step()
        self.step += 1
        self.averaged.update_parameters(self.model)
        return losses.detach(), lam

    def _draw(self) -> tuple[Tensor, Tensor | None, Tensor, torch.Generator]:
        """Images, labels, times and a generator for the noise, from (seed, step, process) alone."""
        ranks, rank = (1, 0) if self.accelerator is None else _ranks(self.accelerator)
        generator = torch.Generator(self.device).manual_seed((self.recipe.seed << 40) + self.step * ranks + rank)
        count = max(1, self.recipe.batch // ranks)
        index = torch.randint(len(self.images), (count,), generator=generator, device=self.device)
        x0 = to_float(self.images[index]).contiguous(memory_format=torch.channels_last)
        mean, std = self.recipe.log_sigma_mean, self.recipe.log_sigma_std
        t = lognormal_times(count, self.model.schedule, mean=mean, std=std, generator=generator)
        classes = self.model.net.config.get("classes")
        if classes is None:
            return x0, None, t, generator
        dropped = torch.rand(count, generator=generator, device=self.device) < self.recipe.label_dropout
        return x0, self.labels[index].masked_fill(dropped, classes), t, generator

    def _stop(self, losses: Tensor, lam: Tensor) -> None:
        bad = ~torch.isfinite(losses)
        where = (
            f"lam from {lam[bad].min():.2f} to {lam[bad].max():.2f}" if bad.any() else "finite losses, in a gradient"
        )
        saved = self.history[-1].step if self.history else None
        kept = f"the state of step {saved} is in {self.save_to}" if self.save_to and saved else "nothing was saved yet"
        raise FloatingPointError(f"training met a number that is none at step {self.step} ({where}); {kept}")

    # ------------------------------------------------------------------ stop and resume

    def save(self) -> None:
        """Write the whole state to ``save_to``, if there is one: old file or new file, never half a file."""
        if self.save_to is None or (self.accelerator is not None and not self.accelerator.is_main_process):
            return
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        about = {"step": self.step, "recipe": asdict(self.recipe), "history": [asdict(r) for r in self.history]}
        tensors = {k: v.contiguous() for k, v in tensors.items()}
        write_atomically(self.save_to, to_safetensors(tensors, {"survey": json.dumps(about)}))

    def _resume(self, path: Path) -> None:
        try:
            with safe_open(path, "pt", device=self.device) as file:
                about = json.loads(file.metadata()["survey"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} holds no training that can be resumed ({error}); delete it to begin anew"
            ) from error
        if about["recipe"] != asdict(self.recipe):
            changed = [k for k, v in asdict(self.recipe).items() if about["recipe"].get(k) != v]
            raise ValueError(f"{path} was begun with another recipe ({', '.join(changed)}); delete it to begin anew")
        part = {name: {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)} for name in _PARTS}
        self.model.load_state_dict(part["model."])
        self.averaged.load_state_dict(part["averaged."])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part["optimizer."].items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step, self.history = about["step"], [Report(**_tuples(report)) for report in about["history"]]
        self.seconds = self.history[-1].seconds if self.history else 0.0


_PARTS = ("model.", "averaged.", "optimizer.")


class _Tally:
    """Sums of losses, whole and by bins of lam; kept on the device, read once."""

    def __init__(self) -> None:
        self.sums, self.counts = torch.zeros(2, len(LAM_EDGES) + 1, dtype=torch.float64)

    def add(self, losses: Tensor, lam: Tensor) -> None:
        bins = torch.bucketize(lam.cpu(), LAM_EDGES.double())
        self.sums.index_add_(0, bins, losses.double().cpu())
        self.counts.index_add_(0, bins, torch.ones_like(self.sums)[bins])

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    @property
    def by_lam(self) -> tuple[float, ...]:
        return tuple((self.sums / self.counts).tolist())


def _moving_average(decay: float):
    """An update for `AveragedModel` whose memory grows with age, so that the first steps are forgotten."""

    def update(averaged: list[Tensor], current: list[Tensor], seen: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(seen)) / (10 + int(seen)))
        torch._foreach_lerp_(averaged, current, share)

    return update


def _accelerator():
    """The process group that ``accelerate launch`` started, or None in a single process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.cuda.is_available())


def _ranks(accelerator) -> tuple[int, int]:
    return accelerator.num_processes, accelerator.process_index


def _tuples(report: dict) -> dict:
    return {**report, "loss_by_lam": tuple(report["loss_by_lam"])}

"""Trainings whose loss belongs to a room of the course: lesson 11's chains on grey levels and on tokens.

``survey train NAME`` makes a shipped one; `discrete_run` makes any kind with any seed, for comparisons over seeds.
Each takes minutes on one core. A shipped one is written only when whole; if it was stopped, the next call goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from survey_lib.core import grids
from survey_lib.core.categorical import Categorical, absorbing, discretised_gaussian, mask_and_replace, uniform
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.losses import denoising_loss, edm_weight, lognormal_times, stratified_times
from survey_lib.core.protocols import Callback, Denoiser
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import vp_cosine
from survey_lib.design import discrete
from survey_lib.lab import data
from survey_lib.lab.data import quantised
from survey_lib.lab.evaluation import metrics
from survey_lib.lab.evaluation.speed import fast, precision
from survey_lib.lab.runtime import require, suggest
from survey_lib.lab.training import checkpoints, recipes
from survey_lib.lab.training.trainer import Loss, Recipe, Trainer
from survey_lib.nets.autoencoder import Autoencoder
from survey_lib.nets.beside import Beside
from survey_lib.nets.transformer import Transformer
from survey_lib.nets.unet import UNet

#: What can be trained on grey levels. ``gaussian_plain`` has no auxiliary loss, ``bits_plain`` no self-conditioning.
KINDS = ("uniform", "absorbing", "gaussian", "gaussian_plain", "bits", "bits_plain", "continuous")
DATASETS = ("glyphs", "mnist")


@dataclass(frozen=True)
class Plan(Recipe):
    """A `Recipe` with what chains need besides: one of how many steps is drawn, and the weight of the second loss."""

    rate: float = 5e-3
    average: float = 0.995
    log_sigma_mean: float = -0.4
    log_sigma_std: float = 1.4
    chain: int = 100
    auxiliary: float = 0.01


def _replacing(categories: int) -> Categorical:
    """VQ-Diffusion's own mask-and-replace (Gu et al. 2022, sec. 4.1): at t, 0.9 t are masked and 0.1 t replaced."""
    return mask_and_replace(categories, survival=lambda t: (1 - t) / (1 - 0.9 * t))


_CHAINS: dict[str, Callable[[int], Categorical]] = {
    "uniform": uniform,
    "absorbing": absorbing,
    "gaussian": discretised_gaussian,
    "gaussian_plain": discretised_gaussian,
    "replace": _replacing,
}
COUNT = 2000  # samples for the scores in a manifest
_BITS = (quantised.LEVELS - 1).bit_length()
_UNET = {"widths": (24, 40)}


# ---------------------------------------------------------------------- names, for `survey train`

#: The kinds that ship: trained for longer than `discrete_run` does.
_LEVELS = ("uniform", "absorbing", "gaussian", "bits")
_TOKENS = ("absorbing", "replace", "causal")
#: Glyphs come in many faces, and take longer to become readable.
_LEVEL_STEPS = {"glyphs": 5000, "mnist": 1800}


def names() -> list[str]:
    """The checkpoints that `train` makes."""
    roles = [f"levels_{kind}" for kind in _LEVELS] + ["codes"] + [f"codes_{kind}" for kind in _TOKENS]
    return [f"{dataset}_{role}" for dataset in DATASETS for role in roles]


def plan_of(name: str) -> Plan:
    """How the checkpoint ``name`` is trained; a test holds the shipped ones to it."""
    if name not in names():
        raise ValueError(f'no training "{name}"{suggest(name, names())}; accepted: {", ".join(names())}')
    dataset, what, kind = _parts(name)
    if what == "levels":
        return replace(level_plan(kind, 0), steps=_LEVEL_STEPS[dataset])
    if not kind:
        return Plan(steps=600, rate=3e-3)
    return Plan(steps=2000, rate=5e-3, label_dropout=0.15)


def _parts(name: str) -> tuple[str, str, str]:
    """Data set, "levels" or "codes", and kind; the autoencoder itself is codes of no kind."""
    dataset, what, *kind = name.split("_", 2)
    return dataset, what, "".join(kind)


def level_plan(kind: str, seed: int) -> Plan:
    """How `discrete_run` trains a kind: all alike, but for the second loss, which ``gaussian_plain`` has not."""
    return Plan(steps=800, rate=8e-3, auxiliary=0.0 if kind == "gaussian_plain" else 0.01, seed=seed)


def train(
    name: str, *, device: str = "cpu", steps: int | None = None, root: Path | None = None, progress: bool = True
) -> Path:
    """Make the checkpoint ``name`` from scratch and save it with its manifest; ``steps`` shortens the plan.

    The token nets need ``codes`` in the same ``root``. Raises ValueError for an unknown name or another device.
    """
    plan = plan_of(name)
    if device != "cpu":
        raise ValueError(f'these nets are small, and trained on the CPU alone: device "cpu"; got "{device}"')
    plan = plan if steps is None else replace(plan, steps=steps)
    dataset, what, kind = _parts(name)
    state = recipes.state_of(name, steps)
    if what == "levels":
        trainer, scores = _level_trainer(dataset, kind, plan, state), partial(_level_scores, kind)
    elif kind:
        trainer, scores = _token_trainer(dataset, kind, plan, root, state), _token_scores
    else:
        trainer, scores = _codes_trainer(dataset, plan, state), _codes_scores
    model = trainer.finish(progress=progress)
    about = recipes.data_facts(data.load(dataset)) | {"recipe": asdict(plan), "seed": plan.seed}
    about |= recipes.circumstances(trainer.seconds, "cpu") | {"scores": scores(model, dataset, root)}
    chain = isinstance(model, discrete.CategoricalDenoiser)  # its network is all that there is to save
    path = checkpoints.save(name, model.net if chain else model, about, root=root)
    state.unlink(missing_ok=True)  # done: the next call begins anew
    return path


# ---------------------------------------------------------------------- grey levels


@dataclass(frozen=True, eq=False)
class Trained:
    """A denoiser of grey levels of one of the `KINDS`, the noise it undoes, and one call to sample from any of them."""

    kind: str
    denoiser: Denoiser
    corruption: Categorical | Gaussian
    net: nn.Module

    def sample(self, count: int, steps: int, *, generator: torch.Generator, callback: Callback | None = None) -> Tensor:
        """``count`` images of levels (count, 1, 16, 16), int64, by ``steps`` evaluations.

        Categories: the chain's own bridge on a uniform grid. Bits: DDPM's bridge on a uniform grid, as in the paper.
        Continuous: the second-order multistep sampler on Karras's grid. Numbers are rounded to levels at the end.
        """
        side, how = quantised.SIZE, {"generator": generator, "callback": callback}
        if isinstance(self.corruption, Categorical):
            x = self.corruption.prior((count, 1, side, side), generator=generator)
            return ancestral(self.denoiser, self.corruption, x, grids.uniform(steps), **how)
        if self.kind == "continuous":
            x, schedule = self.corruption.prior((count, 1, side, side), generator=generator), self.corruption.schedule
            drawn = multistep(self.denoiser, schedule, x, grids.karras(steps, schedule), callback=callback)
            return quantised.from_image(drawn)
        x = self.corruption.prior((count, _BITS, side, side), generator=generator)
        denoiser = discrete.SelfConditioned(self.denoiser) if self.kind == "bits" else self.denoiser
        return discrete.from_bits(ancestral(denoiser, self.corruption, x, grids.uniform(steps), **how), _BITS)


def discrete_run(dataset: str, kind: str, seed: int, *, steps: int | None = None, progress: bool = False) -> Trained:
    """Train one of the `KINDS` on the 8 grey levels of a data set: at most two minutes of one core."""
    plan = level_plan(require("kind", kind, str, choices=KINDS), seed)
    plan = plan if steps is None else replace(plan, steps=steps)
    return _finished(kind, _level_trainer(dataset, kind, plan).finish(progress=progress))


def trained(dataset: str, kind: str, *, root: Path | None = None) -> Trained:
    """The shipped `discrete_run` of seed 0."""
    loaded = checkpoints.load(f"{dataset}_levels_{kind}", schedule=vp_cosine(), root=root)
    return _finished(kind, loaded if isinstance(loaded, Preconditioned) else _level_model(kind, loaded))


def _level_model(kind: str, net: nn.Module | None = None) -> nn.Module:
    """An untrained denoiser of ``kind``, or one around the ``net`` given."""
    if kind in _CHAINS:
        chain = _CHAINS[kind](quantised.LEVELS)
        net = net or UNet(len(chain.stationary), **_UNET)
        return discrete.CategoricalDenoiser(net, chain, quantised.LEVELS)
    if kind == "continuous":
        return Preconditioned(net or UNet(1, **_UNET), vp_cosine(), "edm", sigma_data=0.5)
    beside = {"bits": _BITS, "bits_plain": 0}[kind]
    return Preconditioned(net or Beside(_BITS, beside, **_UNET), vp_cosine(), "edm", sigma_data=1.0)


def _level_trainer(dataset: str, kind: str, plan: Plan, state: Path | None = None) -> Trainer:
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)  # torch's initialisers know no generator
        model = _level_model(kind)
    loss = _chain_loss(model.corruption, plan) if kind in _CHAINS else _gaussian_loss(kind, model, plan)
    return Trainer(model, TensorDataset(quantised.levels(dataset)[0]), plan, loss=loss, save_to=state)


def _chain_loss(chain: Categorical, plan: Plan) -> Loss:
    """The hybrid loss of all steps of the chain, estimated at one of them."""

    def loss(model: nn.Module, x0: Tensor, cond: None, generator: torch.Generator) -> tuple[Tensor, None]:
        t, s = discrete.chain_steps(len(x0), plan.chain, generator=generator)
        about = {"auxiliary": plan.auxiliary, "generator": generator}
        return plan.chain * discrete.hybrid_loss(model, chain, x0, t, s, **about), None

    return loss


def _gaussian_loss(kind: str, denoiser: Preconditioned, plan: Plan) -> Loss:
    """EDM's loss on levels as numbers, or on their bits; half of the batches of ``bits`` see an earlier answer."""
    schedule, corruption = denoiser.schedule, Gaussian(denoiser.schedule)

    def loss(model: nn.Module, x0: Tensor, cond: None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        law = {"mean": plan.log_sigma_mean, "std": plan.log_sigma_std}
        t = lognormal_times(len(x0), schedule, **law, generator=generator)
        lam = schedule.lam(t)
        about = {"weight": edm_weight(lam, denoiser.sigma_data), "generator": generator}
        if kind == "continuous":
            return denoising_loss(model, corruption, quantised.to_image(x0), t, **about), lam
        share, bits = 0.5 if kind == "bits" else 0.0, discrete.to_bits(x0, _BITS)
        return discrete.self_conditioned_loss(model, corruption, bits, t, share=share, **about), lam

    return loss


def _finished(kind: str, model: nn.Module) -> Trained:
    corruption = model.corruption if kind in _CHAINS else Gaussian(model.schedule)
    return Trained(kind, fast(model), corruption, model.net)


def _level_scores(kind: str, model: nn.Module, dataset: str, root: Path | None) -> dict[str, float]:
    """Fréchet distance of 2000 samples at 50 evaluations, and its floor."""
    count, generator = COUNT, torch.Generator().manual_seed(0)
    eye = checkpoints.load(f"{dataset}_features", root=root)
    real = metrics.features(
        eye, quantised.for_features(quantised.levels(dataset, split="test", count=2 * count)[0], eye.channels)
    )
    drawn = _finished(kind, model).sample(count, 50, generator=generator)
    return recipes.distances(real, metrics.features(eye, quantised.for_features(drawn, eye.channels)), generator)


# ---------------------------------------------------------------------- tokens


def tokenizer(dataset: str, *, root: Path | None = None) -> Autoencoder:
    """The shipped autoencoder with a codebook."""
    return checkpoints.load(f"{dataset}_codes", root=root)


def token_denoiser(dataset: str, kind: str, *, root: Path | None = None) -> discrete.CategoricalDenoiser:
    """The shipped denoiser of tokens for the chain "replace" (mask-and-replace) or "absorbing", its ``.corruption``."""
    net = checkpoints.load(f"{dataset}_codes_{kind}", root=root)
    return discrete.CategoricalDenoiser(net, _CHAINS[kind](net.config["outputs"]), net.config["outputs"]).eval()


def token_causal(dataset: str, *, root: Path | None = None) -> Transformer:
    """The shipped autoregressive network of tokens."""
    return checkpoints.load(f"{dataset}_codes_causal", root=root)


def all_tokens(codes: Autoencoder, images: Tensor) -> Tensor:
    """Bytes (N, C, H, W) to tokens (N, L)."""
    with torch.no_grad(), precision():
        return torch.cat([codes.tokens(data.to_float(chunk)) for chunk in images.split(1000)])


def _codes_trainer(dataset: str, plan: Plan, state: Path | None = None) -> Trainer:
    images = quantised.pictures(dataset)
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        model = Autoencoder(images.shape[0], codes=64)

    def loss(model: Autoencoder, x0: Tensor, cond: None, generator: torch.Generator) -> tuple[Tensor, None]:
        z = model.encode(x0)
        code, index = model.quantise(z)
        away = (z - code.detach()).float().square().flatten(1).mean(1)
        model.codebook.learn(z.detach().movedim(1, -1), index, generator=generator)
        return (model.decode(code).float() - x0).square().flatten(1).mean(1) + 0.25 * away, None

    return Trainer(model, images, plan, loss=loss, save_to=state)


def _codes_scores(model: Autoencoder, dataset: str, root: Path | None) -> dict[str, float]:
    """What decoding loses: mean squared error and Fréchet distance of 2000 test pictures; how many codes they use."""
    test = quantised.pictures(dataset, split="test", count=COUNT)
    with torch.no_grad():
        again = torch.cat([model(chunk) for chunk in test.float().split(500)]).clamp(-1, 1)
    eye = checkpoints.load(f"{dataset}_features", root=root)
    used = all_tokens(model, test.images).unique().numel()
    return {
        "mean_square": float((again - test.float()).square().mean()),
        "fd": metrics.frechet_distance(metrics.features(eye, test.images), metrics.features(eye, again)),
        "codes_used": float(used),
    }


def _token_trainer(dataset: str, kind: str, plan: Plan, root: Path | None, state: Path | None = None) -> Trainer:
    codes, images = tokenizer(dataset, root=root), quantised.pictures(dataset)
    x0, classes = all_tokens(codes, images.images), len(images.classes)
    count = codes.config["codes"]
    chain = None if kind == "causal" else _CHAINS[kind](count)
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        net = Transformer(
            count if chain is None else len(chain.stationary), count, x0.shape[1],
            width=48, classes=classes, causal=chain is None,
        )  # fmt: skip
    model = net if chain is None else discrete.CategoricalDenoiser(net, chain, count)

    def loss(model: nn.Module, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        if chain is None:
            return F.cross_entropy(model(x0, None, cond).float().movedim(-1, 1), x0, reduction="none").mean(1), None
        t = stratified_times(len(x0), generator=generator)
        return discrete.cross_entropy(model, chain, x0, t, cond=cond, generator=generator), None

    return Trainer(model, TensorDataset(x0, images.labels), plan, loss=loss, save_to=state)


def _token_scores(model: nn.Module, dataset: str, root: Path | None) -> dict[str, float]:
    """Fréchet distance of 2000 decoded samples, at 25 steps (a causal network: as many as there are tokens)."""
    generator, test = torch.Generator().manual_seed(0), quantised.pictures(dataset, split="test", count=COUNT)
    count, cond = len(test), test.labels
    with precision():
        if isinstance(model, Transformer):
            drawn = discrete.autoregressive(model, (count, model.length), cond=cond, generator=generator)
        else:
            x = model.corruption.prior((count, model.net.length), generator=generator)
            drawn = ancestral(fast(model), model.corruption, x, grids.uniform(25), cond=cond, generator=generator)
    eye = checkpoints.load(f"{dataset}_features", root=root)
    fake = metrics.features(eye, decoded(tokenizer(dataset, root=root), drawn))
    return {"fd": metrics.frechet_distance(metrics.features(eye, test.images), fake)}


def decoded(codes: Autoencoder, tokens: Tensor) -> Tensor:
    """Tokens (N, L) as images (N, C, H, W) in [-1, 1]."""
    with torch.no_grad():
        return torch.cat([codes.decode_tokens(part) for part in tokens.split(500)]).clamp(-1, 1)

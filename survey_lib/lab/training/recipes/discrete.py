"""Lesson 11: denoisers of grey levels, an autoencoder with a codebook, and networks of its tokens.

``levels_KIND`` are trained on 8 grey levels, for minutes on one core. ``codes`` is the autoencoder; the networks of
tokens, ``codes_KIND``, need it in the same folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from survey_lib.core import grids
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
from survey_lib.lab.data.images import ImageSet, to_float, to_uint8
from survey_lib.lab.evaluation.evaluator import Evaluator
from survey_lib.lab.evaluation.speed import fast, precision
from survey_lib.lab.training.checkpoints import CHAINS
from survey_lib.lab.training.recipes import training
from survey_lib.lab.training.recipes.training import Training
from survey_lib.lab.training.trainer import Loss, Recipe
from survey_lib.nets.autoencoder import Autoencoder
from survey_lib.nets.transformer import Transformer
from survey_lib.nets.unet import UNet

_BITS = (quantised.LEVELS - 1).bit_length()
_UNET = {"widths": (24, 40)}
_CODES = 64  # vectors in the codebook
_RECIPE = Recipe(rate=5e-3, average=0.995, log_sigma_mean=-0.4, log_sigma_std=1.4)


@dataclass(frozen=True)
class ChainRecipe(Recipe):
    """A `Recipe` for chains of categories, with the numbers of D3PM's hybrid loss."""

    chain: int = 100  # steps of the chain, one of which is drawn
    auxiliary: float = 0.01  # weight of the cross-entropy


# ---------------------------------------------------------------------- grey levels


def sample_levels(
    model: discrete.CategoricalDenoiser | Preconditioned,
    count: int,
    steps: int,
    *,
    generator: torch.Generator,
    callback: Callback | None = None,
    denoiser: Denoiser | None = None,
) -> Tensor:
    """Draw images of grey levels (count, 1, 16, 16), int64, with ``steps`` evaluations of a model of any kind.

    Categories: the chain's own bridge on a uniform grid. Bits: DDPM's bridge on a uniform grid, as in the paper.
    Continuous: the second-order multistep sampler on Karras's grid, rounded to levels at the end.
    ``denoiser`` is evaluated in place of the model: the model counted, say.
    """
    denoiser, channels = fast(model) if denoiser is None else denoiser, 1
    how, times = {"generator": generator, "callback": callback}, grids.uniform(steps)
    if isinstance(model, discrete.CategoricalDenoiser):
        corruption = model.corruption
    else:
        corruption, channels = Gaussian(model.schedule), model.net.channels
        times = grids.karras(steps, model.schedule) if channels == 1 else times
    x = corruption.prior((count, channels, quantised.SIZE, quantised.SIZE), times[0], generator=generator)
    if isinstance(model, discrete.CategoricalDenoiser):
        return ancestral(denoiser, corruption, x, times, **how)
    if channels == 1:
        drawn = multistep(denoiser, model.schedule, x, times, callback=callback)
        return quantised.from_image(drawn)
    denoiser = discrete.SelfConditioned(denoiser) if model.net.cond_channels else denoiser
    return discrete.from_bits(ancestral(denoiser, corruption, x, times, **how), _BITS)


def _levels(dataset: str, root: Path | None) -> TensorDataset:
    return TensorDataset(quantised.levels(dataset)[0])


def _chain(name: str, examples: TensorDataset) -> discrete.CategoricalDenoiser:
    chain = CHAINS[name](quantised.LEVELS)
    return discrete.CategoricalDenoiser(UNet(len(chain.stationary), **_UNET), chain, quantised.LEVELS)


def _bits(cond_channels: int, examples: TensorDataset) -> Preconditioned:
    return Preconditioned(UNet(_BITS, cond_channels=cond_channels, **_UNET), vp_cosine(), "edm", sigma_data=1.0)


def _continuous(examples: TensorDataset) -> Preconditioned:
    return Preconditioned(UNet(1, **_UNET), vp_cosine(), "edm", sigma_data=0.5)


def _hybrid(denoiser: discrete.CategoricalDenoiser, recipe: ChainRecipe) -> Loss:
    """D3PM's hybrid loss of all steps of the chain, estimated at one of them."""

    def loss(model: nn.Module, x0: Tensor, cond: None, generator: torch.Generator) -> tuple[Tensor, None]:
        t, s = discrete.chain_steps(len(x0), recipe.chain, generator=generator)
        about = {"auxiliary": recipe.auxiliary, "generator": generator}
        return recipe.chain * discrete.hybrid_loss(model, denoiser.corruption, x0, t, s, **about), None

    return loss


def _gaussian(denoiser: Preconditioned, recipe: Recipe) -> Loss:
    """EDM's loss on levels as numbers, or on their bits; half of the self-conditioned batches see a prediction."""
    schedule, corruption, channels = denoiser.schedule, Gaussian(denoiser.schedule), denoiser.net.channels

    def loss(model: nn.Module, x0: Tensor, cond: None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        levels = {"mean": recipe.log_sigma_mean, "std": recipe.log_sigma_std}
        t = lognormal_times(len(x0), schedule, **levels, generator=generator)
        lam = schedule.lam(t)
        about = {"weight": edm_weight(lam, denoiser.sigma_data), "generator": generator}
        if channels == 1:
            return denoising_loss(model, corruption, quantised.to_image(x0), t, **about), lam
        share, bits = 0.5 if denoiser.net.cond_channels else 0.0, discrete.to_bits(x0, _BITS)
        return discrete.self_conditioned_loss(model, corruption, bits, t, probability=share, **about), lam

    return loss


def _levels_score(model: nn.Module, dataset: str, root: Path | None) -> dict[str, float]:
    """Quality of samples at 50 evaluations."""
    real, labels = quantised.levels(dataset, split="test", count=2 * training.COUNT)
    first = data.load(dataset, split="test", count=1)
    channels, classes = first.shape[0], first.classes
    shown = to_uint8(quantised.for_features(real, channels))

    def sample(evaluator: Evaluator) -> Tensor:
        drawn = sample_levels(model, evaluator.count, 50, generator=torch.Generator().manual_seed(0))
        return quantised.for_features(drawn, channels)

    return training.score(sample, dataset, root, test=ImageSet(dataset, shown, labels, classes))


def _level_row(model: Callable, loss: Callable, kind: type[Recipe] = Recipe, **numbers: float) -> Training:
    recipe = kind(**asdict(_RECIPE) | {"steps": 800, "rate": 8e-3} | numbers)
    return Training(data=_levels, model=model, loss=loss, recipe=recipe, score=_levels_score)


#: The kinds that lesson 11 compares over seeds by `recipes.fit`, two minutes of one core each: chains of D3PM (one
#: without its auxiliary loss), bits with and without self-conditioning, and levels as numbers.
LEVELS: Mapping[str, Training] = {
    "uniform": _level_row(partial(_chain, "uniform"), _hybrid, ChainRecipe),
    "absorbing": _level_row(partial(_chain, "absorbing"), _hybrid, ChainRecipe),
    "gaussian": _level_row(partial(_chain, "gaussian"), _hybrid, ChainRecipe),
    "gaussian_plain": _level_row(partial(_chain, "gaussian"), _hybrid, ChainRecipe, auxiliary=0.0),
    "bits": _level_row(partial(_bits, _BITS), _gaussian),
    "bits_plain": _level_row(partial(_bits, 0), _gaussian),
    "continuous": _level_row(_continuous, _gaussian),
}


# ---------------------------------------------------------------------- tokens


def all_tokens(codes: Autoencoder, images: Tensor) -> Tensor:
    """Bytes (N, C, H, W) to tokens (N, L), in batches."""
    with torch.no_grad(), precision():
        return torch.cat([codes.tokens(to_float(chunk)) for chunk in images.split(1000)])


def _decoded(codes: Autoencoder, tokens: Tensor) -> Tensor:
    """Tokens (N, L) to images (N, C, H, W) in [-1, 1], in batches."""
    with torch.no_grad():
        return torch.cat([codes.decode_tokens(part) for part in tokens.split(500)]).clamp(-1, 1)


def _token_images(dataset: str, root: Path | None) -> ImageSet:
    return quantised.token_images(dataset)


def _tokens(dataset: str, root: Path | None) -> TensorDataset:
    """Tokens (N, L) of the autoencoder in the same folder, and labels."""
    images = quantised.token_images(dataset)
    return TensorDataset(all_tokens(training.load(f"{dataset}_codes", root), images.images), images.labels)


def _vq_vae(model: Autoencoder, recipe: Recipe) -> Loss:
    """Squared error and the commitment of latents to their codes (VQ-VAE, eq. 3); the codes follow the latents."""

    def loss(model: Autoencoder, x0: Tensor, cond: None, generator: torch.Generator) -> tuple[Tensor, None]:
        z = model.encode(x0)
        code, index = model.quantise(z)
        away = (z - code.detach()).float().square().flatten(1).mean(1)
        model.codebook.learn(z.detach().movedim(1, -1), index, generator=generator)
        return (model.decode(code).float() - x0).square().flatten(1).mean(1) + 0.25 * away, None

    return loss


def _codes_score(model: Autoencoder, dataset: str, root: Path | None) -> dict[str, float]:
    """Loss by encoding and decoding test images, squared error and quality; and the number of codes in use."""
    test = quantised.token_images(dataset, split="test", count=2 * training.COUNT)
    half = test.take(slice(len(test) // 2))
    with torch.no_grad():
        decoded = torch.cat([model(chunk) for chunk in half.float().split(500)]).clamp(-1, 1)
    return {
        "mean_square": float((decoded - half.float()).square().mean()),
        "codes_used": float(all_tokens(model, half.images).unique().numel()),
        **training.score(lambda _: decoded, dataset, root, test=test),
    }


def _token_net(states: int, causal: bool, examples: TensorDataset) -> Transformer:
    x0, labels = examples.tensors
    classes = int(labels.max()) + 1
    return Transformer(states, _CODES, x0.shape[1], width=48, classes=classes, causal=causal)


def _token_denoiser(name: str, examples: TensorDataset) -> discrete.CategoricalDenoiser:
    chain = CHAINS[name](_CODES)
    return discrete.CategoricalDenoiser(_token_net(len(chain.stationary), False, examples), chain, _CODES)


def _cross_entropy(denoiser: discrete.CategoricalDenoiser, recipe: Recipe) -> Loss:
    """``-log p(x0 | x_t)`` at times spread evenly over the batch."""

    def loss(model: nn.Module, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        t = stratified_times(len(x0), generator=generator)
        return discrete.cross_entropy(model, denoiser.corruption, x0, t, cond=cond, generator=generator), None

    return loss


def _next_token(net: Transformer, recipe: Recipe) -> Loss:
    """``-log p(token | those before it)``, a mean over the tokens."""

    def loss(model: nn.Module, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        return F.cross_entropy(model(x0, None, cond).float().movedim(-1, 1), x0, reduction="none").mean(1), None

    return loss


def _tokens_score(model: nn.Module, dataset: str, root: Path | None) -> dict[str, float]:
    """Quality of decoded samples, drawn in 25 steps (a causal network: one step a token)."""
    test = quantised.token_images(dataset, split="test", count=2 * training.COUNT)

    def sample(evaluator: Evaluator) -> Tensor:
        generator, count = torch.Generator().manual_seed(0), evaluator.count
        cond = test.labels[:count]
        with precision():
            if isinstance(model, Transformer):
                drawn = discrete.autoregressive(
                    model, (count, model.length), cond=cond, cached=True, generator=generator
                )
            else:
                x = model.corruption.prior((count, model.net.length), generator=generator)
                drawn = ancestral(fast(model), model.corruption, x, grids.uniform(25), cond=cond, generator=generator)
        return _decoded(training.load(f"{dataset}_codes", root), drawn)

    return training.score(sample, dataset, root, test=test, labelled=True)


def _token_row(model: Callable, loss: Callable) -> Training:
    recipe = replace(_RECIPE, steps=2000, label_dropout=0.15)
    return Training(data=_tokens, model=model, loss=loss, recipe=recipe, score=_tokens_score)


#: Shipped grey levels train for longer than `LEVELS`; glyphs come in many faces and take longer to become readable.
_LONGER = {"glyphs": {"steps": 5000}, "mnist": {"steps": 1800}}

TRAININGS: Mapping[str, Training] = {
    **{
        f"levels_{name}": replace(LEVELS[name], changes=_LONGER)
        for name in ("uniform", "absorbing", "gaussian", "bits")
    },
    "codes": Training(
        data=_token_images,
        model=lambda images: Autoencoder(images.shape[0], codes=_CODES),
        loss=_vq_vae,
        recipe=replace(_RECIPE, steps=600, rate=3e-3),
        score=_codes_score,
    ),
    "codes_absorbing": _token_row(partial(_token_denoiser, "absorbing"), _cross_entropy),
    "codes_replace": _token_row(partial(_token_denoiser, "replace"), _cross_entropy),
    "codes_causal": _token_row(partial(_token_net, _CODES, True), _next_token),
}

"""Tensors on one device and the generator on another: nothing may mix the two.

Device "meta" has shapes and devices but no numbers, so every machine can run this; on a GPU the numbers are compared
with the CPU's, from the same generator.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from survey_lib.core import categorical, grids, integrators, likelihood, losses, samplers
from survey_lib.core.corruptions import Cold, Gaussian, Renoise, chain_variance
from survey_lib.core.exact import CategoricalTable, Empirical, GaussianLaw, GaussianMixture
from survey_lib.core.heads import Kind, LabelPosterior, Preconditioned, Reschedule
from survey_lib.core.schedules import edm, rectified, vp_cosine, vp_linear
from survey_lib.design import discrete, guidance, pyramid
from survey_lib.design import score as scores
from survey_lib.design.latent import paint
from survey_lib.nets.autoencoder import Autoencoder, KLAutoencoder
from survey_lib.nets.captioned import CaptionedUNet
from survey_lib.nets.classifier import Classifier, NoisyClassifier
from survey_lib.nets.finder import Finder
from survey_lib.nets.layers import initialised
from survey_lib.nets.mlp import MLP
from survey_lib.nets.semantic import SemanticUNet
from survey_lib.nets.transformer import Transformer
from survey_lib.nets.unet import UNet
from survey_lib.nets.vit import UViT
from survey_lib.process import scheduling
from tests.support import generator

DEVICES = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]
SCHEDULE, TIMES = vp_linear(), grids.uniform(4)
LATER = grids.uniform(4, start=0.9)
T, S = torch.tensor([0.9, 0.6, 0.3]), torch.tensor([0.5, 0.2, 0.1])
X = torch.randn(3, 1, 8, 8, generator=generator())
Y = torch.tensor([0, 1, 1])
MIXTURE = GaussianMixture(
    torch.randn(4, 1, 8, 8, generator=generator(1)), scales=0.5, labels=torch.tensor([0, 0, 1, 1])
)
TABLE = CategoricalTable(torch.rand(3, 3, generator=generator(2)) + 0.1)
MASKS = CategoricalTable(torch.nn.functional.pad(TABLE.probabilities, (0, 1, 0, 1)))
CHAIN, MASKED = categorical.uniform(3), categorical.absorbing(3)
TOKENS = torch.tensor([[0, 2], [1, 1], [2, 0]])


def net(device: str, **options) -> UNet:
    return initialised(0, lambda: UNet(1, widths=(8, 8), embedding=8, **options)).to(device)


def denoiser(device: str, kind: Kind = "edm", **options) -> Preconditioned:
    return Preconditioned(net(device, **options), SCHEDULE, kind)


def labels(device: str) -> LabelPosterior:
    return LabelPosterior(initialised(0, lambda: NoisyClassifier(1, 2, widths=(8, 8))).to(device), SCHEDULE)


EXACT = MIXTURE.denoiser(SCHEDULE)
SAMPLERS = {
    "ancestral": lambda x: samplers.ancestral(EXACT, Gaussian(SCHEDULE), x, TIMES, generator=generator()),
    "ddim": lambda x: samplers.ancestral(EXACT, Gaussian(SCHEDULE, 0.0), x, TIMES),
    "half noise": lambda x: samplers.ancestral(EXACT, Gaussian(SCHEDULE, 0.5), x, TIMES, generator=generator()),
    "large variance": lambda x: samplers.ancestral(
        EXACT, Gaussian(SCHEDULE, variance=chain_variance), x, TIMES, generator=generator()
    ),
    "renoise": lambda x: samplers.ancestral(EXACT, Renoise(SCHEDULE), x, TIMES, generator=generator()),
    "cold": lambda x: samplers.ancestral(lambda x, t, cond: x, Cold(lambda x, t: x * (1 - t)), x, TIMES),
    "euler_maruyama": lambda x: samplers.euler_maruyama(EXACT, SCHEDULE, x, LATER, generator=generator()),
    "predictor_corrector": lambda x: samplers.predictor_corrector(
        EXACT, SCHEDULE, x, TIMES, bridge=Gaussian(SCHEDULE).bridge, generator=generator()
    ),
    "heun": lambda x: samplers.heun(EXACT, SCHEDULE, x, TIMES),
    "heun churned": lambda x: samplers.heun(EXACT, SCHEDULE, x, TIMES, churn=4.0, generator=generator()),
    "multistep": lambda x: integrators.multistep(EXACT, SCHEDULE, x, TIMES, order=3, predict="eps", correct=True),
    "dpm_singlestep": lambda x: integrators.dpm_singlestep(EXACT, SCHEDULE, x, TIMES, order=3),
    "pndm": lambda x: integrators.pndm(EXACT, SCHEDULE, x, TIMES),
    "labelled": lambda x: integrators.multistep(denoiser(x.device, classes=2), SCHEDULE, x, TIMES, cond=1),
    "langevin": lambda x: scores.langevin(EXACT, SCHEDULE, x, 0.5, steps=2, generator=generator()),
    "annealed_langevin": lambda x: scores.annealed_langevin(EXACT, SCHEDULE, x, LATER, steps=2, generator=generator()),
    "come_closer": lambda x: scheduling.come_closer(EXACT, Gaussian(SCHEDULE), x, LATER, generator=generator()),
}
CORRUPTIONS = {
    "gaussian": lambda x: Gaussian(SCHEDULE).corrupt(x, 0.4, generator=generator()),
    "gaussian, times": lambda x: Gaussian(SCHEDULE).corrupt(x, T, generator=generator()),
    "bridge": lambda x: Gaussian(SCHEDULE).bridge(x, x, 0.9, 0.4, generator=generator()),
    "bridge, times": lambda x: Gaussian(SCHEDULE).bridge(x, x, T, S, generator=generator()),
    "learned variance": lambda x: Gaussian(SCHEDULE, variance=x**2).bridge(x, x, T, S, generator=generator()),
    "implied_x0": lambda x: Gaussian(SCHEDULE).implied_x0(x, x, T, S),
    "renoise": lambda x: Renoise(SCHEDULE).bridge(x, x, T, S, generator=generator()),
}
CATEGORIES = {
    "corrupt": lambda x: CHAIN.corrupt(x, T, generator=generator()),
    "posterior": lambda x: CHAIN.posterior(x, CHAIN.marginal(x, 0.1), T, S),
    "ancestral": lambda x: samplers.ancestral(TABLE.denoiser(CHAIN), CHAIN, x, TIMES, generator=generator()),
    "bound": lambda x: losses.variational_bound(TABLE.denoiser(CHAIN), CHAIN, x, TIMES, generator=generator()).total,
    "posterior_without_bayes": lambda x: categorical.posterior_without_bayes(CHAIN, x, CHAIN.marginal(x, 0.1), T, S),
    "cross_entropy": lambda x: discrete.cross_entropy(TABLE.denoiser(CHAIN), CHAIN, x, T, generator=generator()),
    "logit guidance": lambda x: discrete.LogitGuidance(lambda x, t, cond: TABLE.denoiser(CHAIN)(x, t), 2, 3.0)(
        x, T, Y.to(x.device)
    ),
    "bound_in_bits": lambda x: discrete.bound_in_bits(TABLE.denoiser(CHAIN), CHAIN, x, TIMES, generator=generator()),
}
LOSSES = {
    "denoising_loss": lambda x: losses.denoising_loss(
        EXACT, Gaussian(SCHEDULE), x, T, weight=losses.edm_weight(SCHEDULE.lam(T)), generator=generator()
    ),
    "variational_bound": lambda x: (
        losses.variational_bound(EXACT, Gaussian(SCHEDULE), x, TIMES, generator=generator()).total
    ),
    "density": lambda x: (
        losses.variational_bound(EXACT, Gaussian(SCHEDULE), x, TIMES, bin_width=None, generator=generator()).total
    ),
    "continuous_bound": lambda x: losses.continuous_bound(EXACT, SCHEDULE, x, generator=generator()),
    "likelihood_score_loss": lambda x: guidance.likelihood_score_loss(
        labels(x.device), EXACT, SCHEDULE, x, T, Y.to(x.device), generator=generator()
    ).detach(),
}
GUIDES = {
    "classifier-free": lambda x, y: guidance.ClassifierFree(denoiser(x.device, classes=2), 2, 3.0)(x, T, y),
    "classifier-free, two calls": lambda x, y: guidance.ClassifierFree(EXACT, None, 3.0)(x, T, y),
    "scales": lambda x, y: guidance.ClassifierFree(EXACT, -1, torch.tensor([1.0, 2.0, 3.0]))(x, T, y),
    "classifier": lambda x, y: guidance.Classifier(EXACT, labels(x.device).log_prob, SCHEDULE, 2.0)(x, T, y),
    "autoguidance": lambda x, y: guidance.Autoguidance(EXACT, denoiser(x.device), 2.0)(x, T),
    "interval": lambda x, y: guidance.Interval(EXACT, denoiser(x.device), SCHEDULE, 0.5, 5.0)(x, T),
    "dynamic threshold": lambda x, y: guidance.DynamicThreshold(EXACT)(x, T),
    "rescaled": lambda x, y: guidance.Rescaled(guidance.Autoguidance(EXACT, denoiser(x.device), 2.0))(x, T),
    "entropy-scaled": lambda x, y: guidance.EntropyScaled(EXACT, labels(x.device), SCHEDULE, 2.0)(x, T, y),
    "self-guidance": lambda x, y: guidance.SelfGuidance(EXACT, SCHEDULE, 2.0)(x, T),
}
DENOISERS = {
    **{
        kind: lambda x, kind=kind: denoiser(x.device, kind)(x, T) for kind in ("x0", "eps", "score", "v", "flow", "edm")
    },
    "rescheduled": lambda x: Reschedule(denoiser(x.device), SCHEDULE, edm())(x, T),
    "mixture": lambda x: EXACT(x, T, Y.to(x.device)),
    "normal": lambda x: GaussianLaw(torch.zeros(1, 8, 8), torch.eye(64)).denoiser(rectified())(x, T),
    "empirical": lambda x: Empirical(X, Y).denoiser(vp_cosine())(x, T, Y.to(x.device)),
    "score": lambda x: MIXTURE.score(x, T, SCHEDULE),
    "log_prob": lambda x: MIXTURE.log_prob(x, T, SCHEDULE),
}
CAPTIONED = {"widths": (8, 8), "patch": 1, "attention": (1,), "embedding": 8}
NETS = {
    "unet": lambda x: net(x.device, attention=(1,))(x, x.new_zeros(3)),
    "unet, labels": lambda x: net(x.device, classes=2)(x, x.new_zeros(3), Y.to(x.device)),
    "noisy classifier": lambda x: labels(x.device)(x, T),
    "classifier": lambda x: initialised(0, lambda: Classifier(1, (2,), widths=(8, 8))).to(x.device).eval()(x),
    "autoencoder": lambda x: initialised(0, lambda: Autoencoder(1, width=8, codes=None)).to(x.device)(x),
    "autoencoder, normalised": lambda x: initialised(0, lambda: KLAutoencoder(1, width=8)).to(x.device)(x),
    "finder": lambda x: initialised(0, lambda: Finder(1, widths=(8, 8), cell=4)).to(x.device)(x),
    "u-vit": lambda x: initialised(0, lambda: UViT(1, width=32, layers=3)).to(x.device)(x, x.new_zeros(3)),
    "u-vit, labels": lambda x: initialised(0, lambda: UViT(1, width=32, layers=3, classes=2)).to(x.device)(
        x, x.new_zeros(3), Y.to(x.device)
    ),
    "captions": lambda x: initialised(0, lambda: CaptionedUNet(4, 6, width=8, channels=1, **CAPTIONED)).to(x.device)(
        x, x.new_zeros(3), torch.ones(3, 6, dtype=torch.long, device=x.device)
    ),
    "semantic code": lambda x: (
        initialised(0, lambda: SemanticUNet(1, code=4, **CAPTIONED)).to(x.device).eval()(x, x.new_zeros(3), x)
    ),
    "painted layout": lambda x: paint(x[:, 0, :4, :5], 8),
    "haar": lambda x: pyramid.unhaar(pyramid.haar(x)),
    "lifted": lambda x: pyramid.lifted(SCHEDULE, 0.5, 0.3)(x, generator()),
    "renoised": lambda x: pyramid.renoised(Gaussian(SCHEDULE), 0.5)(x, generator()),
    "mlp": lambda x: initialised(0, lambda: MLP(64)).to(x.device)(x.flatten(1), x.new_zeros(3)),
    "transformer": lambda x: initialised(0, lambda: Transformer(4, 3, 8, width=32)).to(x.device)(
        torch.zeros(3, 8, dtype=torch.long, device=x.device), x.new_zeros(3)
    ),
}


def agree(run, device: str, *inputs: Tensor) -> None:
    found, expected = run(*(x.to(device) for x in inputs)), run(*inputs)
    assert found.device.type == device and found.shape == expected.shape and found.dtype == expected.dtype
    if device != "meta":
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "run",
    [
        pytest.param(run, id=f"{kind}: {name}")
        for kind, table in {
            "sampler": SAMPLERS,
            "corruption": CORRUPTIONS,
            "loss": LOSSES,
            "denoiser": DENOISERS,
            "net": NETS,
        }.items()
        for name, run in table.items()
    ],
)
def test_images_stay_on_their_device(run, device):
    agree(run, device, X)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CATEGORIES)
def test_categories_stay_on_their_device(name, device):
    agree(CATEGORIES[name], device, TOKENS)


#: Drawn by torch's own routines on the generator's device, to which "meta" cannot be copied.
DRAWN = {
    "mixture": lambda x: MIXTURE.sample_posterior(X.to(x.device), T, SCHEDULE, generator=generator()),
    "empirical": lambda x: Empirical(X).sample_posterior(X.to(x.device), T, SCHEDULE, generator=generator()),
    "tau leaping": lambda x: discrete.tau_leaping(TABLE.denoiser(CHAIN), CHAIN, x, LATER, generator=generator()),
    "confidence decoding": lambda x: samplers.ancestral(
        MASKS.denoiser(MASKED),
        discrete.ConfidenceDecoding(MASKED),
        torch.full_like(x, 3),
        TIMES,
        generator=generator(),
    ),
    "autoregressive": lambda x: discrete.autoregressive(
        initialised(0, lambda: Transformer(4, 3, 8, width=32, causal=True)).to(x.device), (3, 8), generator=generator()
    ),
}


@pytest.mark.parametrize("device", ["cpu", *DEVICES[1:]])
@pytest.mark.parametrize("name", DRAWN)
def test_draws_come_back_from_the_device_of_the_generator(name, device):
    agree(DRAWN[name], device, TOKENS)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", GUIDES)
def test_guided_predictions_stay_on_their_device(name, device):
    agree(GUIDES[name], device, X, Y)


@pytest.mark.parametrize("device", DEVICES)
def test_the_probes_of_a_likelihood_are_on_the_device_of_the_data(device, monkeypatch):
    """An adaptive solver looks at numbers, so on "meta" one evaluation of the velocity takes its place."""

    def once(velocity, state, lams, **_):
        return tuple(torch.stack([part, part]) for part in velocity(torch.tensor(-1.0), state))

    if device == "meta":
        monkeypatch.setattr(likelihood, "odeint", once)
    agree(lambda x: likelihood.log_likelihood(EXACT, SCHEDULE, x, probes=2, generator=generator()), device, X.double())

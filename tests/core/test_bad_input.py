"""Invalid arguments of samplers, corruptions, heads and schedules: each gets one sentence, before the first step."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from survey_lib.core import grids, integrators, likelihood, samplers, toys
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import LabelPosterior, Preconditioned, Reschedule, select_label
from survey_lib.core.schedules import edm, vp_linear
from survey_lib.nets.classifier import NoisyClassifier
from survey_lib.nets.mlp import MLP
from survey_lib.nets.unet import UNet
from tests.support import generator

SCHEDULE, TIMES, X = vp_linear(), grids.uniform(3, start=0.9), torch.ones(4, 2)
RANDOM = {
    "ancestral": lambda denoiser, *args, **k: samplers.ancestral(denoiser, Gaussian(SCHEDULE), *args[1:], **k),
    "euler_maruyama": samplers.euler_maruyama,
    "predictor_corrector": samplers.predictor_corrector,
    "heun churned": partial(samplers.heun, churn=2.0),
}
SAMPLERS = RANDOM | {
    "heun": samplers.heun,
    "multistep": integrators.multistep,
    "dpm_singlestep": integrators.dpm_singlestep,
    "pndm": integrators.pndm,
    "probability_flow": likelihood.probability_flow,
}
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def refuse(kind, words, call):
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def sample(name, x=X, times=TIMES, denoiser=lambda x, t, cond: 0.5 * x, **options):
    options = ({"generator": generator()} if name in RANDOM else {}) | options
    return SAMPLERS[name](denoiser, SCHEDULE, x, times, **options)


def untouched(x, t, cond):
    raise AssertionError("the denoiser was called")


@every_sampler
@pytest.mark.parametrize(
    ("x", "kind", "words"),
    [
        (X.to(torch.complex64), TypeError, "x is a tensor of real numbers .*; got torch.complex64"),
        (X.bool(), TypeError, "x is a tensor of real numbers .*; got torch.bool"),
        (np.ones((4, 2)), TypeError, "x is a tensor of real numbers .*; got ndarray"),
        (None, TypeError, "x is a tensor of real numbers .*; got NoneType"),
        (X[:0], ValueError, r"at least one example; got shape \(0, 2\)"),
        (X[0, 0], ValueError, r"at least one example; got shape \(\)"),
        (X * math.nan, ValueError, "x is not finite"),
        (X / 0, ValueError, "x is not finite"),
    ],
    ids=str,
)
def test_a_state_that_cannot_be_is_refused(name, x, kind, words):
    refuse(kind, words, lambda: sample(name, x, denoiser=untouched))


@every_sampler
def test_integers_are_states_of_categories_alone(name):
    words = "the tensor to be noised|x_t|x" if name == "ancestral" else "x"
    refuse(TypeError, f"^({words}) is a tensor of real numbers .*; got torch.int64", lambda: sample(name, X.long()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adaptive_solvers_take_no_half_precision(dtype):
    for call in (
        lambda x: sample("probability_flow", x),
        lambda x: likelihood.log_likelihood(lambda x, t, cond: 0.5 * x, SCHEDULE, x, probes=None),
    ):
        refuse(
            TypeError, rf"x0? is a tensor of real numbers \(float32, float64\); got {dtype}", partial(call, X.to(dtype))
        )


@every_sampler
@pytest.mark.parametrize("times", ["cosine", None, [0.9, "0.5"], {}])
def test_a_grid_that_is_no_sequence_of_times_is_refused(name, times):
    refuse(TypeError, "a grid is a tensor or a sequence of times; got", lambda: sample(name, times=times))


@every_sampler
@pytest.mark.parametrize(
    ("cond", "kind", "words"),
    [
        ([1, 2, 3, 4], TypeError, r"cond is a tensor .* got list \[1, 2, 3, 4\]"),
        (1.5, TypeError, "cond is a tensor .* got float 1.5"),
        (True, TypeError, "cond is a tensor .* got bool True"),
        (np.arange(4), TypeError, "cond is a tensor .* got ndarray"),
        (torch.ones(4, dtype=torch.bool), TypeError, "labels in cond are int64.*; got torch.bool"),
        (torch.ones(4, dtype=torch.uint8), TypeError, "labels in cond are int64.*; got torch.uint8"),
        (torch.ones(3, dtype=torch.int64), ValueError, r"a row for each of the 4 examples; got shape \(3,\)"),
        (torch.tensor(0.5), ValueError, r"a row for each of the 4 examples; got shape \(\)"),
    ],
    ids=str,
)
def test_a_condition_that_cannot_be_is_refused(name, cond, kind, words):
    refuse(kind, words, lambda: sample(name, cond=cond, denoiser=untouched))


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_is_no_generator(name):
    refuse(TypeError, r"generator is a torch.Generator, .*; got 3$", lambda: sample(name, generator=3))


@pytest.mark.parametrize("order", [2.0, True, "2", None, 5])
@pytest.mark.parametrize("name", ["multistep", "dpm_singlestep", "pndm"])
def test_an_order_is_one_of_a_few_integers(name, order):
    refuse(ValueError, f"orders? .* and .*; got {order!r}", lambda: sample(name, order=order))


@pytest.mark.parametrize(
    ("kind", "words", "call"),
    [
        (ValueError, "rho is positive and finite; got 0", lambda: grids.karras(4, SCHEDULE, rho=0)),
        (ValueError, "rho is positive and finite; got -1", lambda: grids.karras(4, SCHEDULE, rho=-1)),
        (ValueError, "rho is positive and finite; got nan", lambda: grids.karras(4, SCHEDULE, rho=math.nan)),
        (ValueError, "snr is finite .*; got nan", lambda: sample("predictor_corrector", snr=math.nan)),
        (ValueError, "snr is finite .*; got -0.1", lambda: sample("predictor_corrector", snr=-0.1)),
        (ValueError, "low <= high; got .50, 0.05", lambda: sample("heun churned", churn_range=(50.0, 0.05))),
        (ValueError, "low <= high; got .nan", lambda: sample("heun churned", churn_range=(math.nan, 1.0))),
        (ValueError, "churn and noise_scale .*; got nan", lambda: sample("heun", churn=math.nan)),
        (ValueError, "rtol and atol are .*; got nan", lambda: sample("probability_flow", rtol=math.nan)),
        (ValueError, "rtol and atol are .*; got -1", lambda: sample("probability_flow", rtol=-1)),
        (ValueError, "rtol and atol are .*; got 0, 0", lambda: sample("probability_flow", rtol=0, atol=0)),
        (ValueError, "not negative; got -1", lambda: SCHEDULE.time_at(-1.0)),
        (ValueError, "not negative; got nan", lambda: SCHEDULE.time_at(math.nan)),
        (ValueError, r"times lie in \[0, 1\]", lambda: SCHEDULE.drift_diffusion(1.5)),
        (ValueError, "bin_width is positive", lambda: likelihood.bits_per_dim(X, 2, bin_width=0.0)),
        (ValueError, "dims is at least 1; got 0", lambda: likelihood.bits_per_dim(X, 0)),
    ],
)
def test_a_number_out_of_range_is_refused(kind, words, call):
    refuse(kind, words, call)


def test_no_probes_are_none_and_not_zero():
    def call(probes):
        return lambda: likelihood.log_likelihood(
            lambda x, t, cond: 0.5 * x, SCHEDULE, X, probes=probes, generator=generator()
        )

    refuse(ValueError, "probes is at least 1; got 0", call(0))
    refuse(TypeError, "probes is a whole number; got 1.5", call(1.5))


NET = Preconditioned(MLP(2, width=8), SCHEDULE)
BYTES, WHOLE = X.to(torch.uint8), X.long()


@pytest.mark.parametrize("x", [X.double(), X.half(), X.bfloat16()], ids=lambda x: str(x.dtype))
def test_a_network_takes_its_own_dtype(x):
    words = f"the dtype of the network, torch.float32; got {x.dtype}"
    refuse(TypeError, words, lambda: NET(x, 0.5))
    refuse(TypeError, words, lambda: LabelPosterior(NoisyClassifier(1, 2, widths=(8, 8)), SCHEDULE)(x, 0.5))
    assert NET.double()(X.double(), 0.5).dtype == torch.float64
    NET.float()


@pytest.mark.parametrize("t", [torch.full((4, 1), 0.5), torch.full((3,), 0.5)], ids=lambda t: str(tuple(t.shape)))
def test_times_are_one_or_one_for_each_example(t):
    refused = partial(refuse, ValueError, r"t has shape \(\) or \(4,\), one time for each example; got \((4, 1|3,)\)")
    refused(lambda: NET(X, t))
    refused(lambda: Reschedule(NET, SCHEDULE, edm())(X, t))
    refused(lambda: SCHEDULE.scales(t, like=X))
    refused(lambda: Gaussian(SCHEDULE).corrupt(X, t, generator=generator()))
    refused(lambda: Gaussian(SCHEDULE).bridge(X, X, t, 0.1, generator=generator()))
    refused(lambda: Gaussian(SCHEDULE).bridge(X, X, 0.9, t, generator=generator()))
    refused(lambda: Gaussian(SCHEDULE).implied_x0(X, X, t, t / 2))


@pytest.mark.parametrize("x0", [BYTES, WHOLE, X.numpy()], ids=["bytes", "integers", "numpy"])
def test_only_real_numbers_take_gaussian_noise(x0):
    refuse(
        TypeError, "x0 is a tensor of real numbers", lambda: Gaussian(SCHEDULE).corrupt(x0, 0.5, generator=generator())
    )
    refuse(TypeError, "x_t is a tensor", lambda: Gaussian(SCHEDULE).bridge(x0, X, 0.5, 0.1, generator=generator()))


@pytest.mark.parametrize(
    "cond", [torch.ones(4), torch.ones(4, dtype=torch.bool), torch.ones(3).long(), 1.5, [True] * 4, "1"], ids=str
)
def test_a_label_is_an_integer(cond):
    refuse(ValueError, "one integer label per example", lambda: select_label(X, cond))
    refuse(ValueError, "one integer label per example", lambda: toys.eight_modes().denoiser(SCHEDULE)(X, 0.5, cond))
    network = Preconditioned(UNet(1, widths=(8, 8), embedding=8, classes=3), SCHEDULE)
    refuse(ValueError, "one whole number per example", lambda: network(torch.zeros(4, 1, 8, 8), 0.5, cond))


@every_sampler
def test_a_denoiser_that_returns_nan_is_reported(name):
    refuse(FloatingPointError, "finite.*denoiser", lambda: sample(name, denoiser=lambda x, t, cond: x * math.nan))


@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - {"probability_flow"}))
def test_examples_that_diverge_are_returned_with_the_others(name):
    """What diverges can then be counted. The adaptive solver steps for all examples at once."""
    broken = torch.tensor([1.0, math.nan, 1.0, math.inf])[:, None]
    found = sample(name, denoiser=lambda x, t, cond: x * broken).isfinite().all(1)
    assert found.tolist() == [True, False, True, False]


def test_a_likelihood_that_is_not_finite_is_reported():
    call = partial(likelihood.log_likelihood, lambda x, t, cond: x * math.nan, SCHEDULE, X, probes=None)
    refuse(FloatingPointError, "the probability flow is not finite: the denoiser returned NaN", call)

"""The same numbers as `diffusers` where it is right, and how far off it is where it is not.

A timestep n of its chain of N stands for n + 1 steps of noise: our ``t = (n + 1) / N``. Its solvers work on the
levels ``sigmas = sigma / alpha`` of a variance-preserving schedule. Where they allow it, both sides run in float64,
so that agreement means the same formula and not the same digits by luck.

The data are normal, so that the exact path is known: ``x_t = alpha m + sqrt(alpha^2 v + sigma^2) z`` with z kept.
"""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.grids import karras, trailing, uniform_lambda
from survey_lib.core.integrators import multistep
from survey_lib.core.samplers import ancestral, heun
from survey_lib.core.schedules import edm, from_betas, vp_linear

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

MEAN, VARIANCE = torch.tensor([0.6, -0.9], dtype=torch.float64), 0.3
LAW = GaussianLaw(MEAN, VARIANCE)
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
CHAIN = from_betas(BETAS)
SCHEDULE = vp_linear()
Z = torch.tensor([[0.4, -1.3], [2.0, 0.7], [-0.6, 0.1]], dtype=torch.float64)


def on_path(t, schedule=SCHEDULE):
    alpha, sigma = schedule.scales(t)
    return alpha * MEAN + (alpha**2 * VARIANCE + sigma**2).sqrt() * Z


def chain_scheduler(kind, **options):
    """A scheduler of DDPM's chain with its float32 products replaced by exact ones."""
    scheduler = kind(
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="trailing",
        **options,
    )
    scheduler.alphas_cumprod = torch.cumprod(1 - BETAS, 0)
    return scheduler


def walk(scheduler, denoiser, x, steps, **options):
    scheduler.set_timesteps(steps)
    for n in scheduler.timesteps:
        x = scheduler.step(denoiser(x, (n.item() + 1) / 1000), n, x, **options).prev_sample
    return x


@pytest.mark.parametrize("steps", [1, 5, 20, 50])
def test_ddim(steps):
    """`DDIMScheduler` with steps that divide the chain: to 1e-12."""
    denoiser = LAW.denoiser(CHAIN)
    theirs = walk(chain_scheduler(DDIMScheduler), denoiser, Z, steps)
    torch.testing.assert_close(multistep(denoiser, CHAIN, Z, trailing(steps), order=1), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_fresh_noise(eta):
    """`DDIMScheduler(eta=)` and `Gaussian(eta)` spend the same random numbers in the same way: to 1e-10."""
    denoiser = LAW.denoiser(CHAIN)
    theirs = walk(chain_scheduler(DDIMScheduler), denoiser, Z, 20, eta=eta, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    ours = ancestral(denoiser, Gaussian(CHAIN, eta), Z, trailing(20), generator=generator)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", [7, 20, 60])
def test_ddpm(steps):
    """`DDPMScheduler`: to 1e-9, also where the steps do not divide the chain."""
    denoiser = LAW.denoiser(CHAIN)
    theirs = walk(chain_scheduler(DDPMScheduler), denoiser, Z, steps, generator=torch.Generator().manual_seed(5))
    ours = ancestral(denoiser, Gaussian(CHAIN), Z, trailing(steps), generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [7, 60])
def test_ddim_ends_short_of_clean_data_where_steps_do_not_divide_the_chain(steps):
    """A known error of `DDIMScheduler`: it steps down by ``1000 // steps``, not to the next time of its own grid.

    So a step lands beside the time for which the denoiser is asked next, and the last one beside clean data: at 7
    steps its last timestep is 142 and it steps down by 142, to timestep 0, which has noise. On data that is one
    point every step of DDIM is exact: we end on the point, it ends 0.01 times the noise away.
    """
    denoiser = GaussianLaw(MEAN, 0.0).denoiser(CHAIN)
    alpha, sigma = CHAIN.scales(1.0)
    x = alpha * MEAN + sigma * Z
    ours = multistep(denoiser, CHAIN, x, trailing(steps), order=1)
    theirs = walk(chain_scheduler(DDIMScheduler), denoiser, x, steps)
    assert (ours - MEAN).abs().max() < 1e-12
    assert (theirs - MEAN).abs().max() > 0.005


def prediction(x, t, predict, schedule=SCHEDULE):
    (alpha, sigma), x0 = schedule.scales(t), LAW.denoiser(schedule)(x, t)
    return x0 if predict == "x0" else (x - alpha * x0) / sigma


def with_history(steps, order, predict):
    """Times of equal steps in lam, and exact predictions at the ``order - 1`` times before them."""
    lam = torch.linspace(-1.5, 2.5, steps + 1, dtype=torch.float64)
    h = lam[1] - lam[0]
    earlier = SCHEDULE.time(lam[0] - h * torch.arange(order - 1, 0, -1))
    return SCHEDULE.time(lam), [(t.item(), prediction(on_path(t), t, predict)) for t in earlier]


def drive(scheduler, update, times, history, predict):
    """Run one of diffusers' multistep updates over our grid, in float64, from exact predictions."""
    everything = torch.cat([torch.tensor([t for t, _ in history], dtype=torch.float64), times])
    scheduler.sigmas = torch.exp(-SCHEDULE.lam(everything))
    outputs, x = [p for _, p in history], on_path(times[0])
    for i, t in enumerate(times[:-1], start=len(history)):
        scheduler._step_index = i
        outputs.append(prediction(x, t, predict))
        x = update(scheduler, outputs, x)
    return x


def second_order(scheduler, outputs, x):
    return scheduler.multistep_dpm_solver_second_order_update(outputs, sample=x)


def third_order(scheduler, outputs, x):
    return scheduler.multistep_dpm_solver_third_order_update(outputs, sample=x)


def deis(order, scheduler, outputs, x):
    update = {2: scheduler.multistep_deis_second_order_update, 3: scheduler.multistep_deis_third_order_update}[order]
    return update(outputs, sample=x)


def test_dpm_solver_plus_plus_2m():
    """`DPMSolverMultistepScheduler(solver_type="heun")` has the exact weights of the line: to 1e-12."""
    scheduler = DPMSolverMultistepScheduler(solver_type="heun")
    times, history = with_history(12, 2, "x0")
    theirs = drive(scheduler, second_order, times, history, "x0")
    ours = multistep(LAW.denoiser(SCHEDULE), SCHEDULE, on_path(times[0]), times, history=history)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_dpm_solver_plus_plus_2m_as_it_is_called():
    """The scheduler's own loop, start-up and jump to clean data included, in its float32: to 2e-5."""
    scheduler = DPMSolverMultistepScheduler(
        beta_start=1e-4, beta_end=0.02, solver_type="heun", prediction_type="sample", timestep_spacing="trailing"
    )
    denoiser, x = LAW.denoiser(CHAIN), Z.float()
    theirs = walk(scheduler, denoiser, x, 20)
    torch.testing.assert_close(multistep(denoiser, CHAIN, x, trailing(20)), theirs, rtol=2e-5, atol=2e-5)


def test_the_midpoint_form_of_2m_differs_and_has_the_same_order():
    """Its default, ``solver_type="midpoint"``, takes half of the constant's weight for the slope: order 2 as well."""
    gaps, errors = [], []
    for steps in (64, 128):
        times, history = with_history(steps, 2, "x0")
        theirs = drive(DPMSolverMultistepScheduler(solver_type="midpoint"), second_order, times, history, "x0")
        ours = multistep(LAW.denoiser(SCHEDULE), SCHEDULE, on_path(times[0]), times, history=history)
        gaps.append((ours - theirs).norm().item())
        errors.append((theirs - on_path(times[-1])).norm().item())
    assert np.log2(gaps[0] / gaps[1]) == pytest.approx(2, abs=0.15)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("order", [2, 3])
def test_deis(order):
    """`DEISMultistepScheduler` integrates the polynomial in log rho, which is -lam: to 1e-11."""
    times, history = with_history(12, order, "eps")
    theirs = drive(DEISMultistepScheduler(), partial(deis, order), times, history, "eps")
    options = {"order": order, "predict": "eps", "history": history}
    ours = multistep(LAW.denoiser(SCHEDULE), SCHEDULE, on_path(times[0]), times, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("predict", "algorithm"), [("x0", "dpmsolver++"), ("eps", "dpmsolver")])
def test_third_order_multistep_is_of_order_two_in_diffusers(predict, algorithm):
    """A known error, in the authors' code too: the second difference enters with half of its weight.

    Expand ``p(lam_t + h a) = p + a D1 + a^2 D2``: with D2 the second *divided* difference of the nodes, its weight is
    ``integral exp((1 - a) z) a^2 da = 2 phi_3(z)``, and the code has ``phi_3``, the weight of a^2 / 2. A missing
    half of a term of size h^3 a step leaves h^2 in the end. Adding it again gives our result to 1e-11.
    """

    def repaired(scheduler, outputs, x):
        u = scheduler.sigmas[scheduler.step_index - 2 : scheduler.step_index + 2]
        (l2, l1, l0, end), (m2, m1, m0) = -u.log(), outputs[-3:]
        h = end - l0
        d2 = ((m0 - m1) / (l0 - l1) - (m1 - m2) / (l1 - l2)) / (l0 - l2) * h**2
        alpha = 1 / (1 + u[-1] ** 2).sqrt()
        z = -h if predict == "x0" else h
        phi_3 = (torch.expm1(z) - z - z**2 / 2) / z**3
        missing = h * phi_3 * d2 * (alpha if predict == "x0" else -alpha * u[-1])
        return third_order(scheduler, outputs, x) + missing

    errors = {"theirs": [], "ours": []}
    for steps in (128, 256):
        times, history = with_history(steps, 3, predict)
        scheduler = DPMSolverMultistepScheduler(algorithm_type=algorithm, final_sigmas_type="sigma_min")
        theirs = drive(scheduler, third_order, times, history, predict)
        options = {"order": 3, "predict": predict, "history": history}
        ours = multistep(LAW.denoiser(SCHEDULE), SCHEDULE, on_path(times[0]), times, **options)
        torch.testing.assert_close(ours, drive(scheduler, repaired, times, history, predict), rtol=1e-11, atol=1e-11)
        for name, x in (("theirs", theirs), ("ours", ours)):
            errors[name].append((x - on_path(times[-1])).norm().item())
    slopes = {name: np.log2(pair[0] / pair[1]) for name, pair in errors.items()}
    assert slopes["theirs"] == pytest.approx(2, abs=0.2)
    assert slopes["ours"] == pytest.approx(3, abs=0.2)
    assert errors["theirs"][1] > 5 * errors["ours"][1]


@pytest.mark.parametrize("solver", ["bh1", "bh2"])
def test_unipc(solver):
    """`UniPCMultistepScheduler`, predictor and corrector of order 3: B(h) cancels, the weights are ours: to 1e-10."""
    times, history = with_history(12, 3, "x0")
    scheduler = UniPCMultistepScheduler(solver_order=3, solver_type=solver)
    everything = torch.cat([torch.tensor([t for t, _ in history], dtype=torch.float64), times])
    scheduler.sigmas, scheduler.timestep_list = torch.exp(-SCHEDULE.lam(everything)), [None] * 3
    x, outputs = on_path(times[0]), [p for _, p in history]
    outputs.append(prediction(x, times[0], "x0"))
    for i, s in enumerate(times[1:], start=len(history)):
        scheduler._step_index, scheduler.model_outputs = i, outputs[-3:]
        guess = scheduler.multistep_uni_p_bh_update(None, sample=x, order=3)
        if s == times[-1]:
            break
        outputs.append(prediction(guess, s, "x0"))
        scheduler._step_index = i + 1
        x = scheduler.multistep_uni_c_bh_update(outputs[-1], last_sample=x, this_sample=guess, order=3)
    ours = multistep(LAW.denoiser(SCHEDULE), SCHEDULE, on_path(times[0]), times, order=3, correct=True, history=history)
    torch.testing.assert_close(ours, guess, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", ["bh1", "bh2"])
def test_unipc_replaces_its_lowest_weights_by_one_half(solver):
    """A known shortcut: where one weight is unknown it takes 1/2 instead of solving, as in the first corrected step.

    The exact weight of the slope is ``h phi_2(-h) = h (1/2 - h/6 + ...)``; bh2 has ``h phi_1(-h) / 2`` in its place and
    bh1 ``h / 2``. The slope is of size h too, so they differ by h^3 on that step: no order is lost, but a run of
    diffusers starts on other numbers than ours.
    """
    gaps = []
    for h in (0.2, 0.1):
        lam = torch.tensor([0.0, h], dtype=torch.float64)
        t, s = SCHEDULE.time(lam)
        x, m0 = on_path(t), prediction(on_path(t), t, "x0")
        scheduler = UniPCMultistepScheduler(solver_order=3, solver_type=solver)
        scheduler.sigmas, scheduler.timestep_list = torch.exp(-lam), [None] * 3
        scheduler.model_outputs, scheduler._step_index = [None, None, m0], 0
        guess = scheduler.multistep_uni_p_bh_update(None, sample=x, order=1)
        scheduler._step_index = 1
        theirs = scheduler.multistep_uni_c_bh_update(
            prediction(guess, s, "x0"), last_sample=x, this_sample=guess, order=1
        )
        seen = []
        later = SCHEDULE.time(lam[1] + 1.0)
        multistep(LAW.denoiser(SCHEDULE), SCHEDULE, x, torch.stack([t, s, later]), order=1, correct=True,
                  callback=lambda y, at, x0, seen=seen: seen.append(y))  # fmt: skip
        gaps.append((theirs - seen[1]).norm().item())
    assert gaps[1] > 1e-7
    assert np.log2(gaps[0] / gaps[1]) == pytest.approx(3, abs=0.3)


def test_edm_euler():
    """`EDMEulerScheduler` is DDIM in EDM's schedule: to 1e-5 of the noise level that it starts from (it is float32)."""
    schedule, scheduler = edm(), EDMEulerScheduler()
    denoiser = LAW.denoiser(schedule)
    scheduler.set_timesteps(18)
    x = theirs = 80 * Z.float()
    scheduler.is_scale_input_called = True
    for timestep, u in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        answer = denoiser(theirs, (u.double() / 80).clamp(max=1))
        theirs = scheduler.step(answer, timestep, theirs, pred_original_sample=answer).prev_sample
    ours = multistep(denoiser, schedule, x, karras(18, schedule), order=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", [edm(), SCHEDULE], ids=lambda s: s.name)
def test_heun(schedule):
    """`HeunDiscreteScheduler` over our levels, on ``x / alpha``: to 1e-10, whatever the schedule."""
    times, denoiser = uniform_lambda(9, schedule), LAW.denoiser(schedule)
    u = torch.exp(-schedule.lam(times))
    scheduler = HeunDiscreteScheduler(prediction_type="sample")
    scheduler.sigmas = torch.cat([u[:1], u[1:-1].repeat_interleave(2), u[-1:]])
    scheduler._step_index, asked = 0, torch.cat([times[:1], times[1:-1].repeat_interleave(2)])
    theirs = on_path(times[0], schedule) / schedule.alpha(times[0])
    for t in asked:
        theirs = scheduler.step(denoiser(theirs * schedule.alpha(t), t), 0, theirs).prev_sample
    ours = heun(denoiser, schedule, on_path(times[0], schedule), times)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)

"""Integrators: the orders that they claim, measured; the weights against quadrature; what is exact, exactly."""

import itertools
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianMixture
from survey_lib.core.exponential import lagrange_weights, phi
from survey_lib.core.grids import uniform, uniform_lambda
from survey_lib.core.integrators import dpm_singlestep, multistep, pndm, probability_flow
from survey_lib.core.samplers import ancestral, heun
from survey_lib.core.schedules import edm, rectified, vp_cosine, vp_linear
from survey_lib.lab.evaluation.solvers import SOLVERS

MEANS = np.array([[-1.0, 0.3], [0.8, 0.9], [0.5, -1.1]])
SCALES, WEIGHTS = np.array([0.5, 0.4, 0.6]), np.array([0.3, 0.4, 0.3])
MIXTURE = GaussianMixture(torch.tensor(MEANS), scales=torch.tensor(SCALES), weights=torch.tensor(WEIGHTS))
SCHEDULE = vp_linear()
DENOISER = MIXTURE.denoiser(SCHEDULE)
TOP, START, END = -4.0, -3.0, 2.5  # lam: where the reference begins, where the grids begin, where they end
X_TOP = np.array([[35.0, -20.0], [-60.0, 40.0], [70.0, 55.0]])  # x / alpha at TOP
SIZES = (128, 256)

METHODS = {
    "ddim": (1, partial(multistep, order=1)),
    **{
        f"multistep {k} {predict}{' corrected' if correct else ''}": (
            k + correct,
            partial(multistep, order=k, predict=predict, correct=correct),
        )
        for k in (1, 2, 3)
        for predict in ("x0", "eps")
        for correct in (False, True)
    },
    **{
        f"single {k} {predict}": (k, partial(dpm_singlestep, order=k, predict=predict))
        for k in (2, 3)
        for predict in ("x0", "eps")
    },
    "heun": (2, heun),
    "s-pndm": (2, partial(pndm, order=2)),
    "f-pndm": (2, partial(pndm, order=4)),
    **{f"SOLVERS: {name}": (solver.order, solver.sample) for name, solver in SOLVERS.items() if solver.order},
}


def posterior_mean(points: np.ndarray, u: float) -> np.ndarray:
    """E[x0 | x0 + u eps] of the mixture, written once more in numpy for the reference alone."""
    offsets = points[:, None, :] - MEANS
    variances = SCALES**2 + u**2
    log_joint = np.log(WEIGHTS) - (offsets**2).sum(-1) / (2 * variances) - np.log(variances)
    share = np.exp(log_joint - log_joint.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    return (share[..., None] * (MEANS + (SCALES**2 / variances)[:, None] * offsets)).sum(1)


@lru_cache
def exact_states(lams: tuple[float, ...]) -> dict[float, torch.Tensor]:
    """The path through X_TOP at rising ``lams``, by an independent route: d(x / alpha) / du = eps, DOP853."""

    def slope(u: float, flat: np.ndarray) -> np.ndarray:
        points = flat.reshape(-1, 2)
        return ((points - posterior_mean(points, u)) / u).ravel()

    state, before, states = X_TOP.ravel(), TOP, {}
    for lam in lams:
        state = solve_ivp(slope, np.exp([-before, -lam]), state, method="DOP853", rtol=3e-14, atol=1e-14).y[:, -1]
        states[lam], before = torch.from_numpy(state.reshape(-1, 2)) * SCHEDULE.alpha(SCHEDULE.time(lam)), lam
    return states


def earlier_lams(steps: int) -> list[float]:
    h = (END - START) / steps
    return [START - 2 * h, START - h]


STATES = exact_states(tuple(sorted({lam for n in SIZES for lam in earlier_lams(n)} | {START, END})))


def exact_history(steps: int, predict: str) -> list[tuple[float, torch.Tensor]]:
    history = []
    for lam in earlier_lams(steps):
        t = SCHEDULE.time(lam)
        (alpha, sigma), x0 = SCHEDULE.scales(t), DENOISER(STATES[lam], t)
        history.append((t.item(), x0 if predict == "x0" else (STATES[lam] - alpha * x0) / sigma))
    return history


def last_slope(run, grid) -> float:
    """How fast the error falls from 128 to 256 steps, as a power of the step."""
    errors = [(run(DENOISER, SCHEDULE, STATES[START], grid(n), n) - STATES[END]).norm().item() for n in SIZES]
    return np.log2(errors[0] / errors[1])


def lam_grid(steps: int) -> torch.Tensor:
    return SCHEDULE.time(torch.linspace(START, END, steps + 1, dtype=torch.float64))


def t_grid(steps: int) -> torch.Tensor:
    return uniform(steps, SCHEDULE.time(START).item(), SCHEDULE.time(END).item())


@pytest.mark.parametrize("name", METHODS)
def test_the_claimed_order_is_reached(name):
    """Equal steps in lam, float64, an exact denoiser; exact predictions from before the start for order 3."""
    order, method = METHODS[name]

    def run(denoiser, schedule, x, times, steps):
        extra, keywords = {}, getattr(method, "keywords", {})
        if getattr(method, "func", None) is multistep:
            extra["history"] = exact_history(steps, keywords.get("predict", "x0"))
        return method(denoiser, schedule, x, times, **extra)

    assert last_slope(run, lam_grid) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", ["s-pndm", "f-pndm"])
def test_pndm_is_of_order_two_on_its_own_grid_too(name):
    """Theorem 3.2 of the paper: on equal steps in t, the fourth-order mean of F-PNDM does not lift the order past 2."""
    order, method = METHODS[name]
    slope = last_slope(lambda d, s, x, times, n: method(d, s, x, times), t_grid)
    assert slope == pytest.approx(order, abs=0.15)


def test_f_pndm_gains_accuracy_not_order():
    def error(order):
        return (pndm(DENOISER, SCHEDULE, STATES[START], t_grid(128), order=order) - STATES[END]).norm()

    assert error(4) < 0.25 * error(2)


@pytest.mark.parametrize("predict", ["x0", "eps"])
@pytest.mark.parametrize(("correct", "cap"), [(False, 2), (True, 3)])
def test_a_cold_start_caps_the_order(predict, correct, cap):
    """What a third-order run loses by starting without history falls as h^2 (h^3 with the corrector), not h^3 (h^4)."""
    run = partial(multistep, DENOISER, SCHEDULE, STATES[START], order=3, predict=predict, correct=correct)
    losses = [(run(lam_grid(n)) - run(lam_grid(n), history=exact_history(n, predict))).norm().item() for n in SIZES]
    assert np.log2(losses[0] / losses[1]) == pytest.approx(cap, abs=0.15)


def test_the_adaptive_flow_meets_its_tolerance():
    times = lam_grid(1)
    for tolerance in (1e-4, 1e-7, 1e-10):
        x = probability_flow(DENOISER, SCHEDULE, STATES[START], times, rtol=tolerance, atol=tolerance)
        assert (x - STATES[END]).abs().max() < 30 * tolerance


@pytest.mark.parametrize("z", [-40.0, -3.1, -2.9, -0.5, -1e-3, -1e-9, 1e-9, 1e-3, 0.5, 2.9, 3.1, 40.0])
def test_phi_functions_against_quadrature(z):
    """phi_m(z) = integral of exp((1 - theta) z) theta^(m-1) / (m-1)!, at both ends of the two recursions."""
    for m, value in enumerate(phi(z, 5), start=1):
        integral, _ = quad(lambda a, m=m: np.exp((1 - a) * z) * a ** (m - 1), 0, 1, epsabs=0, epsrel=1e-13, limit=200)
        assert value == pytest.approx(integral / np.prod(np.arange(1, m)), rel=3e-13)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    z=st.floats(-30, 30),
    nodes=st.lists(st.floats(0.05, 8.0), min_size=1, max_size=3).map(lambda gaps: [-g for g in np.cumsum(gaps)]),
    end=st.booleans(),
)
def test_weights_against_gauss_legendre(z, nodes, end):
    """The weights are those of the polynomial through 0 and the nodes, for small and large steps and uneven ones."""
    nodes = [1.0, *nodes] if end else nodes
    points, weights = np.polynomial.legendre.leggauss(64)
    theta, weights = (points + 1) / 2, weights / 2 * np.exp((1 - (points + 1) / 2) * z)
    everything = [0.0, *nodes]
    for j, weight in enumerate(lagrange_weights(nodes, z), start=1):
        others = [n for i, n in enumerate(everything) if i != j]
        basis = np.prod([(theta - n) / (everything[j] - n) for n in others], axis=0)
        assert weight == pytest.approx(weights @ basis, rel=1e-10, abs=1e-12 * (weights @ abs(basis)))


@pytest.mark.parametrize("schedule", [vp_linear(), vp_cosine(), edm(), rectified()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", METHODS)
def test_one_point_of_data_is_reached_exactly_in_any_number_of_steps(name, schedule):
    """Data that is one point: both predictions are constant along a path, so no method may make an error.

    On the way the path is ``alpha x0 + sigma eps`` with the eps it started from; at t = 0 it is the point.
    The cosine and rectified schedules start at alpha = 0, where eps alone is known.
    """
    point = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    eps = torch.tensor([[1.2, 0.5], [-0.4, 2.0]], dtype=torch.float64)
    alpha, sigma = schedule.scales(1.0)
    seen = []

    def denoiser(x, t, cond=None):
        seen.append((x, t))
        return point.expand_as(x)

    for steps in (1, 2, 5):
        x = METHODS[name][1](denoiser, schedule, alpha * point + sigma * eps, uniform(steps))
        torch.testing.assert_close(x, point.expand_as(x), rtol=1e-12, atol=1e-12)
    for x, t in seen:
        alpha, sigma = schedule.scales(t)
        torch.testing.assert_close(x, alpha * point + sigma * eps, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("predict", "correct"), [("x0", False), ("x0", True), ("eps", False)])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_prediction_that_is_a_polynomial_in_lam_is_integrated_exactly(predict, k, correct):
    """Order k holds for every polynomial of degree k - 1 (k with the corrector), on uneven steps, short or long.

    The denoiser here answers so that the prediction depends on time alone; the truth is an adaptive quadrature.
    (Not eps with the corrector: there the state that is corrected moves the prediction, see `multistep`.)
    """
    degree = k if correct else k - 1
    coefficients = [0.7, -0.4, 0.25, 0.1][: degree + 1]
    lams = torch.tensor([-2.0, -1.4, -1.1, -0.2, 0.5, 0.8, 2.0], dtype=torch.float64)
    times = SCHEDULE.time(lams)

    def p(lam):
        return sum(c * lam**i for i, c in enumerate(coefficients))

    def denoiser(x, t, cond=None):
        alpha, sigma = SCHEDULE.scales(t)
        value = p(SCHEDULE.lam(t)).expand_as(x)
        return value if predict == "x0" else (x - sigma * value) / alpha

    x = torch.tensor([[0.9]], dtype=torch.float64)
    start = 2
    history = [(times[i].item(), p(lams[i]).expand_as(x)) for i in range(start)]
    states = []  # the state before the last step too: that one is never corrected
    run = partial(multistep, denoiser, SCHEDULE, x, times[start:], order=k, predict=predict, correct=correct)
    states.append(run(history=history, callback=lambda y, t, x0: states.append(y)))
    reached = -2 if correct else -1

    sign = 1 if predict == "x0" else -1
    integral, _ = quad(lambda u: np.exp(sign * u) * p(u), lams[start], lams[reached], epsabs=0, epsrel=1e-13)
    (alpha, sigma), (alpha_s, sigma_s) = SCHEDULE.scales(times[start]), SCHEDULE.scales(times[reached])
    truth = sigma_s / sigma * x + sigma_s * integral if predict == "x0" else alpha_s / alpha * x - alpha_s * integral
    torch.testing.assert_close(states[reached], truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", [vp_linear(), vp_cosine(), edm()], ids=lambda s: s.name)
@pytest.mark.parametrize("predict", ["x0", "eps"])
def test_order_one_is_ddim(schedule, predict):
    """DDIM, eq. 12: ``x_s = alpha_s x0 + sigma_s eps`` with the eps in x_t."""
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * schedule.sigma(
        torch.ones(())
    )
    times, denoiser = uniform(7, 0.98), MIXTURE.denoiser(schedule)
    got = multistep(denoiser, schedule, x, times, order=1, predict=predict)
    for t, s in pairwise(times):
        (alpha, sigma), (alpha_s, sigma_s), x0 = schedule.scales(t), schedule.scales(s), denoiser(x, t)
        x = alpha_s * x0 + sigma_s * (x - alpha * x0) / sigma
    torch.testing.assert_close(got, x, rtol=1e-10, atol=1e-12)
    ancestral_x = ancestral(denoiser, Gaussian(schedule, eta=0.0), STATES[START], times)
    torch.testing.assert_close(
        multistep(denoiser, schedule, STATES[START], times, order=1), ancestral_x, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("name", METHODS)
def test_the_last_step_to_clean_data_is_the_denoisers_answer(name):
    """At sigma = 0 nothing is left to extrapolate: ``x = alpha x0`` (F-PNDM after its warm-up extrapolates eps)."""
    answers = []

    def denoiser(x, t, cond=None):
        answers.append(DENOISER(x, t))
        return answers[-1]

    x = METHODS[name][1](denoiser, SCHEDULE, STATES[START], uniform_lambda(3, SCHEDULE))
    if name in ("s-pndm", "SOLVERS: S-PNDM"):
        assert (x - answers[-1]).norm() < 0.05
    else:
        torch.testing.assert_close(x, answers[-1], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "dtype"), [*itertools.product(METHODS, (torch.float32, torch.bfloat16)), ("flow", torch.float32)]
)
def test_tensors_keep_their_dtype_and_the_callers_are_left_alone(name, dtype):
    """Coefficients are float64, states are the caller's dtype, and nothing that was handed over is written to."""
    method = probability_flow if name == "flow" else METHODS[name][1]
    x, kept = STATES[START].to(dtype), []

    def denoiser(y, t, cond=None):
        answer = DENOISER(y, t)
        kept.extend([(y, y.clone()), (answer, answer.clone())])
        return answer

    times = uniform_lambda(6, SCHEDULE, t_max=0.7)  # above, pndm divides what bfloat16 drops by a small alpha
    got = method(denoiser, SCHEDULE, x, times)
    assert got.dtype == dtype
    torch.testing.assert_close(x, STATES[START].to(dtype), rtol=0, atol=0)
    assert all(torch.equal(now, then) for now, then in kept)
    precise = method(DENOISER, SCHEDULE, STATES[START], times)
    torch.testing.assert_close(got.double(), precise, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.15)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, times: multistep(DENOISER, SCHEDULE, x, times, order=4), "orders 1, 2 and 3"),
        (lambda x, times: multistep(DENOISER, SCHEDULE, x, times, order=0), "orders 1, 2 and 3"),
        (lambda x, times: multistep(DENOISER, SCHEDULE, x, times, predict="v"), 'predict is "x0" or "eps"'),
        (lambda x, times: dpm_singlestep(DENOISER, SCHEDULE, x, times, order=1), "orders 2 and 3"),
        (lambda x, times: dpm_singlestep(DENOISER, SCHEDULE, x, times, predict="noise"), 'predict is "x0" or "eps"'),
        (lambda x, times: pndm(DENOISER, SCHEDULE, x, times, order=3), "orders 2 .S-PNDM. and 4"),
        (lambda x, times: multistep(DENOISER, SCHEDULE, x, times, history=[(0.2, x)]), "lam must rise"),
        (lambda x, times: heun(DENOISER, SCHEDULE, x, times, churn=-1), "not negative"),
    ],
)
def test_an_unknown_order_or_prediction_is_refused_by_name(call, says):
    with pytest.raises(ValueError, match=says):
        call(STATES[START], uniform(4))


@pytest.mark.parametrize("method", [multistep, dpm_singlestep, pndm, heun, probability_flow])
@pytest.mark.parametrize(
    ("times", "says"),
    [([1.0, 0.5, 0.6, 0.0], "falls strictly"), ([1.2, 0.0], "lie in .0, 1."), ([0.5], "at least two")],
)
def test_a_grid_that_is_none_is_refused(method, times, says):
    with pytest.raises(ValueError, match=says):
        method(DENOISER, SCHEDULE, STATES[START], times)


def test_a_condition_reaches_the_denoiser_and_the_callback_sees_every_step():
    """One label for all examples reaches it as a label for each."""
    x = STATES[START]
    for method, cond in itertools.product(
        (multistep, dpm_singlestep, pndm, heun, probability_flow), (7, torch.tensor(7), torch.full((len(x),), 7))
    ):
        conditions, seen = [], []

        def denoiser(x, t, cond, conditions=conditions):
            conditions.append(cond.tolist())
            return DENOISER(x, t)

        def look(x, t, x0, seen=seen):
            seen.append(t.item())

        times = uniform_lambda(4, SCHEDULE)
        method(denoiser, SCHEDULE, x, times, cond=cond, callback=look)
        assert conditions and all(one == [7] * len(x) for one in conditions)
        assert seen == times[:-1].tolist()

"""Samplers under a budget: never above it, as near to it as whole steps allow, and what they promise of themselves."""

import pytest
import torch

from survey_lib.core import grids, integrators, toys
from survey_lib.core.schedules import edm, rectified, vp_cosine, vp_linear
from survey_lib.lab.evaluation import solvers
from survey_lib.lab.evaluation.cost import CountCalls
from survey_lib.lab.evaluation.solvers import SOLVERS, BudgetExceeded

BUDGETS = (2, 3, 5, 8, 10, 15, 20, 50)
SCHEDULE = vp_linear()
LAW = toys.eight_modes()


def run(method, evaluations, schedule=SCHEDULE, **options):
    """The end and how often the denoiser was asked."""
    counted = CountCalls(LAW.denoiser(schedule))
    generator = torch.Generator().manual_seed(0)
    x = schedule.sigma(torch.ones(())) * torch.randn(6, 2, dtype=torch.float64, generator=generator)
    return method(counted, schedule, x, evaluations, generator=generator, **options), counted.calls


@pytest.mark.parametrize("schedule", [SCHEDULE, vp_cosine(), rectified(), edm()], ids=lambda one: one.name)
@pytest.mark.parametrize("method", SOLVERS.values(), ids=lambda one: one.name)
def test_a_budget_is_spent_and_never_passed(method, schedule):
    """One more step would not have been paid for; what is too little is refused in one sentence."""
    for budget in BUDGETS:
        if budget < method.min_nfe:
            with pytest.raises(ValueError, match=f"^{method.name} needs at least {method.min_nfe} .*; got {budget}$"):
                run(method, budget, schedule)
            continue
        if method.adaptive:
            continue
        _, calls = run(method, budget, schedule)
        times = method.times(schedule, budget)
        assert calls == method.nfe(schedule, times) <= budget
        assert method.nfe(schedule, method.grid(len(times), schedule)) > budget


@pytest.mark.parametrize("method", SOLVERS.values(), ids=lambda one: one.name)
def test_what_a_method_can_do_it_does_with_its_smallest_budget(method):
    if not method.adaptive:
        _, calls = run(method, method.min_nfe)
        assert calls == method.min_nfe


@pytest.mark.parametrize("method", SOLVERS.values(), ids=lambda one: one.name)
def test_with_a_large_budget_all_arrive_at_the_data(method):
    """The mean log-density of a perfect sample is known by drawing one; a far point lowers it without bound."""
    end, _ = run(method, 600)
    perfect = LAW.log_prob(LAW.sample(2000, generator=torch.Generator().manual_seed(1))).mean()
    assert LAW.log_prob(end).mean() > perfect - 2.5


def test_the_adaptive_method_is_stopped_by_its_budget_and_steered_by_its_tolerance():
    spent = []
    for tolerance in (1e-2, 1e-3, 1e-5):
        method = solvers.adaptive(tolerance)
        _, calls = run(method, 10_000)
        assert method.min_nfe <= calls
        assert run(method, calls)[1] == calls
        with pytest.raises(
            BudgetExceeded, match=rf"^Adaptive .* needs more than {calls - 1} evaluations; .*tolerance$"
        ):
            run(method, calls - 1)
        spent.append(calls)
    assert spent[0] < spent[1] < spent[2]
    with pytest.raises(ValueError, match="depends on its tolerance"):
        solvers.adaptive().nfe(SCHEDULE, grids.uniform(3))


def test_a_grid_of_the_callers_replaces_the_methods_own():
    seen = []
    method = solvers.multistep(2, "mine", "nobody", solvers.karras)
    end, calls = run(method, 7, grid=solvers.uniform, callback=lambda x, t, x0: seen.append(t.item()))
    assert calls == 7
    torch.testing.assert_close(torch.tensor(seen, dtype=torch.float64), grids.uniform(7)[:-1])
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x * SCHEDULE.sigma(torch.ones(()))
    assert torch.equal(end, integrators.multistep(LAW.denoiser(SCHEDULE), SCHEDULE, x, grids.uniform(7)))


def test_random_methods_say_so_and_the_others_draw_nothing():
    for method in SOLVERS.values():
        x = torch.zeros(2, 2, dtype=torch.float64)
        if method.stochastic:
            with pytest.raises(ValueError, match="pass generator="):
                method(LAW.denoiser(SCHEDULE), SCHEDULE, x, 8)
            assert method.order is None
        elif not method.adaptive:
            method(LAW.denoiser(SCHEDULE), SCHEDULE, x, max(8, method.min_nfe))


def test_names_are_told_apart():
    assert all(name == solver.name for name, solver in SOLVERS.items())
    assert len(SOLVERS) == len(solvers._ALL)

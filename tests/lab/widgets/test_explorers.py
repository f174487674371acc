"""The explorer: every control changes the picture, the caption tells what it cost, and nothing is drawn twice."""

import nbformat
import pytest
import torch
from nbconvert import HTMLExporter

from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import vp_linear
from survey_lib.lab import widgets
from survey_lib.lab.evaluation.cost import CountCalls
from survey_lib.lab.widgets.explorers import BUDGETS, GRIDS, WITH_ETA, SamplerExplorer

SCHEDULE = vp_linear()
SHAPE = (1, 8, 8)
LAW = GaussianMixture(
    torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64).clamp(-1, 1), scales=0.3
)


@pytest.fixture
def counted():
    return CountCalls(LAW.denoiser(SCHEDULE))


@pytest.fixture
def explorer(counted):
    return SamplerExplorer(counted, SCHEDULE, SHAPE, macs=1_000_000, count=4, scale=2)


def test_every_control_changes_the_picture(explorer):
    seen = [bytes(explorer.image.value)]
    for control, value in (
        (explorer.evaluations, 5), (explorer.eta, 1.0), (explorer.grid, "Karras"), (explorer.sampler, "Heun"),
        (explorer.grid, "even in λ"), (explorer.sampler, "2M"),
    ):  # fmt: skip
        control.value = value
        picture = bytes(explorer.image.value)
        assert picture not in seen and picture.startswith(b"\x89PNG"), f"{control.description} = {value}"
        seen.append(picture)


def test_the_caption_tells_the_cost_of_what_is_drawn(explorer):
    explorer.evaluations.value = 20
    assert "20 evaluations in 20 steps, 0.02 GMAC" in explorer.caption.value
    explorer.sampler.value = "Heun"
    assert "19 evaluations in 10 steps" in explorer.caption.value
    near = explorer.caption.value
    explorer.evaluations.value = 3
    assert "3 evaluations" in explorer.caption.value and explorer.caption.value != near


def test_eta_belongs_to_one_sampler_and_costs_no_distance(explorer):
    assert explorer.sampler.value == WITH_ETA and not explorer.eta.disabled
    assert "exact path" in explorer.caption.value
    explorer.eta.value = 0.5
    assert "exact path" not in explorer.caption.value, "with fresh noise no path is right"
    explorer.sampler.value = "2M"
    assert explorer.eta.disabled
    before = explorer.image.value
    explorer.eta.value = 1.0
    assert explorer.image.value == before


def test_a_budget_that_is_too_small_gives_the_reason(explorer):
    explorer.sampler.value = "F-PNDM"
    explorer.evaluations.value = 2
    assert explorer.caption.value == "F-PNDM needs at least 5 evaluations; got 2."
    explorer.evaluations.value = 10
    assert "9 evaluations" in explorer.caption.value, "of 10: a step of Runge-Kutta takes four"


def test_every_combination_of_controls_shows_something(explorer):
    for name in explorer.sampler.options:
        explorer.sampler.value = name
        for grid in GRIDS:
            explorer.grid.value = grid
            for budget in (BUDGETS[0], 6, BUDGETS[-1]):
                explorer.evaluations.value = budget
                assert explorer.image.value and explorer.caption.value.endswith(".")


def test_what_was_drawn_is_kept(explorer, counted):
    explorer.evaluations.value = 6
    first, calls = explorer.image.value, counted.calls
    explorer.evaluations.value = 8
    explorer.evaluations.value = 6
    assert explorer.image.value == first and counted.calls == calls + 8


def test_readers_without_a_kernel_see_the_figure(explorer):
    data, metadata = explorer._repr_mimebundle_()
    assert data[widgets.WIDGET]["model_id"] == explorer.box.model_id
    assert "Heun: 9 evaluations" in explorer.static.alt and data["text/plain"] == metadata["image/png"]["alt"]
    output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
    cell = nbformat.v4.new_code_cell("explorer", outputs=[output])
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert data["image/png"] in page and explorer.box.model_id not in page

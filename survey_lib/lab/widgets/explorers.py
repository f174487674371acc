"""A widget that compares samplers: choose solver, evaluations, eta and grid; see images, trajectory and cost.

Like the sliders of `widgets`, one output has two forms: controls for a live kernel, and a static figure for readers
without a kernel. Controls update an `Image` and an `HTML` widget through ``observe``; nothing is captured.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from types import MappingProxyType

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from survey_lib.core.protocols import Denoiser, normal
from survey_lib.core.schedules import Schedule
from survey_lib.lab.evaluation import solvers
from survey_lib.lab.evaluation.cost import CountCalls
from survey_lib.lab.evaluation.solvers import SOLVERS, Grid, Solver
from survey_lib.lab.plots.images import Recorder, as_bytes, mosaic, sheet, unit
from survey_lib.lab.plots.labels import number
from survey_lib.lab.plots.style import SHARPNESS, describe, png
from survey_lib.lab.widgets.sliders import WIDGET

#: The name of the sampler with the slider ``eta``.
WITH_ETA = "DDIM with eta"
_BY_ETA = ("DDPM", "DDIM half noise", "DDIM")  # the solvers that this slider includes
BUDGETS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50)
GRIDS = MappingProxyType(
    {
        "the sampler's own": None,
        "even in t": solvers.uniform,
        "even in √t": solvers.quadratic,
        "Karras": solvers.karras,
        "even in λ": solvers.uniform_lambda,
    }
)
_LAST = "From the top: what is drawn; then the first picture on its way: x<sub>t</sub>, and below it the answers."


class SamplerExplorer:
    """Controls ``sampler``, ``evaluations``, ``eta`` and ``grid`` of `draw`, which update ``image`` and ``caption``.

    ``eta`` is enabled only for the sampler `WITH_ETA`. Results are cached. ``static`` is the figure for readers without
    a kernel; ``box`` holds the controls.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        shape: Sequence[int],
        *,
        seed: int = 0,
        macs: int | None = None,
        count: int = 8,
        scale: int = 2,
        device: str = "cpu",
        samplers: Sequence[Solver] = tuple(SOLVERS.values()),
    ):
        self.denoiser, self.schedule, self.seed, self.macs, self.scale = denoiser, schedule, seed, macs, scale
        self._methods = {one.name: one for one in samplers if one.name not in _BY_ETA}
        self._noise = normal((count, *shape), self._generator(device))  # of unit variance
        self._kept: dict[tuple, tuple[bytes, str]] = {}
        names = [*self._methods, WITH_ETA]
        self.sampler = ipywidgets.Dropdown(options=names, value=WITH_ETA, description="sampler")
        self.evaluations = ipywidgets.SelectionSlider(options=BUDGETS, value=10, description="evaluations")
        self.eta = ipywidgets.FloatSlider(value=0.0, min=0.0, max=1.0, step=0.25, description="eta")
        self.grid = ipywidgets.Dropdown(options=list(GRIDS), description="grid")
        self.image, self.caption = ipywidgets.Image(format="png"), ipywidgets.HTML()
        for control in self.controls:
            control.style.description_width = "90px"
            control.layout.width = "340px"
            control.observe(self._show, names="value")
        left, right = (ipywidgets.VBox(self.controls[i : i + 2]) for i in (0, 2))
        self.box = ipywidgets.VBox([ipywidgets.HBox([left, right]), self.image, self.caption])
        self._reference = self.draw(SOLVERS["UniPC-3"], 100)[0]
        self.static = self._side_by_side()
        self._show()

    @property
    def controls(self) -> tuple[ipywidgets.Widget, ...]:
        return self.sampler, self.evaluations, self.eta, self.grid

    def method(self, name: str, eta: float = 0.0) -> Solver:
        """The solver of a name in the dropdown."""
        return solvers.ancestral(eta, WITH_ETA) if name == WITH_ETA else self._methods[name]

    def draw(self, method: Solver, budget: int, grid: Grid | None = None) -> tuple[Tensor, Recorder, str]:
        """Sampled images, their trajectory, and the cost in words.

        Raises ValueError if the budget is too small, and BudgetExceeded if an adaptive solver needs more evaluations.
        """
        counted, recorder = CountCalls(self.denoiser), Recorder(keep=1)
        watch = recorder if not method.adaptive else None  # an adaptive solver would evaluate once more at every step
        noise = self._noise * self.schedule.scales(method.times(self.schedule, budget, grid)[0])[1]
        began = time.perf_counter()
        drawn = method(
            counted, self.schedule, noise, budget, grid=grid, callback=watch,
            generator=self._generator(self._noise.device),
        )  # fmt: skip
        spent = (time.perf_counter() - began) / len(drawn)
        steps = f" in {len(recorder.times)} steps" if watch else ""
        work = f", {number(counted.calls * self.macs / 1e9, 2)} GMAC" if self.macs else ""
        cost = f"{counted.calls} evaluations{steps}{work}, {number(1000 * spent, 2)} ms an image here"
        return drawn.clamp(-1, 1), recorder, cost

    def _generator(self, device: str | torch.device) -> torch.Generator:
        return torch.Generator(device).manual_seed(self.seed)

    def _show(self, change: dict | None = None) -> None:
        self.eta.disabled = self.sampler.value != WITH_ETA
        eta = 0.0 if self.eta.disabled else self.eta.value
        key = self.sampler.value, self.evaluations.value, eta, self.grid.value
        if key not in self._kept:
            self._kept[key] = self._frame(self.method(key[0], eta), key[1], GRIDS[key[3]])
        self.image.value, self.caption.value = self._kept[key]
        self.image.layout.width = f"{Image.open(io.BytesIO(self.image.value)).width // SHARPNESS}px"

    def _frame(self, method: Solver, budget: int, grid: Grid | None) -> tuple[bytes, str]:
        try:
            drawn, recorder, cost = self.draw(method, budget, grid)
            if not drawn.isfinite().all():
                raise ArithmeticError(f"{method.name} diverged: its images are not finite")
        except (ValueError, ArithmeticError) as refusal:  # a grey image and the reason
            grey = torch.zeros_like(self._noise)
            return self._png(grey, Recorder()), f"{refusal}."
        apart = (drawn - self._reference.clamp(-1, 1)).square().mean().sqrt()
        where = "" if method.stochastic else f"; {number(apart, 2)} (root mean square) from the end of the exact path"
        return self._png(drawn, recorder), f"{cost}{where}.<br>{_LAST}"

    def _png(self, drawn: Tensor, recorder: Recorder) -> bytes:
        blank = torch.full((1, *drawn.shape[1:]), 255, dtype=torch.uint8)
        rows = [as_bytes(drawn)]
        if recorder.times:
            times, seen, answers = recorder.pick(len(drawn))
            shown = torch.cat([unit(x, t, self.schedule) for t, x in zip(times, seen, strict=True)])
            missing = blank.repeat(len(drawn) - len(times), 1, 1, 1)
            rows += [as_bytes(shown), missing, as_bytes(answers[:, 0]), missing]
        else:
            rows.append(blank.repeat(2 * len(drawn), 1, 1, 1))
        return png(mosaic(torch.cat(rows), len(drawn), self.scale)[0])

    def _side_by_side(self, budgets: Sequence[int] = (5, 10)):
        """Five samplers at two budgets, from the same noise."""
        names = ("DDPM", "DDIM", "Heun", "2M", "UniPC-2")
        rows, labels, costs = [], [], []
        for budget in budgets:
            for name in names:
                drawn, _, cost = self.draw(SOLVERS[name], budget)
                rows.append(drawn)
                labels.append(f"{name}, {budget}")
                costs.append(f"{name}: {cost.split(',')[0]}")
        figure = sheet(torch.cat(rows), rows=labels, group=len(names), scale=math.ceil(self.scale / 2))
        return describe(figure, f"What the explorer shows for {'; '.join(costs)}. {figure.alt}")

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data, metadata = self.static._repr_mimebundle_()
        return {**data, WIDGET: self.box._repr_mimebundle_()[WIDGET]}, metadata

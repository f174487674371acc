"""Plots in the plane: points, densities and trajectories of samples, on fixed axes of equal units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from survey_lib.core.protocols import Corruption
from survey_lib.lab.plots.images import same_noise, time_titles, unit
from survey_lib.lab.plots.labels import halo, ink, number
from survey_lib.lab.plots.style import PALETTE, Figure, colours, describe, finish, panels, styled

LogProb = Callable[[Tensor], Tensor]  #: (M, 2) float64 -> (M,)
_MESH = 161  # points on each side: finer than the width of a contour line
_LEVELS = (0.5, 0.8, 0.95, 0.99)  # the probability inside each contour
_SHADES = LinearSegmentedColormap.from_list("mass", ["#FFFFFF", "#C9DCEA", "#7FAFD0"])


@styled
def scatter2d(
    points: Tensor | Mapping[str, Tensor],
    *,
    density: LogProb | None = None,
    limits: float | tuple[float, float, float, float] | None = None,
    roles: Mapping[str, str] | None = None,
    size: float = 5,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Points (N, 2), or several named sets of points, over the density of a ``log_prob`` if it is given.

    ``limits`` is half the side of a square around 0, or ``(left, right, bottom, top)``; by default the axes fit the
    points.
    """
    sets = dict(points) if isinstance(points, Mapping) else {"": points}
    ax = ax or panels(width=4.6, height=4.6)[1]
    limits = _limits(limits, torch.cat([values.detach().cpu().double() for values in sets.values()]))
    if density is not None:
        _draw_density(ax, density, limits)
    colour = colours(sets, roles or ({"": "model"} if density else None))
    for rank, (name, values) in enumerate(sets.items()):
        many = len(values) > 1000
        ax.scatter(*values.detach().cpu().numpy().T, s=size, color=colour[name], alpha=0.45 if many else 0.75,
                   linewidth=0, zorder=3)  # fmt: skip
        ax.text(0.025, 0.975 - 0.06 * rank, name, transform=ax.transAxes, va="top", weight="bold",
                color=ink(colour[name]), path_effects=halo(), zorder=5)  # fmt: skip
    _plane(ax, limits, title)
    words = "; ".join(
        f"{name or 'their'} {'centre' if name else 'centre is'} {_pair(values.double().mean(0))}, "
        f"deviations {_pair(values.double().std(0))}"
        for name, values in sets.items()
    )
    total = sum(len(values) for values in sets.values())
    return finish(ax, f"{total:,} points in the plane{' over a density' * (density is not None)}: {words}.")


@styled
def density2d(
    log_prob: LogProb,
    *,
    limits: float | tuple[float, float, float, float] = 3.0,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Density of a ``log_prob`` (M, 2) -> (M,); contours hold 50, 80, 95 and 99 % of its mass in the frame."""
    ax = ax or panels(width=4.6, height=4.6)[1]
    limits = _limits(limits, None)
    mesh, mass = _draw_density(ax, log_prob, limits)
    _plane(ax, limits, title)
    peak = mesh.reshape(-1, 2)[int(mass.argmax())]
    return finish(ax, f"A density in the plane: highest at {_pair(peak)}, centre at {_pair(_mean(mesh, mass))}.")


@styled
def trajectories(
    paths: Tensor | Sequence[Tensor],
    *,
    density: LogProb | None = None,
    limits: float | tuple[float, float, float, float] | None = None,
    role: str = "model",
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Trajectories (T, N, 2) of N samples from their start (ring) to their end (dot), over a density if it is given.

    ``paths`` may be the list `Recorder.inputs`. The axes are fixed by ``limits`` (see `scatter2d`); by default they fit
    the trajectories.
    """
    paths = (torch.stack(list(paths)) if not isinstance(paths, Tensor) else paths).detach().cpu().double()
    if paths.ndim != 3 or paths.shape[-1] != 2:
        raise ValueError(f"paths are (T, N, 2): times, samples, two coordinates; got {tuple(paths.shape)}")
    ax = ax or panels(width=4.9, height=4.9)[1]
    limits = _limits(limits, paths.reshape(-1, 2))
    if density is not None:
        _draw_density(ax, density, limits)
    ax.plot(*paths.permute(2, 0, 1).numpy(), color=PALETTE["noise"], linewidth=0.8, alpha=0.8, zorder=2)
    ax.scatter(*paths[0].T, s=14, facecolor="white", edgecolor=PALETTE["noise"], linewidth=0.9, zorder=3)
    ax.scatter(*paths[-1].T, s=14, color=PALETTE[role], linewidth=0, zorder=4)
    _plane(ax, limits, title)
    length = paths.diff(dim=0).norm(dim=-1).sum(0).mean()
    direct = (paths[-1] - paths[0]).norm(dim=-1).mean()
    return finish(
        ax,
        f"{paths.shape[1]} paths of {len(paths) - 1} steps in the plane: {number(length)} long on average where "
        f"the straight way is {number(direct)}; they end around {_pair(paths[-1].mean(0))}.",
    )


@styled
def forward_scatter(
    corruption: Corruption,
    x0: Tensor,
    times: Sequence[float] | Tensor,
    generator: torch.Generator,
    *,
    limits: float | tuple[float, float, float, float] = 3.0,
) -> Figure:
    """The forward process on points (N, 2): a panel for each time, with the same axes and the same noise.

    Points are shown at unit scale, ``x_t / sqrt(alpha^2 + sigma^2)``, to fit the axes under any schedule.
    """
    schedule = getattr(corruption, "schedule", None)
    figure, axes = panels(len(times), width=8.6, height=8.6 / len(times) + 0.75, squeeze=False)
    noisy = same_noise(corruption, x0, times, generator)
    titles = time_titles(times, schedule)
    for ax, x_t, t, title in zip(axes[0], noisy, times, titles, strict=True):
        scatter2d(unit(x_t, t, schedule), limits=limits, roles={"": "data"}, size=3, title=title, ax=ax)
        ax.label_outer()
    ends = [_pair(x.double().std(0)) for x in (noisy[0], noisy[-1])]
    return describe(
        figure,
        f"The forward process on {len(x0)} points at {len(times)} times from t = {number(times[0], 2)} to "
        f"{number(times[-1], 2)}: their deviations go from {ends[0]} to {ends[1]}.",
    )


def _draw_density(ax: Axes, log_prob: LogProb, limits: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Shade the regions that hold `_LEVELS` of the mass; return the mesh (y, x, 2) and the mass of its cells."""
    x, y = (np.linspace(low, high, _MESH) for low, high in (limits[:2], limits[2:]))
    mesh = np.stack(np.meshgrid(x, y), -1)
    with torch.no_grad():
        logs = log_prob(torch.from_numpy(mesh.reshape(-1, 2))).detach().cpu().double().numpy()
    if logs.shape != (_MESH**2,):
        raise ValueError(f"log_prob maps (M, 2) to (M,); for M = {_MESH**2} it gave {logs.shape}")
    mass = np.exp(logs - logs.max()).reshape(_MESH, _MESH)
    mass /= mass.sum()
    ranked = np.sort(mass.ravel())[::-1]
    inside = ranked.cumsum()
    levels = np.unique([ranked[min(int(np.searchsorted(inside, part)), len(ranked) - 1)] for part in _LEVELS])
    shades = _SHADES(np.linspace(0.25, 1, len(levels)))
    ax.contourf(x, y, mass, [*levels, mass.max() * 1.001], colors=shades, zorder=0.5)
    return mesh, mass


def _mean(mesh: np.ndarray, mass: np.ndarray) -> np.ndarray:
    return (mesh * mass[..., None]).sum((0, 1))


def _limits(limits: float | tuple | None, points: Tensor | None) -> tuple[float, float, float, float]:
    """Four limits of the frame; without ``limits``, a square that fits the points."""
    if limits is None:
        low, high = points.amin(0), points.amax(0)
        middle, half = (low + high) / 2, 0.54 * float((high - low).max()) or 1.0
        return tuple(float(v) for v in (middle[0] - half, middle[0] + half, middle[1] - half, middle[1] + half))
    if isinstance(limits, (int, float)):
        return (-limits, limits, -limits, limits)
    return tuple(limits)


def _plane(ax: Axes, limits: tuple, title: str | None) -> None:
    ax.set(xlim=limits[:2], ylim=limits[2:], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    ax.locator_params(nbins=5)
    ax.grid(False)
    if title:
        ax.set_title(title)


def _pair(values) -> str:
    return f"({number(values[0], 2)}, {number(values[1], 2)})"

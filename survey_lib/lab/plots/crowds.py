"""Many samples at once: point sets side by side, a score field over a density, and trajectories over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from survey_lib.lab.plots.labels import array, number
from survey_lib.lab.plots.planes import LogProb, density2d, scatter2d
from survey_lib.lab.plots.style import PALETTE, Figure, describe, finish, panels, styled

_ROWS = 241  # values of x at which a density over time is drawn
_LEVELS = [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]  # shades: an image of few colours is small


@styled
def scatters(sets: Mapping[str, Tensor], *, density: LogProb | None = None, limits: float = 2.0) -> Figure:
    """A panel for each named set of points (N, 2), with the same density and axes (see `scatter2d`)."""
    figure, axes = panels(len(sets), width=7.2, height=7.2 / len(sets) + 0.45, sharey=True, squeeze=False)
    for ax, (name, points) in zip(axes[0], sets.items(), strict=True):
        scatter2d(points, density=density, limits=limits, title=name, ax=ax)
        ax.set_label(f"{name}: {ax.get_label()}")
        ax.label_outer()
    return describe(figure)


@styled
def field2d(log_prob: LogProb, score: Callable[[Tensor], Tensor], *, scale: float, limits: float = 2.0) -> Figure:
    """A density in the plane and its score, as arrows ``scale * score(x)``; long arrows are shortened."""
    figure, ax = panels(width=3.5, height=3.6)
    density2d(log_prob, limits=limits, ax=ax)
    side = torch.linspace(-0.9 * limits, 0.9 * limits, 14, dtype=torch.float64)
    mesh = torch.cartesian_prod(side, side)
    arrows = scale * score(mesh)
    lengths = arrows.norm(dim=1, keepdim=True)
    arrows = arrows / (1 + lengths)
    ax.quiver(*array(mesh).T, *array(arrows).T, color=PALETTE["model"], scale=16, width=0.006)
    inward = (arrows * mesh).sum(1) < 0
    words = f"{int(100 * inward.double().mean())} % of the arrows of its score point inwards"
    ax.set_label(f"{ax.get_label()} {words}.")
    return describe(figure)


@styled
def paths(
    views: Mapping[str, Tensor],
    times: ArrayLike,
    *,
    density: Callable[[Tensor, float], Tensor] | None = None,
    limits: tuple[float, float] = (-2.4, 2.4),
    count: int = 12,
) -> Figure:
    """Trajectories in one dimension, from noise to data, in a panel for each view.

    ``views`` are named states (T, N) or (T, N, 1) at falling ``times`` (T,). ``density(x, t)`` (M,) -> (M,) shades the
    background, relative to its maximum at each time.
    """
    root = array(times) ** 0.5
    x = torch.linspace(*limits, _ROWS, dtype=torch.float64)
    figure, axes = panels(len(views), width=7.2, height=3.0, sharey=True, squeeze=False)
    shade = torch.stack([density(x, float(t)) for t in times]) if density else None
    for ax, (name, states) in zip(axes[0], views.items(), strict=True):
        states = states.reshape(len(root), -1).detach().cpu()
        if shade is not None:
            relative = array(shade / shade.amax(1, keepdim=True)).T
            ax.contourf(root, array(x), relative, levels=_LEVELS, cmap="Blues", vmax=1.6)
        ax.plot(root, array(states[:, :count]), color=PALETTE["model"], linewidth=0.9)
        ax.set(xlim=(root[0], root[-1]), ylim=limits, xlabel="√t:  noise ⟶ data", title=name)
        ax.grid(False)
        length = states.diff(dim=0).abs().sum(0).mean()
        finish(ax, f"{name}: {min(count, states.shape[1])} paths from noise to data, {number(length)} long on average.")
    axes[0, 0].set_ylabel("x")
    return describe(figure)

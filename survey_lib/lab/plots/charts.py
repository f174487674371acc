"""Charts of measurements: error against evaluations, quality against cost, and losses.

Every function draws on ``ax`` if it is given (see `style.panels`), names curves at their ends instead of in a legend,
and returns a `Figure` whose alt text quotes the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import ArrayLike
from torch import Tensor

from survey_lib.lab.plots.labels import array, capital, end_labels, halo, ink, number, place_labels, plain_log
from survey_lib.lab.plots.style import PALETTE, Figure, colours, finish, panels, styled

#: Largest ratio of the values on a linear axis, or on a log axis with plain numbers.
SPAN = 30


@styled
def error_against_evaluations(
    curves: Mapping[str, Sequence[ArrayLike]],
    *,
    slopes: Sequence[float] = (1, 2, 3),
    error: str = "error",
    roles: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Error of each sampler against network evaluations (NFE), on log axes, with reference slopes of orders 1, 2, 3.

    ``curves`` maps a name to ``(evaluations, errors)``, or ``(evaluations, errors, low, high)`` to draw an interval.
    ``error`` names the quantity with its unit; ``roles`` maps a name to a role in `PALETTE`.
    """
    ax = ax or panels()[1]
    data = {name: [array(part) for part in curve] for name, curve in curves.items()}
    colour = colours(data, roles)
    for name, (n, e, *interval) in data.items():
        ax.loglog(n, e, "o-", color=colour[name])
        if interval:
            ax.fill_between(n, *interval, color=colour[name], alpha=0.18, linewidth=0)
    evaluations = np.unique(np.concatenate([n for n, *_ in data.values()]))
    _count_axis(ax, evaluations)
    ax.set(xlabel="network evaluations", ylabel=error)
    fans = _slopes(ax, evaluations, [e for _, e, *_ in data.values()], slopes if len(evaluations) > 1 else ())
    end_labels(ax, [(n[-1], e[-1], name, colour[name]) for name, (n, e, *_) in data.items()] + fans)
    ends = "; ".join(
        f"{name} goes from {number(e[0], 2)} at {n[0]:g} to {number(e[-1], 2)} at {n[-1]:g}"
        for name, (n, e, *_) in data.items()
    )
    return finish(ax, f"{capital(error)} against network evaluations on log axes: {ends}.")


@styled
def pareto(
    points: Mapping[str, Sequence[float]],
    *,
    cost: str,
    quality: str,
    better: str = "lower",
    log: bool = True,
    roles: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Quality against cost, a labelled point for each method, with the Pareto front.

    ``points`` maps a name to ``(cost, quality)`` or ``(cost, quality, low, high)`` with the interval of the quality.
    ``better`` is "lower" or "higher" for the quality; lower cost is always better. Qualities that span more than a
    factor of `SPAN` are on a log axis, so that one bad method does not hide the differences between the others.
    """
    if better not in ("lower", "higher"):
        raise ValueError(f'better is "lower" or "higher"; got {better!r}')
    ax = ax or panels()[1]
    colour = colours(points, roles or dict.fromkeys(points, "data"))
    sign = 1 if better == "lower" else -1
    front = [
        name
        for name, (c, q, *_) in sorted(points.items(), key=lambda item: (item[1][0], sign * item[1][1]))
        if not any((d, sign * r) != (c, sign * q) and d <= c and sign * r <= sign * q for d, r, *_ in points.values())
    ]
    ax.plot(*zip(*(points[name][:2] for name in front), strict=True), color=PALETTE["faint"], linewidth=4, zorder=1)
    for name, (c, q, *interval) in points.items():
        bars = np.abs(np.array(interval)[:, None] - q) if interval else None
        face = colour[name] if name in front else "white"
        ax.errorbar(c, q, bars, fmt="o", color=colour[name], markerfacecolor=face, elinewidth=1, markersize=6)
    if log:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    qualities = [q for _, q, *_ in points.values()]
    if min(qualities) > 0 and max(qualities) > SPAN * min(qualities):
        ax.set_yscale("log")
    ax.margins(0.1, 0.12)
    ax.set(xlabel=cost, ylabel=f"{quality} ({better} is better)")
    place_labels(ax, [(c, q, name, colour[name]) for name, (c, q, *_) in points.items()])
    first, last = (f"{name} ({number(points[name][0])}, {number(points[name][1])})" for name in (front[0], front[-1]))
    return finish(
        ax,
        f"{capital(quality)} against {cost}, methods {len(points)}; on the front {len(front)}, from {first} to {last}.",
    )


@styled
def loss_by_lam(
    lam: ArrayLike,
    loss: ArrayLike,
    *,
    bins: int | None = 20,
    theory: Callable[[Tensor], Tensor] | tuple[ArrayLike, ArrayLike] | None = None,
    label: str = "loss",
    log: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Mean loss in bins of ``lam``, with two standard errors, and the exact loss drawn over it.

    ``lam`` and ``loss`` (N,) have a number for each example or, with ``bins=None``, for each bin. ``theory`` is a
    function ``lam -> loss`` (float64 tensors) or a pair of arrays.
    """
    ax = ax or panels()[1]
    lam, loss = array(lam), array(loss)
    if bins is not None:
        lam, loss, error = _binned(lam, loss, bins)
        floor = loss.min() / 3 if log else 0  # a log axis cannot show values below 0
        ax.fill_between(
            lam, np.maximum(loss - 2 * error, floor), loss + 2 * error, color=PALETTE["model"], alpha=0.2, linewidth=0
        )
    ax.plot(lam, loss, "o-", color=PALETTE["model"], markersize=3.5, zorder=3)
    ends = [(lam[-1], loss[-1], "measured", PALETTE["model"])]
    if theory is not None:
        at = np.linspace(lam[0], lam[-1], 200)
        x, y = (at, theory(torch.from_numpy(at))) if callable(theory) else theory
        x, y = array(x), array(y)
        ax.plot(x, y, color=PALETTE["theory"], linewidth=1.2, linestyle=(0, (4, 2)), zorder=4)
        ends.append((x[-1], y[-1], "exact", PALETTE["theory"]))
    if log:
        ax.set_yscale("log")
        plain_log(ax.yaxis)
    else:
        ax.set_ylim(bottom=0)
    ax.set(xlabel=r"$\lambda = \log(\alpha / \sigma)$:   noisy  ⟵     ⟶  clean", ylabel=label)
    end_labels(ax, ends)
    worst = int(loss.argmax())
    return finish(
        ax,
        f"{capital(label)} by lam from {number(lam[0], 2)} to {number(lam[-1], 2)}: largest, {number(loss[worst])}, "
        f"at lam = {number(lam[worst], 2)}; {number(loss[-1])} at the clean end.",
    )


@styled
def curves(
    lines: Mapping[str, Sequence[ArrayLike]],
    *,
    x: str = "training steps",
    y: str = "loss",
    window: int = 1,
    log: bool = False,
    log_x: bool = False,
    roles: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Named curves ``(x, y)``; ``window > 1`` draws the running mean over the faint raw values.

    A curve ``(x, y, low, high)`` has a band for its interval and a dot for each measurement. If ``x`` falls in every
    curve, so does the axis. Without curves, the axes say that there are no results yet.
    """
    ax = ax or panels()[1]
    colour, ends, words = colours(lines, roles), [], [] if lines else ["no results yet"]
    if not lines:
        ax.text(0.5, 0.5, words[0], ha="center", va="center", transform=ax.transAxes)
    data = {name: [array(part) for part in line] for name, line in lines.items()}
    for name, (steps, values, *interval) in data.items():
        if interval:
            ax.fill_between(steps, *interval, color=colour[name], alpha=0.18, linewidth=0)
        if window > 1:
            ax.plot(steps, values, color=colour[name], alpha=0.25, linewidth=0.8)
            steps, values = steps[window - 1 :], np.convolve(values, np.full(window, 1 / window), "valid")
        ax.plot(steps, values, "o-" if interval else "-", color=colour[name])
        ends.append((steps[-1], values[-1], name, colour[name]))
        words.append(f"{name} goes from {number(values[0])} to {number(values[-1])}")
    if log:
        ax.set_yscale("log")
        plain_log(ax.yaxis)
    ax.margins(x=0.02)
    if log_x:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    else:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    if data and all(steps[0] > steps[-1] for steps, *_ in data.values()):
        ax.invert_xaxis()
    ax.set(xlabel=x, ylabel=y)
    end_labels(ax, ends)
    return finish(ax, f"{capital(y)} against {x}: {'; '.join(words)}.")


def _slopes(ax: Axes, n: np.ndarray, errors: list[np.ndarray], slopes: Sequence[float]) -> list[tuple]:
    """Draw a grey line of each slope from above the largest error; return the labels of lines at the right edge."""
    low, high = min(e.min() for e in errors), max(e.max() for e in errors)
    ax.set_xlim(n[0] / 1.12, n[-1] * 1.12)
    ax.set_ylim(low / 2.5, high * 2.5)
    if high < SPAN * low:
        plain_log(ax.yaxis)
    named = []
    for slope in slopes:
        start = high * 1.5
        end = min(n[-1], n[0] * (start / (low / 2.5)) ** (1 / slope))
        value = start * (end / n[0]) ** -slope
        ax.plot([n[0], end], [start, value], color=PALETTE["noise"], linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        text = f"slope {-slope:g}"
        if end == n[-1]:
            named.append((end, value, text, PALETTE["noise"]))
        else:
            ax.annotate(text, (end, value), (-5, 4), textcoords="offset points", ha="right", fontsize=8.5,
                        color=ink(PALETTE["noise"]), path_effects=halo())  # fmt: skip
    return named


def _binned(lam: np.ndarray, loss: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean lam, mean loss and its standard error in bins of equal width; nearly empty bins are left out."""
    if not np.isfinite(lam).all() or len(lam) < 2:
        raise ValueError("bins need at least two examples and finite lam; clean data and pure noise have infinite lam")
    edges = np.linspace(lam.min(), lam.max(), bins + 1)
    place = np.clip(np.digitize(lam, edges) - 1, 0, bins - 1)
    least = max(2, len(lam) // (20 * bins))
    groups = [(lam[place == b], loss[place == b]) for b in range(bins) if (place == b).sum() >= least]
    return tuple(
        np.array(column)
        for column in zip(*((x.mean(), y.mean(), y.std(ddof=1) / len(y) ** 0.5) for x, y in groups), strict=True)
    )


def _count_axis(ax: Axes, counts: np.ndarray) -> None:
    """Put the ticks of a log axis at the measured counts, thinned until their labels do not overlap."""
    kept = []
    for count in counts:
        if not kept or count >= 1.4 * kept[-1]:
            kept.append(count)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(kept, [f"{count:.0f}" if count >= 10 else f"{count:.3g}" for count in kept])

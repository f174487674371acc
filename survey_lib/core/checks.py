"""Checks of arguments that several modules share. Each raises one sentence: the invalid value, and what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Below this ``alpha / sigma`` float32 cannot represent the data in ``x_t``: it counts as pure noise, ``lam = -inf``.
PURE_NOISE = 1e-8

#: The dtypes of states and data. Adaptive solvers take the `PRECISE`: they compare errors with tolerances.
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PRECISE = FLOATING[2:]


def is_pure_noise(alpha: Tensor | float, sigma: Tensor | float) -> Any:  # a Tensor or a bool
    """``alpha < PURE_NOISE sigma``: the noisy end, where ``x_t`` holds nothing of ``x0`` and ``1 / alpha`` no bound.

    Cosine and zero-terminal schedules end at an alpha near 1e-16 instead of 0, so ``alpha > 0`` is not the test.
    """
    return alpha < PURE_NOISE * sigma


def check_signal(alpha: Tensor, sigma: Tensor, what: str) -> None:
    """Raise ValueError at pure noise: ``what`` divides by alpha, and is undefined there."""
    if holds(~is_pure_noise(alpha, sigma)):
        return
    raise ValueError(
        f"{what} divides by alpha, which is {alpha.min():g} here (sigma is {sigma.max():g}): start at t < 1"
    )


def holds(condition: Tensor) -> bool:
    """Return whether a condition is true everywhere; on device "meta", which has no values, return True."""
    return condition.is_meta or bool(condition.all())


def check_time(t: Tensor | float, name: str = "t") -> Tensor:
    """``t`` in float64, or a ValueError for a time outside [0, 1]."""
    t = torch.as_tensor(t, dtype=torch.float64)
    if t.numel() and not (t.min() >= 0 and t.max() <= 1):
        got = f"{t:g}" if t.ndim == 0 else f"{t.min():g} to {t.max():g}"
        raise ValueError(f"times lie in [0, 1], 0 clean and 1 noise; {name} is {got}")
    return t


def check_batch_of_times(t: Tensor, x: Tensor) -> None:
    """Raise ValueError unless ``t`` is () or (B,) for ``x`` (B, ...)."""
    if t.ndim and t.shape != x.shape[:1]:
        raise ValueError(f"t has shape () or ({len(x)},), one time for each example; got {tuple(t.shape)}")


def check_step(t: Tensor | float, s: Tensor | float) -> tuple[Tensor, Tensor]:
    """``t, s`` in float64, or a ValueError unless ``0 <= s < t <= 1``."""
    t, s = check_time(t, "t"), check_time(s, "s")
    if not (s < t).all():
        raise ValueError(f"a step goes from t down to s < t, towards the data; got t = {t.tolist()}, s = {s.tolist()}")
    return t, s


def check_times(times: Tensor | Sequence[float]) -> Tensor:
    """A grid of times in float64 on the CPU, or a ValueError unless two or more times fall strictly within [0, 1]."""
    try:
        times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"a grid is a tensor or a sequence of times; got {times!r}") from error
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"a grid needs at least two times in one dimension; this one has shape {tuple(times.shape)}")
    check_time(times, "this grid")
    if not (times.diff() < 0).all():
        at = int((times.diff() >= 0).nonzero()[0])
        raise ValueError(
            f"a grid falls strictly from noise to data; times {at} and {at + 1} are {times[at]:g} and {times[at + 1]:g}"
        )
    return times


def check_count(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """``value``, or a TypeError unless it is an int (True is not), or a ValueError unless ``low <= value <= high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number; got {value!r}")
    if value < low:
        raise ValueError(f"{name} is at least {low}; got {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} is at most {high}; got {value}")
    return value


def check_order(order: Any, accepted: Sequence[int], sentence: str) -> None:
    """Raise ValueError with ``sentence`` unless ``order`` is one of the ``accepted`` integers; 2.0 and True are not."""
    if type(order) is not int or order not in accepted:
        raise ValueError(f"{sentence}; got {order!r}")


def check_generator(generator: torch.Generator | None) -> torch.Generator:
    """The generator of a step that draws random numbers; ValueError for None, TypeError for anything else."""
    if generator is None:
        raise ValueError("this step draws random numbers: pass generator=torch.Generator().manual_seed(seed)")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is a torch.Generator, such as torch.Generator().manual_seed(0); got {generator!r}")
    return generator


def check_floating(name: str, x: Any, accepted: Sequence[torch.dtype] = FLOATING) -> None:
    """Raise TypeError unless ``x`` is a tensor of real floating-point numbers, of an ``accepted`` dtype."""
    if not isinstance(x, Tensor) or x.dtype not in accepted:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in accepted)
        raise TypeError(f"{name} is a tensor of real numbers ({names}); got {got}")


def check_state(x: Any, *, integers: bool = False) -> None:
    """Raise TypeError or ValueError unless ``x`` is a batch (B, ...) of finite real numbers, B at least 1.

    integers: accept integer dtypes too, the states of categorical chains.
    """
    whole = isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
    if not (integers and whole):
        check_floating("x", x)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"x is a batch (B, ...) of at least one example; got shape {tuple(x.shape)}")
    if not whole and not holds(x.isfinite()):
        raise ValueError("x is not finite: it holds NaN or infinity before the first step")


def check_cond(cond: Any, x: Tensor) -> Any:
    """The condition of a batch ``x`` (B, ...), or a TypeError or ValueError if it is none of these:

    None; a tensor with B rows; a tuple of parts, which are not checked; or one integer label, which becomes (B,).
    """
    if cond is None or isinstance(cond, tuple):
        return cond
    if isinstance(cond, int) and not isinstance(cond, bool):
        cond = torch.tensor(cond, device=x.device)
    if not isinstance(cond, Tensor):
        raise TypeError(f"cond is a tensor with a row for each example, or None; got {type(cond).__name__} {cond!r}")
    if cond.dtype in (torch.bool, torch.uint8):
        raise TypeError(f"labels in cond are int64, images float32; got {cond.dtype}")
    if cond.ndim == 0 and not cond.is_floating_point():
        return cond.expand(len(x))
    if cond.ndim == 0 or len(cond) != len(x):
        raise ValueError(f"cond has a row for each of the {len(x)} examples; got shape {tuple(cond.shape)}")
    return cond


def check_labels(cond: Any, count: int, device: torch.device) -> Tensor:
    """Integer labels (count,) on ``device`` from one label or one per example, or a ValueError."""
    try:
        labels = torch.as_tensor(cond, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"cond is one integer label per example; got {cond!r}") from error
    if labels.dtype not in (torch.int32, torch.int64) or labels.shape not in ((), (count,)):
        raise ValueError(
            f"cond is one integer label per example, shape ({count},); got {labels.dtype}, {tuple(labels.shape)}"
        )
    return labels.long().expand(count)


def check_start(
    x: Any, times: Any, cond: Any, generator: torch.Generator | None = None, *, integers: bool = False
) -> tuple[Tensor, Any]:
    """Check the arguments that every sampler takes, once before its first step; returns the grid and the condition."""
    check_state(x, integers=integers)
    if generator is not None:
        check_generator(generator)
    return check_times(times), check_cond(cond, x)


def check_end(x: Tensor) -> Tensor:
    """``x`` after a sampler's last step, or a FloatingPointError if no example is finite.

    A few examples that diverged are returned with the others, for the caller to count.
    """
    if x.is_floating_point() and not x.is_meta and not x.reshape(len(x), -1).isfinite().all(1).any():
        raise FloatingPointError(
            "no sample is finite: the denoiser returned NaN or infinity, or the sampler diverged in too few steps"
        )
    return x

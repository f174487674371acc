"""What a sample costs: evaluations, multiply-accumulates, core-seconds, memory, energy; and fair ratios of time.

Evaluations and MACs are the same on every machine. Core-seconds hardly depend on what else runs; wall-clock does, and
is worth something only as a ratio of two things timed in turn (`ratio`).
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

#: Electrical watts of one busy core: a socket's rated power over its cores is 3 to 10 today.
#: codecarbon, which has no better source where it may not read the processor's own meter either, takes 4 a thread;
#: it adds 1.5 s to every measurement, and a constant for memory that exceeds what the cores draw.
WATTS_PER_CORE = 5.0

_measuring = threading.Lock()


class CountCalls:
    """Counts the evaluations of a network, or of any function ``(x, *arguments)`` whose rows are examples.

    ``calls`` are evaluations, ``examples`` the rows that went through (B for each call), ``macs`` the
    multiply-accumulates of all examples. Put it innermost, ``ClassifierFree(CountCalls(denoiser), ...)``, to count what
    the network does; a guided step in one doubled batch is one call of 2 B examples. Compare methods by examples.
    Other attributes are those of the function.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.reset()

    def __getattr__(self, name: str) -> Any:
        if name == "function":  # not set yet: the object is being copied
            raise AttributeError(name)
        return getattr(self.function, name)

    def reset(self) -> None:
        """Start again at nothing."""
        self.calls = self.examples = 0
        self._kinds: dict[tuple, list] = {}  # (shape of an example, gradient or not): [examples, arguments of one]

    def __call__(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        self.calls += 1
        self.examples += len(x)
        kind = (tuple(x.shape[1:]), x.requires_grad)
        if kind not in self._kinds:
            first = [value[:1] if _is_batch(value, x) else value for value in (x, *arguments, *named.values())]
            self._kinds[kind] = [
                0,
                first[: 1 + len(arguments)],
                dict(zip(named, first[1 + len(arguments) :], strict=True)),
            ]
        self._kinds[kind][0] += len(x)
        return self.function(x, *arguments, **named)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all examples so far; those of the gradient are added where x has one."""
        return sum(
            examples * macs(_with_gradient if gradient else _without, self.function, *arguments, **named)
            for (_, gradient), (examples, arguments, named) in self._kinds.items()
        )


def _is_batch(value: Any, x: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(x)


def _without(function: Callable, *arguments: Any, **named: Any) -> None:
    with torch.no_grad():
        function(*arguments, **named)


def _with_gradient(function: Callable, x: Tensor, *arguments: Any, **named: Any) -> None:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = function(x.view_as(x), *arguments, **named)  # a view: the counter's hooks on modules refuse a leaf
        torch.autograd.grad(value.sum(), x)


def macs(function: Callable, *args: Any, **kwargs: Any) -> int:
    """Multiply-accumulates of one call ``function(*args, **kwargs)``: a module's forward, or a whole training step.

    Convolutions and matrix products count, attention and backward passes included; additions, norms and activations
    do not. Half of what torch calls FLOPs. Give it the plain function, not a compiled one.
    """
    # fused attention is one opaque call, counted as 0 (in inference always, else by some versions): take it apart
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            function(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2


@dataclass(frozen=True, repr=False)
class Cost:
    """What a block of code took (`measure`); the energy is None where nobody knows it."""

    wall_seconds: float
    core_seconds: float
    peak_mib: float
    energy_joules: float | None
    energy_source: str  # "measured" (the GPU's meter), "estimate" (core-seconds times watts) or "unknown"

    def __repr__(self) -> str:
        energy = (
            "energy unknown" if self.energy_joules is None else f"{self.energy_joules:.3g} J ({self.energy_source})"
        )
        time_taken = f"{self.wall_seconds:.3g} s wall, {self.core_seconds:.3g} core-seconds"
        return f"Cost({time_taken}, peak {self.peak_mib:.1f} MiB, {energy})"


class Measure:
    """What `measure` yields: ``cost`` once its block has ended."""

    def __init__(self):
        self._cost: Cost | None = None

    @property
    def cost(self) -> Cost:
        if self._cost is None:
            raise RuntimeError("a cost is known only after its block: read .cost below the with statement")
        return self._cost


@contextmanager
def measure(device: str | torch.device = "cpu", *, watts_per_core: float = WATTS_PER_CORE) -> Iterator[Measure]:
    """Cost of a block: ``with measure() as run: ...``, then ``run.cost``; also after an exception.

    * ``core_seconds``: processor time of all threads of this process, and of children that ended in the block.
    * ``peak_mib``: memory at its highest above what was held on entry: resident memory of the process (beyond its
      previous peak, a lower bound, where the system cannot reset the peak: not Linux), or torch's on a GPU.
    * ``energy_joules``: the GPU's own meter (the whole board; it ticks every 0.1 s or so), or on a CPU
      ``core_seconds * watts_per_core``, an estimate that is right within a factor of about 2.

    Raises RuntimeError for a measurement inside another: it would reset the outer one's peak.
    """
    device, run = torch.device(device), Measure()
    gpu = device.type == "cuda"
    if not _measuring.acquire(blocking=False):
        raise RuntimeError("measurements do not nest: the inner one would reset the outer one's memory peak")
    try:
        _reset_peak(device)
        peak, joules = _peak_bytes(device), _gpu_joules(device) if gpu else None
        wall, cores = _now(gpu), _core_seconds()
        try:
            yield run
        finally:
            wall, cores = _now(gpu) - wall, _core_seconds() - cores
            if not gpu:
                energy, source = cores * watts_per_core, "estimate"
            elif joules is None:
                energy, source = None, "unknown"
            else:
                energy, source = _gpu_joules(device) - joules, "measured"
            run._cost = Cost(wall, cores, max(0, _peak_bytes(device) - peak) / 2**20, energy, source)
    finally:
        _measuring.release()


def _now(gpu: bool) -> float:
    if gpu:  # kernels run behind the program: wait until they are done
        torch.cuda.synchronize()
    return time.perf_counter()


def _core_seconds() -> float:
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # the C library keeps what was freed, and would hand it out again without any growth: give it back first, so that
    # every block pays for its memory as it would in a fresh process, whatever ran before
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # not Linux, or not allowed: the peak then only ever grows
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(device: torch.device) -> int:
    """The highest memory since the last reset: just after a reset, what is held now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _gpu_joules(device: torch.device) -> float | None:
    """Energy that the GPU has drawn since its driver was loaded; None without the meter or its library."""
    try:
        import pynvml  # the module of nvidia-ml-py
    except ImportError:
        return None
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:  # by its number in CUDA it could be another one
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
        finally:
            pynvml.nvmlShutdown()
    return None


@dataclass(frozen=True)
class Ratio:
    """Time of ours over time of theirs: the median of the pairs, and the smallest and largest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def ratio(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    repeats: int = 5,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Time of ``ours()`` over time of ``theirs()``, run in turn A B A B, each once before without the clock.

    Each pair gives one ratio: what slows the machine for longer than a pair cancels. ``clock=time.process_time``
    compares core-seconds instead. Raises ValueError without repeats.
    """
    if repeats < 1:
        raise ValueError(f"repeats is a positive number of pairs; got {repeats}")

    def seconds(function: Callable[[], Any]) -> float:
        start = clock()
        function()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return clock() - start

    for function in (ours, theirs):  # first calls allocate, compile and load
        seconds(function)
    ratios = [seconds(ours) / seconds(theirs) for _ in range(repeats)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))

"""Cost of a computation: evaluations, multiply-accumulates (MACs), core-seconds, memory, energy; and ratios of time.

Evaluations and MACs are the same on every machine. Core-seconds depend on the machine, and threads that wait for each
other on a busy one count as working. Wall-clock time depends on both still more, and is meaningful only as a ratio of
two functions timed in turn (`ratio`).
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

#: Electrical power of one busy core in watts; the rated power of processors today is 3 to 10 W for each core.
#: codecarbon assumes 4 W for each thread if it cannot read the processor's meter; it is not used, because it adds
#: 1.5 s to every measurement, and a constant for memory that exceeds the power of the cores.
WATTS_PER_CORE = 5.0

_measuring = threading.Lock()


class CountCalls:
    """Counts the evaluations of a network, or of any function ``(x, *arguments)`` whose rows are examples.

    ``calls`` is the number of calls, ``examples`` the number of rows (B for each call), ``macs`` the
    multiply-accumulates of all examples. Wrap the innermost function, ``ClassifierFree(CountCalls(denoiser), ...)``, to
    count the work of the network: a guided step in one doubled batch is one call of 2 B examples. Compare methods by
    examples. Other attributes are those of the function.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.reset()

    def __getattr__(self, name: str) -> Any:
        if name == "function":  # not set yet: the object is being copied
            raise AttributeError(name)
        return getattr(self.function, name)

    def reset(self) -> None:
        """Set the counts to zero."""
        self.calls = self.examples = 0
        self._kinds: dict[tuple, list] = {}  # (shapes of an example, gradient or not): [examples, arguments of one]

    def __call__(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        self.calls += 1
        self.examples += len(x)
        kind = (_shapes((x, *arguments, *named.values())), x.requires_grad)
        if kind not in self._kinds:
            first = [_first(value, x) for value in (x, *arguments, *named.values())]
            self._kinds[kind] = [
                0,
                first[: 1 + len(arguments)],
                dict(zip(named, first[1 + len(arguments) :], strict=True)),
            ]
        self._kinds[kind][0] += len(x)
        return self.function(x, *arguments, **named)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all examples so far, including the gradient with respect to x if x requires one."""
        return sum(
            examples * macs(_with_gradient if gradient else _without, self.function, *arguments, **named)
            for (_, gradient), (examples, arguments, named) in self._kinds.items()
        )


def _first(value: Any, x: Tensor) -> Any:
    """The first example of what goes with the batch ``x``, in tuples too; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_first(part, x) for part in value)
    return value[:1] if isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(x) else value


def _shapes(value: Any) -> Any:
    """Shapes of tensors without their first dimension, in tuples too; None for anything else."""
    if isinstance(value, tuple):
        return tuple(_shapes(part) for part in value)
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else None


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

    Convolutions and matrix products count, also in attention and backward passes; additions, norms and activations do
    not. Half of what torch calls FLOPs. The function must not be compiled.
    """
    # fused attention is one opaque call, counted as 0 (in inference always, else by some versions): disable it
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
    """Cost of a block of code (`measure`); the energy is None if it is unknown."""

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
    """The object that `measure` yields; its ``cost`` is known when the block has ended."""

    def __init__(self):
        self._cost: Cost | None = None

    @property
    def cost(self) -> Cost:
        if self._cost is None:
            raise RuntimeError("a cost is known only after its block: read .cost below the with statement")
        return self._cost


@contextmanager
def measure(device: str | torch.device = "cpu", *, watts_per_core: float = WATTS_PER_CORE) -> Iterator[Measure]:
    """Measure the cost of a block: ``with measure() as run: ...``, then ``run.cost``; also after an exception.

    * ``core_seconds``: processor time of all threads of this process, and of children that ended in the block.
    * ``peak_mib``: peak memory above the memory held on entry: resident memory of the process, or torch's memory on a
      GPU. Where the peak of a process cannot be reset (not Linux), it is a lower bound.
    * ``energy_joules``: from the GPU's own meter (the whole board; updated about every 0.1 s), or on a CPU
      ``core_seconds * watts_per_core``, an estimate within a factor of about 2.

    Raises RuntimeError for a measurement inside another, whose memory peak it would reset.
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
    if gpu:  # kernels run asynchronously: wait until they are done
        torch.cuda.synchronize()
    return time.perf_counter()


def _core_seconds() -> float:
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # the C library keeps freed memory and would reuse it without growth: return it to the system first, so that the
    # peak of every block is as in a fresh process
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # not Linux, or not allowed: the peak then never decreases
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(device: torch.device) -> int:
    """Peak memory since the last reset; just after a reset, the memory held now."""
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
    """Energy that the GPU has used since its driver was loaded; None without a meter or its library."""
    try:
        import pynvml  # the module of nvidia-ml-py
    except ImportError:
        return None
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:  # its index in CUDA may be that of another GPU
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
        finally:
            pynvml.nvmlShutdown()
    return None


@dataclass(frozen=True)
class Ratio:
    """Ratio of two times: the median, minimum and maximum of the pairs."""

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
    """Ratio of the times of ``ours()`` and ``theirs()``, run in turn A B A B after an untimed call of each.

    Each pair gives one ratio, so that slowdowns longer than a pair cancel. ``clock=time.process_time`` compares
    core-seconds instead. Raises ValueError if ``repeats`` is below 1.
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

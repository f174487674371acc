"""An answer that runs in another process, and is called like a function."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from survey_lib.core.schedules import Schedule
from survey_lib.course.exercises.framework import Unsolved
from survey_lib.course.grading import wire
from survey_lib.lab.experiments.provenance import PACKAGE, PACKAGES

_MAY_READ = (*PACKAGES, "__init__.py")  # of the package: not the exercises
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo")


class Limits(NamedTuple):
    """Limits of an answer: seconds of the clock and of the processor, and bytes of memory beside the libraries."""

    seconds: int = 60
    memory: int = 2 * 2**30


USUAL = Limits()


class AnswerEnded(Exception):
    """The error for a process that has ended, or broken the rules of its messages."""


class Answer:
    """A learner's answer in a process of its own; a context manager.

    imports : import statements that the cells need
    cells   : the cells of answers; the last one defines ``name``
    """

    def __init__(self, imports: Sequence[str], cells: Sequence[str], name: str, limits: Limits = USUAL):
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-c", _BEGIN, str(PACKAGE.parent), str(theirs.fileno())]
        with theirs, open(os.devnull, "r+b") as nowhere:
            self.process = subprocess.Popen(
                command, stdin=nowhere, stdout=nowhere, stderr=nowhere, pass_fds=[theirs.fileno()],
                env=_environment(), cwd="/", start_new_session=True,
            )  # fmt: skip
        self.limits, self.name, self.missing = limits, name, []
        self.connection = wire.Connection(ours, time.monotonic() + 120)  # to load the libraries
        self._handles: list[Callable[..., Any]] = []
        readable = [*_SYSTEM, sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        readable += [str(PACKAGE / one) for one in _MAY_READ]
        first = {"imports": list(imports), "cells": list(cells), "name": name, "readable": readable}
        self.connection.send(first | {"memory": limits.memory, "seconds": limits.seconds})

    def __enter__(self) -> Answer:
        self.missing = self._receive().get("missing", [])
        self.connection.deadline = time.monotonic() + self.limits.seconds
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.connection.end.close()
        self.process.kill()
        self.process.wait()

    def value(self) -> Any:
        """The answer: a plain value, or this object for a function. Raises the error that its cells raised."""
        found = self._receive()
        self._raise(found)
        return self if found.get("callable") else wire.decode(found.get("value"))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return wire.differentiable(self.call, args, kwargs)

    def call(self, args: tuple, kwargs: dict[str, Any], slopes: list[Tensor] | None = None) -> Any:
        """The value of a call; with ``slopes``, the products of these with its derivatives, one for each argument."""
        generators = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Generator)]
        self._handles = []
        self._send({"args": self._encode(args), "kwargs": self._encode(kwargs), "slopes": slopes})
        while "ask" in (found := self._receive()):
            self._send(self._asked(found))
        self._raise(found)
        for one, state in zip(generators, found["states"], strict=True):
            one.set_state(state)
        return wire.decode(found["value"])

    def _encode(self, value: Any) -> Any:
        return wire.encode(value, self._special)

    def _special(self, value: Any) -> Any:
        if isinstance(value, torch.Generator):
            return wire.encode_generator(value)
        if isinstance(value, Schedule):
            parts = {name: getattr(value, name) for name in ("alpha", "sigma", "inverse")}
            functions = {name: self._handle(part) for name, part in parts.items() if part is not None}
            return wire.marked("schedule", functions=functions, name=value.name)
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return wire.marked("record", fields=self._encode(value._asdict()))
        if callable(value):
            return wire.marked("function", handle=self._handle(value))
        fields = {name: getattr(value, name) for name in dir(value) if not name.startswith("_")}
        return wire.marked("object", fields=self._encode(fields))

    def _handle(self, function: Callable[..., Any]) -> int:
        self._handles.append(function)
        return len(self._handles) - 1

    def _asked(self, message: dict[str, Any]) -> dict[str, Any]:
        """The reply to a call from the other side, of a function or of its derivatives."""
        try:
            function = self._handles[message["ask"]]
            args, kwargs = (wire.decode(message[part], wire.decode_generator) for part in ("args", "kwargs"))
            slopes = message.get("slopes")
            value = function(*args, **kwargs) if slopes is None else wire.derivatives(function, args, kwargs, slopes)
            return {"value": self._encode(value)}
        except (wire.Closed, TimeoutError):
            raise
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:500]}

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self.connection.send(message)
        except TimeoutError:
            raise self._late() from None
        except wire.Closed:
            raise AnswerEnded(_ENDED) from None

    def _receive(self) -> dict[str, Any]:
        try:
            return self.connection.receive()
        except TimeoutError:
            raise self._late() from None
        except (wire.Closed, ValueError):
            raise AnswerEnded(_ENDED) from None

    def _late(self) -> TimeoutError:
        return TimeoutError(f"it took longer than {self.limits.seconds} seconds")

    def _raise(self, message: dict[str, Any]) -> None:
        if "error" in message:
            name, text = str(message["error"]), str(message.get("text", ""))
            if name == "NotImplementedError":
                raise Unsolved
            raise type(name if name.isidentifier() else "Exception", (Exception,), {})(text)


_ENDED = "its process ended, or used more memory or processor time than it may"
_BEGIN = """import sys; sys.path.insert(0, sys.argv[1])
from survey_lib.course.grading import child; child.main(int(sys.argv[2]))"""


def _environment() -> dict[str, str]:
    """Nothing of the teacher's environment but what Python needs to start."""
    kept = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {name: os.environ[name] for name in kept if name in os.environ} | threads | {"PYTHONDONTWRITEBYTECODE": "1"}

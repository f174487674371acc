"""The answering process: it runs one learner's cells, and answers calls over a socket.

``python -m survey_lib.course.grading.child FD``. The first message holds the cells, the name of the answer, what may
be read, and the limits. Then each call is answered, until the other side ends.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.schedules import Schedule
from survey_lib.course.grading import sandbox, wire


class _Handles:
    """Calls of functions that live on the other side."""

    def __init__(self, connection: wire.Connection):
        self.connection = connection
        self.generators: list[torch.Generator] = []  # those of the call that is being answered

    def ask(self, handle: int, args: tuple, kwargs: dict[str, Any], slopes: list[Tensor] | None = None) -> Any:
        """The value of a call; with ``slopes``, the `wire.derivatives` of the call."""
        plain = {"args": wire.encode(args, wire.encode_generator), "kwargs": wire.encode(kwargs, wire.encode_generator)}
        self.connection.send({"ask": handle, "slopes": slopes, **plain})
        reply = self.connection.receive()
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return wire.decode(reply["value"], self.make)

    def make(self, kind: str, data: dict[str, Any]) -> Any:
        """Make the value that marked data stand for: a function, an object, a schedule, a record or a generator."""
        if kind == "function":
            return self._function(data["handle"])
        if kind == "schedule":
            parts = {name: self.make("function", {"handle": at}) for name, at in data["functions"].items()}
            return Schedule(**{"inverse": None, **parts, "name": data["name"]})
        if kind in ("object", "record"):
            return types.SimpleNamespace(**wire.decode(data["fields"], self.make))
        self.generators.append(wire.decode_generator(kind, data))
        return self.generators[-1]

    def _function(self, handle: int) -> Callable[..., Any]:
        def remote(*args: Any, **kwargs: Any) -> Any:
            return wire.differentiable(partial(self.ask, handle), args, kwargs)

        return remote


def main(number: int) -> None:
    """Run the cells of the first message, confined, and answer calls."""
    connection = wire.Connection(socket.socket(fileno=number))
    first = connection.receive()
    torch.set_num_threads(1)
    space: dict[str, Any] = {"__name__": "__main__"}
    for line in first["imports"]:
        exec(line, space)
    readable = [Path(one) for one in first["readable"]]
    missing = sandbox.confine(readable, memory=first["memory"], seconds=first["seconds"])
    connection.send({"missing": missing})
    handles, answer = _Handles(connection), None
    try:
        for cell in first["cells"][:-1]:
            with contextlib.suppress(Exception):  # it is graded by itself
                exec(compile(cell, "<an earlier answer>", "exec"), space)
        exec(compile(first["cells"][-1], "<the answer>", "exec"), space)
        answer = space[first["name"]]
        connection.send({"callable": True} if callable(answer) else {"value": wire.encode(answer)})
    except BaseException as error:
        connection.send(_told(error))
        return
    while True:
        try:
            call = connection.receive()
        except wire.Closed:
            return
        handles.generators = []
        try:
            args, kwargs = (wire.decode(call[part], handles.make) for part in ("args", "kwargs"))
            slopes = call["slopes"]
            found = answer(*args, **kwargs) if slopes is None else wire.derivatives(answer, args, kwargs, slopes)
            value = wire.encode(found)
            states = [one.get_state() for one in handles.generators]
            connection.send({"value": value, "states": states})
        except wire.Closed:
            return
        except BaseException as error:
            connection.send(_told(error))


def _told(error: BaseException) -> dict[str, str]:
    try:
        text = str(error)[:500]
    except Exception:
        text = ""
    return {"error": type(error).__name__[:80], "text": text}


if __name__ == "__main__":
    main(int(sys.argv[1]))

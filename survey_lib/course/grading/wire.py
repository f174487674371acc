"""Messages between a grading process and an answering process: tensors, numbers, texts and collections of them.

Nothing but such plain values is read from the other side, so a message cannot run code. What cannot be sent by value
(a denoiser, a log-density, an object with methods) is sent as a handle: the receiver calls it, and the call is
answered where the function lives. Gradients pass through such calls.
"""

from __future__ import annotations

import io
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

LARGEST = 32 * 2**20  # bytes of a message
_PLAIN = (bool, int, float, str, type(None))
_MARK = "$"  # the key of a dictionary that stands for something else


class Closed(Exception):
    """The error for a connection whose other side has ended."""


class Connection:
    """Messages over a socket, each with its length in front. ``deadline`` is on the clock of `time.monotonic`."""

    def __init__(self, end: socket.socket, deadline: float = float("inf")):
        self.end, self.deadline = end, deadline

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message. Raises TimeoutError at the deadline, Closed, and ValueError for a message too large."""
        buffer = io.BytesIO()
        torch.save(dict(message), buffer)
        if buffer.tell() > LARGEST:
            raise ValueError(f"a value of {buffer.tell() / 2**20:.0f} MiB is too large; {LARGEST >> 20} are accepted")
        self.end.settimeout(self._left())
        try:
            self.end.sendall(struct.pack("<Q", buffer.tell()) + buffer.getvalue())
        except TimeoutError:
            raise
        except OSError as error:
            raise Closed from error

    def receive(self) -> dict[str, Any]:
        """Receive one message. Raises TimeoutError at the deadline, Closed, and ValueError for a malformed message."""
        (length,) = struct.unpack("<Q", self._read(8))
        if length > LARGEST:
            raise ValueError(f"a message of {length} bytes is too large")
        content = self._read(length)
        try:
            message = torch.load(io.BytesIO(content), weights_only=True)
        except Exception as error:
            raise ValueError("a message cannot be read") from error
        if not isinstance(message, dict):
            raise ValueError("a message is a dictionary")
        return message

    def _left(self) -> float:
        """Seconds to the deadline, at most an hour."""
        if (left := self.deadline - time.monotonic()) <= 0:
            raise TimeoutError
        return min(left, 3600.0)

    def _read(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            self.end.settimeout(self._left())
            try:
                part = self.end.recv(min(length - len(parts), 2**20))
            except TimeoutError:
                raise
            except OSError as error:
                raise Closed from error
            if not part:
                raise Closed
            parts += part
        return bytes(parts)


def refuse(value: Any) -> Any:
    """Raise TypeError for a value that cannot be sent."""
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent; tensors, numbers, texts can")


def encode(value: Any, other: Callable[[Any], Any] = refuse) -> Any:
    """Encode a value as plain data. ``other`` encodes values that are not plain, and refuses them by default."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        return value.detach().to("cpu").clone()
    if isinstance(value, dict) and all(isinstance(key, str) and key != _MARK for key in value):
        return {key: encode(part, other) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(encode(part, other) for part in value)
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:  # a number of numpy
        return encode(value.item(), other)
    return other(value)


def marked(kind: str, **content: Any) -> dict[str, Any]:
    """Plain data that stands for something else, such as a handle."""
    return {_MARK: kind, **content}


def decode(data: Any, other: Callable[[str, dict[str, Any]], Any] | None = None) -> Any:
    """The value of plain data. ``other`` makes what is `marked`. Raises ValueError for marked data without it."""
    if isinstance(data, dict):
        if _MARK not in data:
            return {key: decode(part, other) for key, part in data.items()}
        if other is None:
            raise ValueError(f"a {data[_MARK]} is not accepted here")
        return other(data[_MARK], data)
    if type(data) in (list, tuple):
        return type(data)(decode(part, other) for part in data)
    return data


def encode_generator(value: Any) -> dict[str, Any]:
    """Encode a generator by its state. Raises TypeError for another value."""
    return marked("generator", state=value.get_state()) if isinstance(value, torch.Generator) else refuse(value)


def decode_generator(kind: str, data: dict[str, Any]) -> torch.Generator:
    """Generator with the state in marked data. Raises ValueError for marked data of another kind."""
    if kind != "generator":
        raise ValueError(f"a {kind} is not accepted here")
    generator = torch.Generator()
    generator.set_state(data["state"])
    return generator


def differentiable(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """The value of a call on the other side, through which gradients flow back where an argument requires them.

    call(args, kwargs, slopes=None): the value, or with ``slopes`` the `derivatives` of the call.
    """
    if torch.is_grad_enabled() and any(isinstance(one, Tensor) and one.requires_grad for one in args):
        return _Call.apply(call, kwargs, *args)
    return call(args, kwargs)


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(context, call, kwargs, *args):
        context.call, context.kwargs, context.args = call, kwargs, args
        return call(args, kwargs)

    @staticmethod
    def backward(context, *slopes):
        return (None, None, *context.call(context.args, context.kwargs, [encode(one) for one in slopes]))


def derivatives(function: Callable[..., Any], args: tuple, kwargs: dict[str, Any], slopes: list[Tensor]) -> list[Any]:
    """The products of ``slopes`` with the derivatives of a call, one for each argument; None where there is none."""
    with torch.enable_grad():
        leaves = [one.requires_grad_() if _is_float(one) else one for one in args]
        found = function(*leaves, **kwargs)
        found = found if isinstance(found, tuple) else (found,)
        pairs = [(one, slope) for one, slope in zip(found, slopes, strict=True) if one.requires_grad]
        wanted = [one for one in leaves if _is_float(one)]
        outputs, given = [one for one, _ in pairs], [slope for _, slope in pairs]
        grads = iter(torch.autograd.grad(outputs, wanted, given, allow_unused=True) if pairs else [None] * len(wanted))
        return [next(grads) if _is_float(one) else None for one in leaves]


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()

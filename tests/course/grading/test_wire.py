"""Messages between a grading process and an answering process: plain values, and nothing else."""

import io
import pickle
import socket
import struct
import time

import pytest
import torch

from survey_lib.course.grading import wire


def _pair(seconds=5.0):
    ends = socket.socketpair()
    return tuple(wire.Connection(end, time.monotonic() + seconds) for end in ends)


def test_plain_values_arrive_as_they_are():
    ours, theirs = _pair()
    value = {"a": torch.arange(3.0), "b": [1, 2.5, "text", None, True], "c": (1, {"d": torch.eye(2)})}
    ours.send({"value": wire.encode(value)})
    found = wire.decode(theirs.receive()["value"])
    assert found["b"] == value["b"] and type(found["c"]) is tuple
    torch.testing.assert_close(found["a"], value["a"])
    torch.testing.assert_close(found["c"][1]["d"], torch.eye(2))


def test_a_tensor_is_sent_without_what_it_is_a_part_of():
    large = torch.zeros(10**6)
    buffer = io.BytesIO()
    torch.save(wire.encode(large[:3]), buffer)
    assert buffer.tell() < 5000


@pytest.mark.parametrize("value", [object(), lambda: 1, {1: 2}, {"$": "function"}, torch.Generator()])
def test_what_is_not_plain_cannot_be_sent(value):
    with pytest.raises(TypeError, match="cannot be sent"):
        wire.encode(value)


class _Harm:
    def __reduce__(self):
        return (print, ("harm",))


@pytest.mark.parametrize("content", [b"", b"abc", pickle.dumps({"value": _Harm()})])
def test_a_message_that_is_no_plain_data_is_refused(content, capsys):
    ours, theirs = _pair()
    theirs.end.sendall(struct.pack("<Q", len(content)) + content)
    with pytest.raises(ValueError, match="cannot be read"):
        ours.receive()
    assert "harm" not in capsys.readouterr().out


def test_a_message_that_is_too_large_is_refused_on_both_sides():
    ours, theirs = _pair()
    with pytest.raises(ValueError, match="too large"):
        ours.send({"value": torch.zeros(wire.LARGEST)})
    theirs.end.sendall(struct.pack("<Q", wire.LARGEST + 1))
    with pytest.raises(ValueError, match="too large"):
        ours.receive()


def test_silence_and_a_reader_who_does_not_read_end_at_the_deadline():
    ours, _theirs = _pair(seconds=0.3)
    with pytest.raises(TimeoutError):
        ours.receive()
    ours, _theirs = _pair(seconds=0.3)
    with pytest.raises(TimeoutError):
        for _ in range(50):
            ours.send({"value": torch.zeros(10**6)})


def test_the_end_of_the_other_side_is_told():
    ours, theirs = _pair()
    theirs.end.close()
    with pytest.raises(wire.Closed):
        ours.receive()

"""Limits on the process that runs an answer: files, network, processes, memory, time.

On Linux the kernel's own means are used, which need no rights: Landlock for files, a seccomp filter for system calls,
and resource limits. `confine` returns what could not be put in force, for the teacher to know.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import platform
import resource
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2  # prctl
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the calls of Landlock, on all machines
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights on files each version of Landlock knows

#: System calls that an answer has no use for, by machine: processes, network, signals, rights of files, the kernel.
_REFUSED = {
    "x86_64": (0xC000003E, 56, 435, [
        57, 58, 59, 322, 41, 42, 49, 53, 62, 200, 234, 129, 297, 424, 438, 101, 310, 311, 425, 321, 165, 308, 272,
        141, 203, 302, 161, 169, 250, 248, 90, 91, 268, 452, 92, 93, 94, 260, 132, 235, 261, 280, 188, 189, 190, 197,
        198, 199,
    ]),
    "aarch64": (0xC00000B7, 220, 435, [
        221, 281, 198, 199, 200, 203, 129, 130, 131, 138, 240, 424, 438, 117, 270, 271, 425, 280, 40, 268, 97, 140,
        122, 261, 51, 142, 219, 217, 52, 53, 452, 54, 55, 88, 5, 6, 7, 14, 15, 16,
    ]),
}  # fmt: skip
_CLONE_THREAD = 0x10000


def confine(readable: Sequence[Path], *, memory: int, seconds: int) -> list[str]:
    """Confine this process and its threads for good; the names of what could not be put in force.

    readable: files and folders that may be read, with all that is in them; folders' names may be listed anywhere.
    memory: bytes beyond those that the process has now. seconds: of the processor.
    """
    limit_resources(memory, seconds)
    if not sys.platform.startswith("linux") or _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return ["files", "network and processes"]
    missing = [] if _restrict_files(readable) else ["files"]
    return missing if _refuse_calls() else [*missing, "network and processes"]


def limit_resources(memory: int, seconds: int) -> None:
    """Limit memory and processor time beyond what is in use, and the size of files."""
    try:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        now = 8 * 2**30
    used = math.ceil(time.process_time())
    wanted = {"RLIMIT_AS": now + memory, "RLIMIT_CPU": used + seconds, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, most in wanted.items():
        _, hard = resource.getrlimit(getattr(resource, name))
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(getattr(resource, name), (most, most))


def _restrict_files(readable: Sequence[Path]) -> bool:
    """No file can be written, and only ``readable`` be read (Landlock). False where the kernel has no Landlock."""
    version = _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    handled = (1 << _RIGHTS.get(version, max(_RIGHTS.values()))) - 1
    attributes = struct.pack("<Q", handled)
    rules = _LIBC.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    _allow(rules, Path("/"), _READ_DIR)
    for path in readable:
        _allow(rules, path, (_READ_FILE | _READ_DIR | _EXECUTE) if path.is_dir() else _READ_FILE)
    done = _LIBC.syscall(_RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return done


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    _LIBC.syscall(_ADD_RULE, rules, 1, struct.pack("<Qi", rights, place), 0)
    os.close(place)


def _refuse_calls() -> bool:
    """Refuse the system calls in `_REFUSED` (seccomp). False where this is not possible."""
    if platform.machine() not in _REFUSED:
        return False
    architecture, clone, clone3, refused = _REFUSED[platform.machine()]
    load, jump_equal, jump_set, answer = 0x20, 0x15, 0x45, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    lines = [
        (load, 0, 0, 4),  # the machine that the call is meant for
        (jump_equal, 1, 0, architecture),
        (answer, 0, 0, 0x80000000),  # another machine's calls: end the process
        (load, 0, 0, 0),  # the number of the call
        (jump_equal, 0, 1, clone3),
        (answer, 0, 0, 0x00050000 | errno.ENOSYS),  # the C library then uses clone
    ]
    for number in refused:
        lines += [(jump_equal, 0, 1, number), (answer, 0, 0, refuse)]
    lines += [
        (jump_equal, 0, 3, clone),
        (load, 0, 0, 16),  # its flags: threads are allowed, processes are not
        (jump_set, 1, 0, _CLONE_THREAD),
        (answer, 0, 0, refuse),
        (answer, 0, 0, allow),
    ]
    program = b"".join(struct.pack("<HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(program)
    pointer = struct.pack("@HP", len(lines), ctypes.addressof(buffer))
    return _LIBC.prctl(_SET_SECCOMP, _FILTER, pointer, 0, 0) == 0

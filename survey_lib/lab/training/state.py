"""The state of a training on disk: weights, moving average, moments of Adam, history, and what was being trained.

The file is one safetensors file, written atomically. Its description holds the recipe and identifies the data, the
head (with its noise schedule) and the loss, so that a training is only resumed as what it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from survey_lib.lab.runtime import write_atomically

_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # at which a noise schedule is identified by its lam
_AGAIN = "delete it to begin again"


def describe(model: nn.Module, x0: Tensor, labels: Tensor | None, loss: Callable | None) -> dict[str, Any]:
    """Identify data, head, noise schedule, chain and loss by values that survive a round trip through JSON."""
    found: dict[str, Any] = {"data": _digest(x0, *([] if labels is None else [labels]))}
    found["head"] = [type(model).__name__, getattr(model, "kind", None), getattr(model, "sigma_data", None)]
    if (schedule := getattr(model, "schedule", None)) is not None:
        lam = schedule.lam(torch.tensor(_TIMES, dtype=torch.float64))
        found["schedule"] = [round(value, 6) for value in lam.tolist()]
    if (chain := getattr(model, "corruption", None)) is not None:
        ends = torch.tensor([0.0, 0.5], dtype=torch.float64)
        found["chain"] = [round(value, 6) for value in chain.matrix(*ends)[0].tolist()]
    return found | {"loss": _identity(loss)}


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write ``tensors`` with the description ``about``: the old file or the new file, never half a file."""
    # Tied weights share memory, which safetensors refuses: each name gets a copy.
    copies = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    write_atomically(path, to_safetensors(copies, {"survey": json.dumps(about)}))


def read(path: Path, recipe: Mapping[str, Any], subject: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of the state in ``path``.

    Raises ValueError if the file is not a state, or belongs to another recipe or subject (see `describe`).
    """
    try:
        with safe_open(path, "pt") as file:  # on the CPU: load_state_dict moves what has to move
            about = json.loads(file.metadata()["survey"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
        began = {name: about[name] for name in ("recipe", "subject", "step", "history")}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a training to resume ({error}); {_AGAIN}") from error
    if changed := _changed(began["recipe"], recipe):
        raise ValueError(f"{path} was begun with another recipe ({', '.join(changed)}); {_AGAIN}")
    if changed := _changed(began["subject"], subject):
        raise ValueError(f"{path} was begun with other {' and '.join(changed)}; {_AGAIN}")
    return about, tensors


def parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Split names at the first dot: ``model.net.weight`` becomes ``["model"]["net.weight"]``."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        owner, _, name = key.partition(".")
        found.setdefault(owner, {})[name] = value
    return found


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in {**now, **before} if now.get(name) != before.get(name)]


def _digest(*tensors: Tensor) -> str:
    sha = hashlib.sha256()
    for values in tensors:
        values = values.detach().cpu().contiguous()
        sha.update(f"{values.dtype} {tuple(values.shape)}".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()[:16]


def _identity(loss: Callable | None) -> list[Any]:
    """Name of a loss, digest of its bytecode, and the plain values that it closes over."""
    function = getattr(loss, "func", loss)  # of a partial
    code = getattr(function, "__code__", None)
    if code is None:
        return ["denoising" if loss is None else type(function).__qualname__]
    given = dict(zip(code.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()), strict=True))
    given |= getattr(loss, "keywords", {})
    plain = {name: value for name, value in given.items() if isinstance(value, bool | int | float | str | None)}
    return [function.__qualname__, hashlib.sha256(code.co_code).hexdigest()[:8], plain]

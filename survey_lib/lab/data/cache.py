"""A cache of image sets on disk, for sets that take seconds to draw or decode.

A cached set is one safetensors file under ``data/cache/`` with the sha256 of its own content. It is written
atomically and checked when read: a truncated or altered file is not used, but made again.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from survey_lib.lab import runtime
from survey_lib.lab.data.images import ImageSet


def cached(key: str, recipe: object, make: Callable[[], ImageSet]) -> ImageSet:
    """Return ``make()``, cached on disk under a hash of ``recipe``.

    ``key`` begins the name of the file; ``recipe`` holds everything that the content depends on, by its repr.
    A damaged file and a folder that cannot be written are warned of, and the set is made again.
    """
    path = runtime.HOME / "data" / "cache" / f"{key}-{digest(recipe)[:16]}.safetensors"
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        warnings.warn(f"the cached {path.name} is damaged ({error}) and is made again", RuntimeWarning, stacklevel=4)
    images = make()
    try:
        runtime.write_atomically(path, _pack(images))
    except OSError as error:
        warnings.warn(
            f"{images.name} is not kept in {path.parent} ({error}): it serves from memory, and is made again next time",
            RuntimeWarning,
            stacklevel=4,
        )
    return images


def digest(recipe: object) -> str:
    """The sha256 of a value's repr."""
    return hashlib.sha256(repr(recipe).encode()).hexdigest()


def _pack(images: ImageSet) -> bytes:
    tensors = {"images": images.images, "labels": images.labels}
    tensors |= {f"extra.{name}": values for name, values in images.extra.items()}
    tensors = {name: values.contiguous() for name, values in tensors.items()}
    facts = {"name": images.name, "classes": images.classes}
    facts["sha256"] = _fingerprint(tensors, facts)
    return save(tensors, metadata={"facts": json.dumps(facts)})  # one entry: the order of several is not kept


def _read(path: Path) -> ImageSet:
    if not path.exists():  # safe_open's own complaint does not tell a missing file from others
        raise FileNotFoundError(path)
    with safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {}).get("facts", "{}"))
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    expected = facts.pop("sha256", "none")
    found = _fingerprint(tensors, facts)
    if found != expected:
        raise ValueError(f"its sha256 is {found[:12]}..., and {expected[:12]}... was written")
    extra = {name.removeprefix("extra."): values for name, values in tensors.items() if name.startswith("extra.")}
    return ImageSet(facts["name"], tensors["images"], tensors["labels"], tuple(facts["classes"]), extra)


def _fingerprint(tensors: dict[str, Tensor], facts: dict[str, object]) -> str:
    """The sha256 of names, types, shapes and bytes."""
    sha = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, values in sorted(tensors.items()):
        sha.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        sha.update(values.view(torch.uint8).numpy())
    return sha.hexdigest()

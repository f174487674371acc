"""Data sets small enough to make in a test."""

import struct

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture():
    """Write an image of one colour."""
    return _picture


@pytest.fixture
def write_mnist():
    """Write a random set in the layout of MNIST; returns its images and labels by split."""
    return _write_mnist


def _picture(path, colour=(10, 20, 30), size=(8, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def _write_idx(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


def _write_mnist(place, count=20, folder="MNIST"):
    rng = np.random.default_rng(0)
    made = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        made[split] = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        _write_idx(place / folder / "raw" / f"{prefix}-images-idx3-ubyte", made[split][0])
        _write_idx(place / folder / "raw" / f"{prefix}-labels-idx1-ubyte", made[split][1])
    return made

"""Image sets: what `load` gives, in which order, from where, and the conversion between bytes and [-1, 1]."""

import dataclasses
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from survey_lib.lab import runtime
from survey_lib.lab.data import folders, load, sets
from survey_lib.lab.data.images import ImageSet, check_scale, resize, to_float, to_uint8

few = settings(deadline=None, derandomize=True, max_examples=25)
SURVEY_DATA = os.environ.get("SURVEY_DATA")  # before `home` hides it
levels = torch.arange(256, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A home and a SURVEY_DATA of the test's own, both empty."""
    monkeypatch.setattr(runtime, "HOME", tmp_path / "home")
    monkeypatch.delenv("SURVEY_DATA", raising=False)
    return tmp_path / "home"


# bytes and [-1, 1]


def test_every_level_survives_the_round_trip():
    x = to_float(levels)
    assert x.dtype == torch.float32
    assert x[0] == -1 and x[-1] == 1
    assert torch.equal(to_uint8(x), levels)
    assert torch.equal(to_uint8(x.double()), levels)


def test_what_lies_outside_is_clamped():
    x = torch.tensor([-7.0, float("-inf"), 7.0, float("inf"), float("nan")])
    assert to_uint8(x).tolist() == [0, 0, 255, 255, 0]


def test_conversion_leaves_its_input_alone():
    x = torch.zeros(3)
    to_uint8(x)
    assert torch.equal(x, torch.zeros(3))


# image sets


def numbered(count):
    """Image i is filled with i; its label is i mod 3, its extra fact is i."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 4, 6)
    number = torch.arange(count)
    return ImageSet("numbered", images, number % 3, ("a", "b", "c"), {"number": number})


def test_shape_length_and_floats():
    made = numbered(5)
    assert len(made) == 5 and made.shape == (1, 4, 6)
    assert made.float().shape == (5, 1, 4, 6)
    assert torch.equal(made.float(torch.tensor([3, 1])), made.float()[[3, 1]])
    assert torch.equal(to_uint8(made.float(slice(2, 4))), made.images[2:4])
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"


@few
@given(st.integers(1, 40), st.integers(0, 2**30))
def test_a_subset_draws_different_images_with_their_labels(count, seed):
    made = numbered(40)
    part = made.subset(count, torch.Generator().manual_seed(seed))
    number = part.extra["number"]
    assert len(part) == count == len(number.unique())
    assert torch.equal(part.images[:, 0, 0, 0].long(), number)
    assert torch.equal(part.labels, number % 3)
    again = made.subset(count, torch.Generator().manual_seed(seed))
    assert torch.equal(again.extra["number"], number)


@few
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 1000))
def test_resizing_by_a_whole_factor_takes_the_mean_of_each_block(factor, size, seed):
    images = torch.randint(0, 256, (2, 3, factor * size, factor * size), generator=torch.Generator().manual_seed(seed))
    blocks = images.double().reshape(2, 3, size, factor, size, factor).mean((3, 5))
    assert (resize(images.to(torch.uint8), size) - blocks).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize("shape", [(9, 9), (9, 15), (20, 9)])
def test_resizing_crops_the_middle_and_keeps_plain_colours(shape):
    images = torch.zeros(1, 1, *shape, dtype=torch.uint8)
    top, left = (shape[0] - 9) // 2, (shape[1] - 9) // 2
    images[..., top : top + 9, left : left + 9] = 200
    for size in (4, 9, 16):
        assert torch.equal(resize(images, size), torch.full((1, 1, size, size), 200, dtype=torch.uint8))


# sets by name


def test_glyphs_for_training_and_testing_are_apart():
    train, test = load("glyphs", count=500), load("glyphs", split="test", count=500)
    assert train.shape == (3, 32, 32)
    assert not {x.numpy().tobytes() for x in train.images} & {x.numpy().tobytes() for x in test.images}


def test_glyphs_are_drawn_once_and_then_read(monkeypatch):
    monkeypatch.setattr(sets, "_NUMBERS", {"train": (60, 0), "test": (30, 1)})
    monkeypatch.setattr(sets, "_QUICK", 10)
    first = load("glyphs", size=16)
    never = (lambda *a, **k: pytest.fail("drawn again"), *sets._DRAWN["glyphs"][1:])
    monkeypatch.setitem(sets._DRAWN, "glyphs", never)
    second, part = load("glyphs", size=16), load("glyphs", size=16, count=25)
    assert len(first) == 60 and len(part) == 25
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    assert torch.equal(first.extra["face"], second.extra["face"]) and first.classes == second.classes
    assert torch.equal(part.images, first.images[:25])


def test_glyphs_never_end(monkeypatch):
    monkeypatch.setattr(sets, "_NUMBERS", {"train": (20, 0), "test": (20, 1)})
    assert len(load("glyphs", count=50, size=16)) == 50


def test_digits_are_those_of_scikit_learn():
    train, test = load("digits"), load("digits", split="test", size=8)
    assert train.shape == (1, 16, 16) and test.shape == (1, 8, 8)
    original = load_digits()
    assert train.labels.tolist() + test.labels.tolist() == original.target.tolist()
    recovered = test.images[:, 0].double() * 16 / 255
    assert np.abs(recovered.numpy() - original.images[len(train) :]).max() < 0.05
    assert len(load("digits", count=7)) == 7


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_sets_are_found_under_root_survey_data_or_home(monkeypatch, tmp_path, home, name, folder, write_mnist):
    made = write_mnist(tmp_path / "real", folder=folder)
    found = load(name, split="test", root=tmp_path / "real")
    assert np.array_equal(found.images[:, 0], made["test"][0]) and np.array_equal(found.labels, made["test"][1])
    monkeypatch.setenv("SURVEY_DATA", str(tmp_path / "real"))
    assert np.array_equal(load(name, count=5).images[:, 0], made["train"][0][:5])
    monkeypatch.setenv("SURVEY_DATA", str(tmp_path / "nothing"))
    home.mkdir()
    os.rename(tmp_path / "real", home / "data")
    assert load(name, size=14).shape == (1, 14, 14)


def test_a_download_is_seen_whole_or_not_at_all(monkeypatch, home, write_mnist):
    class Fake:
        def __init__(self, root, train, download=False):
            if download:
                write_mnist(Path(root))
                (Path(root) / "MNIST" / "raw" / "train.gz").write_bytes(b"")
                assert not (home / "data" / "MNIST").exists(), "nothing may bear its own name yet"
                if fail:
                    raise RuntimeError("Error downloading t10k-labels")
            else:
                self.data, self.targets = torch.zeros(3, 28, 28, dtype=torch.uint8), [1, 2, 3]

    monkeypatch.setattr(sets, "_torchvision", lambda name: Fake)
    fail = True
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        load("mnist")
    assert list((home / "data").iterdir()) == []
    fail = False
    assert load("mnist").labels.tolist() == [1, 2, 3]
    assert len(list((home / "data" / "MNIST" / "raw").iterdir())) == 4
    assert [entry.name for entry in (home / "data").iterdir()] == ["MNIST"]


@pytest.fixture
def real_mnist(monkeypatch):
    place = SURVEY_DATA
    if not place or not (Path(place) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("SURVEY_DATA names no folder that holds MNIST/raw")
    monkeypatch.setenv("SURVEY_DATA", place)


def test_real_mnist(real_mnist):
    train, test = load("mnist"), load("mnist", split="test")
    assert len(train) == 60_000 and len(test) == 10_000
    assert train.labels.bincount()[[1, 5]].tolist() == [6742, 5421], "LeCun's counts of ones and fives"
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]


# folders of images


def test_class_folders_split_for_us(tmp_path, picture):
    for split, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("ant", "bee")):
            for number in range(count):
                picture(tmp_path / split / name / f"{number}.png", (100 * label, number, 7), (5, 5))
    train, test = load(tmp_path), load(str(tmp_path), split="test")
    assert train.classes == test.classes == ("ant", "bee")
    assert len(train) == 12 and len(test) == 4 and train.shape == (3, 5, 5)
    assert torch.equal(train.images[:, 0, 0, 0].long(), 100 * train.labels)
    assert sorted(train.images[train.labels == 1][:, 1, 0, 0].tolist()) == list(range(6))
    assert train.labels.diff().abs().sum() > 1, "the classes are mixed, so that a prefix holds both"


def test_a_flat_folder_is_split_without_overlap(tmp_path, picture):
    for number in range(30):
        picture(tmp_path / f"{number}.png", number, (4, 4), "L")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    train, test = load(tmp_path), load(tmp_path, split="test")
    assert train.shape == (1, 4, 4), "grey stays grey"
    assert len(test) == 3
    assert sorted(train.images[:, 0, 0, 0].tolist() + test.images[:, 0, 0, 0].tolist()) == list(range(30))


def test_photographs_are_cropped_turned_and_shrunk(tmp_path):
    wide = Image.new("RGB", (400, 200), "red")
    wide.paste((0, 0, 255), (100, 0, 300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: the middle stays the middle
    wide.save(tmp_path / "a.png", exif=exif)
    wide.save(tmp_path / "b.png")
    for split in ("train", "test"):
        made = load(tmp_path, split=split)
        assert made.shape == (3, 64, 64)
        assert (made.images.amin((0, 2, 3)).tolist(), made.images.amax((0, 2, 3)).tolist()) == (
            [0, 0, 255],
            [0, 0, 255],
        )


def test_what_is_transparent_is_white(tmp_path, picture):
    for name in "ab":
        picture(tmp_path / f"{name}.png", (0, 0, 0, 0), mode="RGBA")
    assert (load(tmp_path).images == 255).all()


def test_a_large_folder_is_read_once_until_it_changes(monkeypatch, tmp_path, picture):
    monkeypatch.setattr(folders, "_WORTH_CACHING", 5)
    place = tmp_path / "pictures"
    for number in range(10):
        picture(place / f"{number}.png", number, (4, 4), "L")
    first = load(place)
    decode = folders._decode
    monkeypatch.setattr(folders, "_decode", lambda *a: pytest.fail("decoded again"))
    assert torch.equal(load(place).images, first.images)
    monkeypatch.setattr(folders, "_decode", decode)
    for number in range(10):
        picture(place / f"{number}.png", 100 + number, (4, 4), "L")
    assert torch.equal(load(place).images, first.images + 100)


def sizes(place, split, **options):
    """Channels, side and classes of a split."""
    made = load(place, split=split, **options)
    return made.shape, made.classes


def test_both_splits_have_one_list_of_classes(tmp_path, picture):
    """A class that one split lacks does not shift the numbers of the others: b is red, wherever it occurs."""
    for place, names in (("first", {"train": "abc", "test": "bc"}), ("second", {"train": "ab", "test": "bz"})):
        for split, classes in names.items():
            for name in classes:
                for number in range(3):
                    colour = (255, 0, 0) if name == "b" else (0, 0, number)
                    picture(tmp_path / place / split / name / f"{number}.png", colour)
        train, test = load(tmp_path / place), load(tmp_path / place, split="test")
        assert train.classes == test.classes == tuple(sorted({*names["train"], *names["test"]}))
        for made in (train, test):
            red = made.images[:, 0, 0, 0] == 255
            assert [made.classes[label] for label in made.labels[red]] == ["b"] * 3


def test_both_splits_have_one_size_and_one_number_of_channels(tmp_path, picture):
    """The median of the shorter sides of all images; colour as soon as one image has some, whatever the count."""
    for number in range(40):
        side = 24 if number % 2 else 48
        picture(tmp_path / "sizes" / f"{number:02}.png", number, (side, side), "L")
        picture(tmp_path / "colours" / f"{number:02}.png", number, (16, 20), "L")
    picture(tmp_path / "colours" / "40.png", (200, 10, 10), (16, 20))
    for name, shape in (("sizes", (1, 24, 24)), ("colours", (3, 16, 16))):
        for split in ("train", "test"):
            for count in (None, 1):
                assert sizes(tmp_path / name, split, count=count) == (shape, ("image",)), (name, split, count)


def test_one_tiny_image_first_does_not_make_all_tiny(tmp_path, picture):
    for number in range(12):
        picture(tmp_path / "many" / f"{number:02}.png", number, (24, 24), "L")
        picture(tmp_path / "tiny" / f"{number:02}.png", number, (1, 1), "L")
    picture(tmp_path / "many" / "-first.png", 3, (1, 1), "L")
    assert {sizes(tmp_path / "many", split)[0] for split in ("train", "test")} == {(1, 24, 24)}
    assert sizes(tmp_path / "tiny", "train")[0] == (1, 4, 4), "the smallest size that may be asked for"


def test_splits_with_and_without_class_folders_are_refused(tmp_path, picture):
    picture(tmp_path / "train" / "ant" / "1.png")
    picture(tmp_path / "test" / "1.png")
    with pytest.raises(ValueError, match="class folders in one of train/ and test/"):
        load(tmp_path)


@pytest.mark.parametrize(("name", "write"), [("png", "PNG"), ("ppm", "PPM"), ("tiff", "TIFF")])
def test_sixteen_bits_of_colour_are_refused_rather_than_reduced(tmp_path, name, write):
    for number in range(3):
        (tmp_path / f"{number}.{name}").write_bytes(SIXTEEN[write]())
    with pytest.raises(ValueError, match=f"\\.{name} has more than 8 bits a channel"):
        load(tmp_path)


def png() -> bytes:
    """A PNG of 4 x 4 pixels with 16 bits for each of red, green and blue."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x12\x34" * 12) * 4
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff() -> bytes:
    """The same as an uncompressed TIFF, little-endian."""
    pixels, bits = b"\x34\x12" * 48, struct.pack("<HHH", 16, 16, 16)
    offset = 8 + 2 + 9 * 12 + 4
    tags = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, offset), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, offset + 6), (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 1, len(pixels))]
    directory = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8) + directory + bits + pixels


SIXTEEN = {"PNG": png, "TIFF": tiff, "PPM": lambda: b"P6 4 4 65535\n" + b"\x12\x34" * 48}


# scales


def test_floats_on_another_scale_are_told_of(recwarn):
    """Real images have pixels darker than mid-grey; on [0, 1] none has, and on [0, 255] they exceed 2 as well."""
    right = to_float(load("digits").images)
    check_scale(right)
    check_scale(load("digits").images)
    check_scale(torch.zeros(3, 1, 4, 4))
    assert not recwarn.list
    with pytest.warns(RuntimeWarning, match=r"span 0 to 1, and -1 is black: .* 2 \* x - 1"):
        check_scale((right + 1) / 2)
    with pytest.raises(ValueError, match=r"bytes are uint8; these floats reach 255"):
        check_scale(load("digits").images.float())


def test_a_relative_or_tilde_place_is_found(monkeypatch, tmp_path, write_mnist):
    write_mnist(tmp_path / "sets")
    for place in (str(tmp_path / "sets"), "sets", "~/sets"):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("SURVEY_DATA", place)
        assert len(load("mnist")) == 20

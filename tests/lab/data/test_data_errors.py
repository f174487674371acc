"""Bad input and bad luck with data: one sentence each, or the work goes on and says at what cost."""

import errno
import urllib.request
import warnings
from urllib.error import URLError

import pytest
import torch
from PIL import Image

from survey_lib.lab import runtime
from survey_lib.lab.data import cache, load, sets
from survey_lib.lab.data.images import ImageSet, to_float, to_uint8


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty home, no SURVEY_DATA, no network, and glyph sets small enough to draw often."""

    def no_network(*arguments, **options):
        raise URLError("no network in tests")

    monkeypatch.setattr(runtime, "HOME", tmp_path / "home")
    monkeypatch.delenv("SURVEY_DATA", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr(sets, "_NUMBERS", {"train": (40, 0), "test": (40, 1)})
    monkeypatch.setattr(sets, "_QUICK", 10)
    return tmp_path / "home"


def complaint(error, **arguments):
    """The one sentence with which `load` refuses."""
    with pytest.raises(error) as caught:
        load(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# what the caller asks for


def test_an_unknown_name_is_answered_with_the_accepted_ones():
    message = complaint(ValueError, name="fashion_mnits")
    assert 'did you mean "fashion_mnist"?' in message
    assert all(name in message for name in ("glyphs", "digits", "mnist", "cifar10", "a folder of images"))
    complaint(ValueError, name="")
    complaint(TypeError, name=3)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"split": "validation"}, ValueError, "accepted: train, test"),
        ({"split": None}, TypeError, "split is None"),
        ({"count": 0}, ValueError, "count is 0"),
        ({"count": -3}, ValueError, "count is -3"),
        ({"count": 2.5}, TypeError, "count is 2.5"),
        ({"count": True}, TypeError, "count is True"),
        ({"count": 1438}, ValueError, "digits has 1437 images in its train split"),
        ({"size": 3}, ValueError, "size is 3; at least 4"),
        ({"size": 513}, ValueError, "size is 513; at most 512"),
        ({"size": "16"}, TypeError, 'size is "16"'),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    assert words in complaint(error, name="digits", **arguments)


def test_image_sets_refuse_parts_that_do_not_fit():
    images, labels = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(TypeError, match="images are uint8"):
        ImageSet("x", images.float(), labels, ("a",))
    with pytest.raises(TypeError, match="labels are int64"):
        ImageSet("x", images, labels.int(), ("a",))
    with pytest.raises(ValueError, match="3 images need as many labels"):
        ImageSet("x", images, labels[:2], ("a",))
    with pytest.raises(ValueError, match="3 images need as many face"):
        ImageSet("x", images, labels, ("a",), {"face": labels[:2]})
    with pytest.raises(ValueError, match="labels number the 1 classes from 0"):
        ImageSet("x", images, labels + 1, ("a",))
    with pytest.raises(ValueError, match="count is 4; at most 3"):
        ImageSet("x", images, labels, ("a",)).subset(4, torch.Generator())
    with pytest.raises(TypeError, match="uint8"):
        to_float(labels)
    with pytest.raises(TypeError, match="floats in"):
        to_uint8(labels)


# real sets


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_a_missing_network_says_where_it_looked_and_what_works_offline(monkeypatch, tmp_path, home, name):
    monkeypatch.setenv("SURVEY_DATA", str(tmp_path / "survey"))
    message = complaint(FileNotFoundError, name=name)
    for words in (
        name,
        str(tmp_path / "survey"),
        str(home / "data"),
        "SURVEY_DATA",
        '"glyphs"',
        '"digits"',
        "a folder",
    ):
        assert words in message
    assert list((home / "data").iterdir()) == [], "nothing half-made is left behind"


def test_a_root_that_cannot_be_written_is_no_crash(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "could not be downloaded" in complaint(FileNotFoundError, name="mnist", root=tmp_path / "file")


@pytest.mark.parametrize("keep", [0, 3, 17, 5000])
def test_a_truncated_real_set_is_named(tmp_path, keep, write_mnist):
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    message = complaint(RuntimeError, name="mnist", root=tmp_path)
    assert "incomplete or damaged" in message and str(tmp_path / "MNIST") in message


def test_a_real_set_that_lacks_a_file_is_named(tmp_path, write_mnist):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    assert "incomplete or damaged" in complaint(RuntimeError, name="mnist", root=tmp_path)


# the cache


def only_file(home):
    (file,) = (home / "data" / "cache").iterdir()
    return file


def spoil_by_cutting(content):
    return content[: len(content) // 2]


def spoil_by_flipping_a_bit(content):
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def spoil_the_class_names(content):
    return content.replace(b'\\"7\\"', b'\\"1\\"')


def spoil_wholly(content):
    return b"PK not safetensors"


@pytest.mark.parametrize(
    "spoil", [spoil_by_cutting, spoil_by_flipping_a_bit, spoil_the_class_names, spoil_wholly, lambda content: b""]
)
def test_a_damaged_cache_is_told_of_and_made_again(home, spoil):
    first = load("glyphs", size=16)
    content = only_file(home).read_bytes()
    assert spoil(content) != content
    only_file(home).write_bytes(spoil(content))
    with pytest.warns(RuntimeWarning, match=r"glyphs-train-16px.* is damaged .* made again"):
        second = load("glyphs", size=16)
    assert torch.equal(first.images, second.images) and first.classes == second.classes
    assert only_file(home).read_bytes() == content
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("glyphs", size=16)


def test_another_recipe_is_another_file(monkeypatch, home):
    load("glyphs", size=16)
    monkeypatch.setattr(sets, "provenance", lambda source: ("changed", source))
    load("glyphs", size=16)
    assert len(list((home / "data" / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_a_warning(home):
    (home / "data").mkdir(parents=True)
    (home / "data" / "cache").write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="serves from memory"):
        assert len(load("glyphs", size=16)) == 40


def test_a_full_disk_costs_a_warning_and_leaves_nothing(home):
    """A limit on the size of a file stops the write half-way, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.warns(RuntimeWarning, match="serves from memory"):
            made = load("glyphs", size=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(made) == 40
    assert list((home / "data" / "cache").iterdir()) == []


def test_no_space_left_is_said(monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(cache.runtime, "write_atomically", full)
    with pytest.warns(RuntimeWarning, match="no space left"):
        assert len(load("glyphs", size=16)) == 40


# folders of images


def test_a_folder_that_is_none_is_named(tmp_path, picture):
    assert "does not exist" in complaint(FileNotFoundError, name=tmp_path / "nowhere")
    picture(tmp_path / "one.png")
    assert "is a file" in complaint(FileNotFoundError, name=str(tmp_path / "one.png"))


def test_an_empty_folder_is_named_with_what_is_read(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty class").mkdir()
    message = complaint(FileNotFoundError, name=tmp_path)
    assert str(tmp_path) in message and ".png" in message


@pytest.mark.parametrize("content", [b"", b"these are no pixels", b"\x89PNG\r\n\x1a\n and then nothing"])
def test_a_file_that_is_no_image_is_named(tmp_path, content, picture):
    for number in range(3):
        picture(tmp_path / "a" / f"{number}.png")
        picture(tmp_path / "b" / f"{number}.png")
    for folder in "ab":  # so that either split meets one
        for number in range(3, 20):
            (tmp_path / folder / f"bad{number}.jpg").write_bytes(content)
    message = complaint(ValueError, name=tmp_path, size=8)
    assert "bad" in message and "cannot read " in message and "as an image" in message


def test_a_truncated_image_is_named(tmp_path):
    for name in "ab":
        Image.effect_noise((64, 64), 50).save(tmp_path / f"{name}.jpg")
        whole = (tmp_path / f"{name}.jpg").read_bytes()
        (tmp_path / f"{name}.jpg").write_bytes(whole[: len(whole) // 2])
    assert ".jpg as an image (" in complaint(ValueError, name=tmp_path)


def test_sixteen_bits_are_refused_rather_than_clipped(tmp_path, picture):
    for name in "ab":
        picture(tmp_path / f"{name}.png", 40_000, mode="I;16")
    assert "more than 8 bits" in complaint(ValueError, name=tmp_path)


def test_a_folder_that_says_two_things_is_refused(tmp_path, picture):
    picture(tmp_path / "loose.png")
    picture(tmp_path / "cats" / "one.png")
    message = complaint(ValueError, name=tmp_path)
    assert "loose.png" in message and "cats/" in message


def test_a_split_without_folder_and_a_split_of_one_image(tmp_path, picture):
    picture(tmp_path / "a" / "train" / "cats" / "one.png")
    assert "the folder test/ of" in complaint(FileNotFoundError, name=tmp_path / "a", split="test")
    picture(tmp_path / "b" / "one.png")
    assert "two at least" in complaint(ValueError, name=tmp_path / "b")


def test_more_images_than_a_folder_holds(tmp_path, picture):
    picture(tmp_path / "train" / "cats" / "one.png")
    assert "has 1 images for the train split; count asks for 5" in complaint(ValueError, name=tmp_path, count=5)

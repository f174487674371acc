"""Captions say what a scene shows, and text, numbers and integers are the same caption."""

import pytest
import torch

from survey_lib.lab.data.captions import LENGTH, RELATIONS, VOCABULARY, captions, decode, describe, encode, parse
from survey_lib.lab.data.scenes import scenes


@pytest.fixture(scope="module")
def some():
    return scenes(400)


def test_text_numbers_and_integers_agree(some):
    texts = captions(some)
    tokens = encode(texts)
    assert tokens.shape == (400, LENGTH) and tokens.dtype == torch.int64
    assert decode(tokens) == texts
    assert [parse(text) for text in texts] == describe(some)
    assert int(tokens.max()) == len(VOCABULARY) - 1


def test_a_caption_describes_the_objects_in_their_order(some):
    for row, described in enumerate(describe(some)):
        n = int(some.labels[row]) + 1
        expected = zip(*(some.extra[name][row, :n].tolist() for name in ("large", "colour", "character")), strict=True)
        assert list(described.objects) == [tuple(one) for one in expected]
        assert len(described.relations) == n - 1


def test_relations_hold_along_the_longer_axis(some):
    for row, described in enumerate(describe(some)):
        centres = some.extra["box"][row, :, :2]
        for slot, relation in enumerate(described.relations):
            dx, dy = (centres[slot + 1] - centres[slot]).tolist()
            axis, sign = (dx, dy)[relation // 2], (1, -1)[relation % 2]
            assert abs(axis) >= max(abs(dx), abs(dy)) and axis * sign > 0
    used = {relation for described in describe(some) for relation in described.relations}
    assert used == set(range(len(RELATIONS)))


def test_upper_case_and_spaces_do_not_matter():
    assert parse("  A large  BLUE 7 left of a small red 3 ") == parse("a large blue 7 left of a small red 3")


def test_nothing_is_no_condition():
    assert not encode([""]).any()
    assert parse("").objects == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a large pink 7", 'unknown word "pink"'),
        ("a large blue 7 above", "is not a caption"),
        ("7", "is not a caption"),
        ("a blue large 7", "is not a caption"),
        ("a large blue 7 a small red 3", "is not a caption"),
        (" above ".join(["a small red 3"] * 5), "one to 4 objects"),
    ],
)
def test_refuses_other_text(text, said):
    with pytest.raises(ValueError, match=said):
        encode([text])


def test_refuses_what_is_not_text():
    with pytest.raises(TypeError, match="a caption is text"):
        parse(7)

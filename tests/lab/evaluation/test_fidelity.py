"""The judge of guided samples and the count of what they cost, on images whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from survey_lib.core import grids
from survey_lib.core.schedules import edm
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation import fidelity
from survey_lib.lab.evaluation.fidelity import Judge, draw
from survey_lib.lab.training import checkpoints


class Corners(nn.Module):
    """Sees the first three pixels, and names the brightest of them."""

    def features(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, :3]

    def classify(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.features(x).argmax(1),)


@pytest.fixture
def judge(monkeypatch) -> Judge:
    """Sixty random images; their labels are those that `Corners` names, but for every tenth of the last thirty."""
    images = torch.randint(256, (60, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = images[:, 0, 0, :3].argmax(1)
    labels[30::10] = (labels[30::10] + 1) % 3
    made = ImageSet("toy", images, labels, ("a", "b", "c"))
    monkeypatch.setattr(fidelity, "load", lambda name, split, count: made)
    monkeypatch.setattr(checkpoints, "load", lambda name, root: Corners())
    return Judge.of("toy", 30)


def test_the_images_themselves_are_perfect_and_others_are_not(judge):
    images = (judge.real.float() + 1) * 127.5
    same = torch.zeros(30, 1, 4, 4)
    same[:, 0, 0, :3] = images / 127.5 - 1
    found = judge.score(same, same[:, 0, 0, :3].argmax(1))
    assert found["accuracy"] == found["precision"] == found["recall"] == found["coverage"] == 1
    assert found["samples"] == 30 and found["fd"] == pytest.approx(0, abs=1e-6)
    one = same[:1].expand(30, -1, -1, -1)  # a single image over and over: precise, and it covers next to nothing
    narrow = judge.score(one, torch.zeros(30, dtype=torch.long))
    assert narrow["precision"] == 1 and narrow["recall"] < 0.2 and narrow["coverage"] < 0.5 and narrow["fd"] > 0.5
    assert narrow["accuracy"] in (0, 1)


def test_floats_beyond_the_range_are_clamped_and_the_floor_knows_its_mistakes(judge):
    wild = torch.full((30, 1, 4, 4), -7.0)
    wild[:, 0, 0, 2] = 9
    assert judge.score(wild, torch.full((30,), 2))["accuracy"] == 1
    floor = judge.floor()
    assert floor["accuracy"] == 0.9 and 0 < floor["fd"] < judge.score(wild, torch.full((30,), 2))["fd"]


def test_a_judge_needs_as_many_images_as_it_has(judge):
    with pytest.raises(ValueError, match="count is 30 at most; got 31"):
        Judge.of("toy", 31)
    with pytest.raises(ValueError, match="equal N: got 30 real and 29 fake"):
        judge.score(torch.zeros(29, 1, 4, 4), torch.zeros(29))


def test_what_is_drawn_is_what_the_walk_gives_and_is_counted_by_example():
    schedule, noise = edm(), torch.randn(7, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    times, wanted = grids.uniform(5), torch.arange(7)

    def net(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x_t) if cond is None else 0.1 * cond.reshape(-1, 1, 1, 1).expand_as(x_t)

    def twice(count):
        first, second = count(net), count(net)
        return lambda x, t, cond=None: first(x, t, cond) + 2 * second(x, t)

    drawn = draw(twice, schedule, noise, times, wanted, batch=3)
    assert (drawn.evaluations, drawn.calls) == (10, 3 * 2 * 5) and drawn.core_seconds > 0
    assert drawn.cost == {"evaluations": 10, "core_seconds": drawn.core_seconds}
    torch.testing.assert_close(drawn.images, net(noise, times[0], wanted))  # the last step goes to the answer itself
    free = draw(lambda count: count(net), schedule, noise, times, None, batch=3)
    assert (free.evaluations, free.calls) == (5, 3 * 5) and not free.images.any()

"""Figures of crowds: a panel a set, words from the data, arrows that point where the score does."""

from __future__ import annotations

import pytest
import torch

from survey_lib.core.exact import GaussianMixture
from survey_lib.lab import plots

LAW = GaussianMixture(torch.zeros(1, 2), scales=0.4)


def test_a_panel_for_each_set_named_in_the_words():
    sets = {"one": torch.zeros(5, 2) + 0.5, "another": torch.randn(7, 2, generator=torch.Generator().manual_seed(0))}
    figure = plots.scatters(sets, density=LAW.log_prob, limits=1.5)
    assert [ax.get_title() or ax.get_title("left") for ax in figure.figure.axes] == ["one", "another"]
    assert "one: 5 points" in figure.alt and "another: 7 points" in figure.alt
    assert all(ax.get_xlim() == (-1.5, 1.5) for ax in figure.figure.axes)


@pytest.mark.parametrize(("sign", "inward"), [(1, 100), (-1, 0)])
def test_arrows_of_one_hill_point_to_its_top(sign, inward):
    figure = plots.field2d(LAW.log_prob, lambda x: sign * LAW.score(x), scale=0.2)
    assert f"{inward} % of the arrows of its score point inwards" in figure.alt


def test_paths_run_from_noise_to_data_and_are_as_long_as_they_are():
    times = torch.tensor([1.0, 0.25, 0.0])
    states = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])[..., None]
    figure = plots.paths({"there and back": states}, times, density=lambda x, t: torch.exp(-(x**2)), count=2)
    (ax,) = figure.figure.axes
    assert ax.get_xlim() == (1.0, 0.0) and len(ax.lines) == 2
    assert list(ax.lines[0].get_xdata()) == [1.0, 0.5, 0.0]
    assert "2 paths from noise to data, 1 long on average" in figure.alt

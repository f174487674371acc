"""Figures: exact pixels, named axes, alt text that quotes the data, labels that keep apart, no state left behind."""

from __future__ import annotations

import io
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.schedules import edm, vp_cosine
from survey_lib.core.toys import eight_modes
from survey_lib.lab import plots
from survey_lib.lab.plots.images import GUTTER
from survey_lib.lab.plots.labels import ink, spread
from survey_lib.lab.plots.style import SHARPNESS
from tests.support import generator

COUNTS = np.array([5, 10, 20, 50])
CURVES = {"DDIM": (COUNTS, 2 / COUNTS), "2M": (COUNTS, 6 / COUNTS**2.0), "twin": (COUNTS, 6.1 / COUNTS**2.0)}


@pytest.fixture(autouse=True)
def _restored_style():
    with matplotlib.rc_context():
        yield
    plots.use()
    matplotlib.rcdefaults()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator())


@pytest.fixture(scope="module")
def drawn() -> dict[str, plots.Figure]:
    """One of every chart that draws on axes."""
    lam = noise(2000) * 2
    return {
        "error": plots.error_against_evaluations(CURVES, error="RMS error"),
        "pareto": plots.pareto({"a": (10, 3.0, 2.5, 3.5), "b": (20, 2.0)}, cost="evaluations", quality="distance"),
        "loss": plots.loss_by_lam(lam, lam.exp(), theory=torch.exp, label="squared error"),
        "learning": plots.curves({"loss": (COUNTS, 1 / COUNTS)}, y="loss a pixel"),
        "banded": plots.curves({"a": (COUNTS, 1 / COUNTS, 0.9 / COUNTS, 1.1 / COUNTS)}, x="scale", y="distance"),
        "bars": plots.bars_with_interval({"a": (3.25, 3.0, 3.5), "b": 2.0}, quantity="distance"),
        "rows": plots.rows_of_points({"even": [0, 1, 2, 3], "late": [0, 2.4, 2.8, 3]}, x="lam", band=(2, 3, "detail")),
        "histogram": plots.histogram(noise(500), theory=lambda x: (-x * x / 2).exp() / 2.5, quantity="$x_0$"),
        "scatter": plots.scatter2d({"exact": noise(50, 2)}, density=eight_modes().log_prob, limits=2),
        "density": plots.density2d(eight_modes().log_prob),
        "trajectories": plots.trajectories(noise(6, 9, 2)),
    }


def opened(figure: plots.Figure) -> np.ndarray:
    """What a reader's PNG holds, (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 3])
def test_a_sheet_holds_every_pixel_as_a_square_of_equal_ones(channels, scale):
    images = torch.randint(0, 256, (6, channels, 5, 7), generator=generator(), dtype=torch.uint8)
    picture = opened(plots.sheet(images, columns=3, scale=scale))
    side = scale * SHARPNESS
    assert picture.shape[:2] == ((2 * 5 * scale + GUTTER) * SHARPNESS, (3 * 7 * scale + 2 * GUTTER) * SHARPNESS)
    for index, image in enumerate(images):
        top = index // 3 * (5 * side + GUTTER * SHARPNESS)
        left = index % 3 * (7 * side + GUTTER * SHARPNESS)
        block = picture[top : top + 5 * side, left : left + 7 * side].reshape(5, side, 7, side, 3)
        assert (block == block[:, :1, :, :1]).all()
        assert (block[:, 0, :, 0] == image.permute(1, 2, 0).numpy()).all()


def test_labels_leave_the_pixels_of_a_sheet_alone():
    images = torch.randint(0, 200, (4, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    bare = opened(plots.sheet(images, columns=2, scale=4))
    labelled = opened(plots.sheet(images, columns=2, scale=4, titles=["real", "drawn"], rows=["first", "second"]))
    height, width = bare.shape[:2]
    assert labelled.shape[0] > height and labelled.shape[1] > width
    assert (labelled[-height:, -width:] == bare).all()
    assert (labelled[:-height] < 128).any() and (labelled[:, :-width] < 128).any(), "no label was drawn"


def test_floats_span_black_to_white():
    picture = opened(plots.sheet(torch.stack([-torch.ones(1, 4, 4), torch.ones(1, 4, 4) * 9]), scale=1))
    assert picture[0, 0].tolist() == [0, 0, 0] and picture[0, -1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"images": torch.zeros(3, 2, 4, 4)}, "1 or 3 channels"),
        ({"images": torch.zeros(0, 3, 4, 4)}, "N at least 1"),
        ({"images": [1]}, "got list"),
        ({"images": torch.zeros(4, 1, 4, 4), "columns": 2, "titles": ["a"]}, "one a column"),
        ({"images": torch.zeros(4, 1, 4, 4), "columns": 2, "rows": ["a"]}, "2 rows"),
        ({"images": torch.zeros(4, 1, 4, 4), "scale": 1.3}, "whole number"),
    ],
)
def test_a_sheet_says_what_it_cannot_show(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        plots.sheet(**arguments)


def test_every_count_of_images_finds_its_columns():
    for count in range(1, 130):
        columns = plots.images._columns(count)
        assert 1 <= columns <= count
        assert -(-count // columns) <= columns + 1, "no sheet is higher than wide"


def test_steps_show_input_above_answer_and_tell_their_distance():
    inputs, answers = noise(5, 2, 3, 8, 8), torch.zeros(5, 2, 3, 8, 8)
    inputs[-1] = 0.25
    figure = plots.steps_sheet([1, 0.8, 0.5, 0.2, 0.02], inputs, answers, schedule=vp_cosine())
    texts = [text.get_text() for text in figure.figure.texts]
    assert "t = 0.5\nλ = 0.0" in texts and texts.count("$x_t$") == 2
    assert "from t = 1 to 0.02" in figure.alt and "to 0.25" in figure.alt
    with pytest.raises(ValueError, match="one shape"):
        plots.steps_sheet([1, 0.5], inputs, answers)


def test_the_forward_strip_lets_one_noise_grow():
    x0 = noise(1, 1, 8, 8).clamp(-1, 1)
    figure = plots.forward_strip(Gaussian(edm()), x0, [0, 0.001, 0.01, 1.0], generator(), scale=1)
    first, _, third, last = np.split(opened(figure)[-8 * SHARPNESS :, :, 0][:, _cells(4, 8)].astype(float), 4, axis=1)
    assert (first[::2, ::2] == ((x0[0, 0] + 1) * 127.5).round().numpy()).all(), "t = 0 is the image itself"
    assert np.corrcoef(third.ravel(), last.ravel())[0, 1] > 0.5, "the noise of one time is that of another"
    assert "from t = 0 to 1" in figure.alt


def _cells(count: int, side: int) -> np.ndarray:
    """The columns of pixels that belong to images, not to gutters."""
    step = (side + GUTTER) * SHARPNESS
    return np.concatenate([np.arange(k * step, k * step + side * SHARPNESS) for k in range(count)])


def test_a_recorder_picks_the_first_and_the_last_step():
    recorder = plots.Recorder(keep=2)
    with pytest.raises(RuntimeError, match="callback"):
        recorder.pick()
    for step in range(20):
        recorder(torch.full((5, 1, 4, 4), float(step)), torch.tensor(1 - step / 20), torch.zeros(5, 1, 4, 4))
    times, inputs, predictions = recorder.pick(5)
    assert inputs.shape == predictions.shape == (5, 2, 1, 4, 4)
    assert times[0] == 1 and inputs[0].max() == 0 and inputs[-1].min() == 19


def test_axes_are_named_and_alt_text_quotes_the_data(drawn):
    for name, figure in drawn.items():
        (ax,) = figure.figure.axes
        assert ax.get_xlabel() and (ax.get_ylabel() or name in ("bars", "rows")), name
        assert "$" not in figure.alt and "\\" not in figure.alt and figure.alt.endswith("."), figure.alt
    assert "DDIM goes from 0.4 at 5 to 0.04 at 50" in drawn["error"].alt
    assert "a 3.25 (3 to 3.5), b 2" in drawn["bars"].alt
    assert "late 0 to 3, half of them below 2.6" in drawn["rows"].alt
    assert "n = 500" in drawn["histogram"].alt
    assert "9 paths of 5 steps" in drawn["trajectories"].alt


def test_no_two_labels_overlap(drawn):
    for figure in drawn.values():
        figure.figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.figure.axes[0].texts if text.get_text()]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])


def test_a_leader_ends_before_its_label():
    crowd = {f"curve {k}": (COUNTS, (1 + k / 100) / COUNTS) for k in range(7)}
    figure = plots.error_against_evaluations(crowd, slopes=()).figure
    figure.canvas.draw()
    led = [text for text in figure.axes[0].texts if text.arrow_patch is not None and text.arrow_patch.get_visible()]
    assert len(led) >= 4
    for text in led:
        words = Text.get_window_extent(text)  # without the arrow
        assert text.arrow_patch.get_window_extent().x1 <= words.x0 + 1


def test_an_axis_falls_where_every_curve_does():
    times = np.linspace(1, 0, 5)
    falling = plots.curves({"a": (times, times), "b": (times[[0, -1]], [1, 1])}, x="t").figure.axes[0]
    assert falling.xaxis_inverted() and not plots.curves({"a": (times[::-1], times)}).figure.axes[0].xaxis_inverted()
    mixed = plots.curves({"a": (times, times), "b": (times[::-1], times)}).figure.axes[0]
    assert not mixed.xaxis_inverted()


def test_nothing_is_cut_off(drawn):
    for figure in drawn.values():
        rim = np.concatenate([side.ravel() for side in (figure.pixels()[[0, -1]], figure.pixels()[:, [0, -1]])])
        assert (rim == 255).all()


def test_the_front_holds_those_that_nothing_beats():
    points = {"fast": (5, 9.0), "good": (50, 2.0), "beaten": (60, 2.5), "middle": (20, 4.0), "worse": (20, 6.0)}
    figure = plots.pareto(points, cost="evaluations", quality="distance")
    front = figure.figure.axes[0].lines[0]
    assert list(front.get_xdata()) == [5, 20, 50]
    assert "on the front 3, from fast (5, 9) to good (50, 2)" in figure.alt
    upside = plots.pareto(
        {name: (c, -q) for name, (c, q) in points.items()}, cost="c", quality="q", better="higher"
    ).figure.axes[0]
    assert list(upside.lines[0].get_xdata()) == [5, 20, 50]
    with pytest.raises(ValueError, match="lower"):
        plots.pareto(points, cost="c", quality="q", better="best")
    assert figure.figure.axes[0].get_yscale() == "linear"
    wide = plots.pareto(points | {"bad": (5, 1e4)}, cost="evaluations", quality="distance")
    assert wide.figure.axes[0].get_yscale() == "log"


def test_loss_is_averaged_in_bins_of_lam():
    lam = torch.linspace(-4, 4, 4001)
    figure = plots.loss_by_lam(lam, lam.square(), bins=16)
    curve = figure.figure.axes[0].lines[0]
    x, y = curve.get_xdata(), curve.get_ydata()
    assert len(x) == 16 and np.allclose(x[0], -3.75, atol=0.01)
    assert np.allclose(y - x**2, 0.5**2 / 12, atol=1e-3), "the mean of a square is the square and the bin's variance"
    with pytest.raises(ValueError, match="finite lam"):
        plots.loss_by_lam([0.0, float("inf")], [1.0, 1.0])


def test_contours_hold_the_mass_they_claim():
    law = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    _, ax = plots.panels()
    plots.density2d(lambda x: law.log_prob(x.float()), limits=5, ax=ax)
    radii = [float(np.abs(path.vertices).max()) for path in ax.collections[0].get_paths()]
    assert radii == pytest.approx([(-2 * np.log(1 - p)) ** 0.5 for p in (0.99, 0.95, 0.8, 0.5)], rel=0.02)


def test_panels_join_the_sentences_of_their_parts():
    figure, (left, right) = plots.panels(2, width=8)
    plots.bars_with_interval({"a": 1.5}, quantity="cost", ax=left)
    plots.bars_with_interval({"b": 2.5}, quantity="time", ax=right)
    assert plots.describe(figure).alt == "Cost: a 1.5. Time: b 2.5."
    assert plots.describe(plots.describe(figure), "Mine.").alt == "Mine."


def test_a_notebook_gets_png_with_alt_text(drawn):
    data, metadata = drawn["error"]._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == data["text/plain"] == drawn["error"].alt
    assert metadata["image/png"]["width"] * SHARPNESS == opened(drawn["error"]).shape[1]
    assert all(len(figure.png) < 60_000 for figure in drawn.values()), "a lesson of 20 figures stays under 1.5 MB"


def test_charts_do_not_touch_pyplot_or_the_caller_s_style(tmp_path):
    before = dict(matplotlib.rcParams)
    plots.error_against_evaluations(CURVES).save(tmp_path / "error.png")
    assert (tmp_path / "error.png").read_bytes().startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_a_smoke_run_says_so_on_figures_made_under_it():
    images = torch.zeros(2, 1, 40, 40)
    plots.use(SimpleNamespace(note="smoke run: too small to conclude from"))
    marked = plots.sheet(images, scale=4)
    plots.use()
    plain = plots.sheet(images, scale=4)
    assert marked.description.endswith("(Smoke run: too small to conclude from.)") and plain.description == plain.alt
    below = opened(marked)[opened(plain).shape[0] :]
    assert len(below) and (below < 200).any(), "a strip with the note stands below the picture"
    assert (opened(marked)[: -len(below)] == opened(plain)).all()


def test_a_table_aligns_rounds_and_names_units():
    rows = [
        {"sampler": "DDIM", "evaluations": 1000, "time": 0.123456, "FD": (4.123, 3.9, 4.4)},
        {"sampler": "<2M>", "evaluations": 20, "time": float("nan"), "FD": (3.5, 3.0, 4.0)},
    ]
    table = plots.table(rows, units={"time": "s"}, caption="Cost")
    assert table.header == ("sampler", "evaluations", "time", "FD") and table.caption == "Cost (time: s)"
    assert plots.table(rows, units={"FD": "least to most", "time": "s"}).caption == "FD: least to most; time: s"
    assert table.html.count('<th scope="col"') == 4 and "<caption>Cost (time: s)</caption>" in table.html
    assert "color" not in table.html, "light or dark is the page's choice"
    assert table.rows[0] == ("DDIM", "1,000", "0.123", "4.12 (3.9 to 4.4)")
    assert table.numeric == (False, True, True, True)
    assert "&lt;2M&gt;" in table.html and '<td align="right" style="text-align:right">1,000</td>' in table.html
    assert plots.table(pandas.DataFrame(rows), units={"time": "s"}, caption="Cost") == table
    assert len({len(line) for line in str(table).splitlines()[1:]}) == 1
    with pytest.raises(ValueError, match="lacks"):
        plots.table(rows, units={"speed": "m/s"})


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12), st.floats(0.1, 20))
def test_spread_keeps_distance_order_and_balance(wanted, gap):
    placed = spread(wanted, gap)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(placed[order]) >= gap * (1 - 1e-9)).all()
    assert placed.mean() == pytest.approx(np.mean(wanted), abs=1e-6), "nudging moves no weight"
    bounded = spread(wanted, gap, low=-100, high=-100 + gap * len(wanted))
    assert bounded.min() >= -100 - 1e-6 and bounded.max() <= -100 + gap * len(wanted) + 1e-6


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.floats(-1e9, 1e9).filter(lambda v: v == 0 or abs(v) > 1e-9))
def test_a_number_as_prose_writes_it_is_the_number(value):
    text = plots.number(value).replace(",", "")
    assert float(text) == pytest.approx(value, rel=0.0051)


def test_text_in_any_colour_of_the_palette_can_be_read():
    def luminance(colour):
        linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04 else c / 12.92 for c in matplotlib.colors.to_rgb(colour)]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    for colour in plots.PALETTE.values():
        assert 1.05 / (luminance(ink(colour)) + 0.05) >= 4.45


def test_roles_give_their_colour_and_the_rest_differ():
    chosen = plots.style.colours(["ours", "theirs", "third"], {"ours": "model"})
    assert chosen["ours"] == plots.PALETTE["model"] and len(set(chosen.values())) == 3

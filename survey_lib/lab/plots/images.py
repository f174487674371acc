"""Contact sheets of images at whole-number scale: every source pixel becomes a square of equal pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import Tensor

from survey_lib.core.protocols import Corruption
from survey_lib.core.schedules import Schedule
from survey_lib.lab.data.images import to_uint8
from survey_lib.lab.plots.labels import number
from survey_lib.lab.plots.style import PIXELS_PER_INCH, SHARPNESS, Figure, describe, styled

GUTTER = 3  # page pixels between images
GROUP_GAP = 12  # page pixels between groups of rows
PAGE = 720, 640  # largest sheet in page pixels, if its images are small enough
LARGEST = 104  # largest side of an image in page pixels, unless a scale is given


@styled
def sheet(
    images: Tensor,
    *,
    columns: int | None = None,
    scale: float | None = None,
    titles: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    group: int | None = None,
) -> Figure:
    """Contact sheet of images (N, C, H, W), uint8 or float in [-1, 1], with 1 or 3 channels, row by row.

    ``titles`` has a title for each column or for each image, ``rows`` a name for each row; a wider gap follows every
    ``group`` rows. ``scale`` is the side of a source pixel in page pixels: a whole number, or 1 / `SHARPNESS` for
    images made for dense screens, such as `Figure.pixels`.
    """
    images = as_bytes(images)
    count = len(images)
    columns = columns or (-(-count // len(rows)) if rows else _columns(count))
    height = -(-count // columns)
    if titles is not None and len(titles) not in (columns, count):
        raise ValueError(f"titles are one a column ({columns}) or one an image ({count}); got {len(titles)}")
    if rows is not None and len(rows) != height:
        raise ValueError(f"{count} images in {columns} columns make {height} rows; got {len(rows)} row names")
    scale = scale or _scale(images, height, columns)
    if scale * SHARPNESS != int(scale * SHARPNESS):
        raise ValueError(f"scale is a whole number of page pixels, or 1 / {SHARPNESS}; got {scale}")
    each = titles is not None and len(titles) > columns
    grid, tops = mosaic(images, columns, scale, group=group, above=19 if each else 0)
    figure = _frame(grid, tops, columns, int(images.shape[-1] * scale), int(images.shape[-2] * scale), titles, rows)
    brightness = images.float() / 255
    alt = (
        f"Contact sheet of {count} images of {images.shape[-1]} by {images.shape[-2]} pixels in {height} rows of "
        f"{columns}: mean brightness {number(brightness.mean(), 2)} of 1, between images it varies by "
        f"{number(brightness.mean((1, 2, 3)).std(correction=0), 2)}."
    )
    return describe(Figure(figure, alt, lossless=True))


def steps_sheet(
    times: Sequence[float] | Tensor,
    inputs: Tensor,
    predictions: Tensor,
    *,
    schedule: Schedule | None = None,
    names: tuple[str, str] = (r"$x_t$", r"$\hat{x}_0$"),
    scale: int | None = None,
) -> Figure:
    """Inputs and predictions of a denoiser: a column for each time, two rows for each example.

    ``inputs`` and ``predictions`` are (T, N, C, H, W), or (T, C, H, W) for one example, as from `Recorder.pick`. With a
    ``schedule``, titles include lam and inputs are shown at unit scale (`unit`).
    """
    if inputs.ndim == 4:
        inputs, predictions = inputs[:, None], predictions[:, None]
    if inputs.shape != predictions.shape or len(times) != len(inputs):
        raise ValueError(
            f"{len(times)} times need as many inputs and predictions of one shape; "
            f"got {tuple(inputs.shape)} and {tuple(predictions.shape)}"
        )
    gaps = [number((a - b).square().mean().sqrt(), 2) for a, b in zip(inputs, predictions, strict=True)]
    shown = torch.stack([unit(x, t, schedule) for x, t in zip(inputs, times, strict=True)])
    pairs = torch.stack([shown, predictions.to(shown)], 2).permute(1, 2, 0, 3, 4, 5)  # (N, 2, T, C, H, W)
    examples = len(pairs)
    drawn = sheet(
        pairs.flatten(0, 2), columns=len(times), scale=scale, titles=time_titles(times, schedule),
        rows=list(names) * examples, group=2,
    )  # fmt: skip
    alt = (
        f"What the denoiser sees and what it answers for {examples} example{'s' * (examples > 1)} at {len(times)} "
        f"times from t = {number(times[0], 2)} to {number(times[-1], 2)}: the root mean square distance between "
        f"the two goes from {gaps[0]} to {gaps[-1]}."
    )
    return describe(drawn, alt)


def forward_strip(
    corruption: Corruption,
    x0: Tensor,
    times: Sequence[float] | Tensor,
    generator: torch.Generator,
    *,
    scale: int | None = None,
) -> Figure:
    """The forward process ``x_t ~ q(x_t | x0)``: a column for each time, a row for each image of ``x0`` (N, C, H, W).

    All columns start from the same state of the generator, and so have the same noise.
    """
    schedule = getattr(corruption, "schedule", None)
    noisy = same_noise(corruption, x0, times, generator)
    shown = torch.stack([unit(x, t, schedule) for x, t in zip(noisy, times, strict=True)], 1)  # (N, T, C, H, W)
    drawn = sheet(shown.flatten(0, 1), columns=len(times), scale=scale, titles=time_titles(times, schedule))
    far = [number((x - x0).square().mean().sqrt(), 2) for x in noisy]
    alt = (
        f"The forward process on {len(x0)} image{'s' * (len(x0) > 1)} at {len(times)} times from t = "
        f"{number(times[0], 2)} to {number(times[-1], 2)}: the root mean square distance from the clean image "
        f"goes from {far[0]} to {far[-1]}."
    )
    return describe(drawn, alt)


class Recorder:
    """A sampler callback that records the denoiser's input and prediction at every step, for ``keep`` examples."""

    def __init__(self, keep: int = 4):
        self.keep = keep
        self.times: list[float] = []
        self.inputs: list[Tensor] = []
        self.predictions: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor, x0: Tensor) -> None:
        self.times.append(float(t))
        self.inputs.append(x[: self.keep].detach().cpu().clone())
        self.predictions.append(x0[: self.keep].detach().cpu().clone())

    def pick(self, steps: int = 5) -> tuple[list[float], Tensor, Tensor]:
        """``times, inputs, predictions`` at ``steps`` recorded steps, evenly spaced from the first to the last."""
        if not self.times:
            raise RuntimeError("nothing recorded yet: pass the recorder as callback= to a sampler first")
        index = sorted({round(i) for i in np.linspace(0, len(self.times) - 1, steps)})
        picked = ([source[i] for i in index] for source in (self.times, self.inputs, self.predictions))
        times, inputs, predictions = picked
        return times, torch.stack(inputs), torch.stack(predictions)


def same_noise(
    corruption: Corruption, x0: Tensor, times: Sequence[float] | Tensor, generator: torch.Generator
) -> list[Tensor]:
    """``x_t ~ q(x_t | x0)`` at each time, all drawn from the same state of the generator."""
    state = generator.get_state()
    noisy = []
    for t in times:
        generator.set_state(state)
        noisy.append(corruption.corrupt(x0, torch.as_tensor(t, dtype=torch.float64), generator=generator))
    return noisy


def unit(x_t: Tensor, t: float | Tensor, schedule: Schedule | None) -> Tensor:
    """``x_t / sqrt(alpha^2 + sigma^2)``, which has unit scale under any schedule; ``x_t`` without a schedule."""
    if schedule is None:
        return x_t
    alpha, sigma = schedule.scales(t)
    return x_t / float((alpha**2 + sigma**2).sqrt())


def time_titles(times: Sequence[float] | Tensor, schedule: Schedule | None) -> list[str]:
    """A title ``t = …`` for every time, with ``λ = …`` below it if there is a schedule."""
    titles = [f"t = {number(t, 2)}" for t in times]
    if schedule is None:
        return titles
    lams = [round(float(schedule.lam(float(t))), 1) + 0.0 for t in times]  # + 0.0: no minus zero
    shown = ["∞" if lam > 20 else "−∞" if lam < -20 else f"{lam:.1f}".replace("-", "−") for lam in lams]  # noqa: RUF001
    return [f"{title}\nλ = {lam}" for title, lam in zip(titles, shown, strict=True)]


def collage(pictures: Sequence[np.ndarray], names: Sequence[str]) -> Figure:
    """Finished images, (height, width, 3) bytes for dense screens, side by side with their names.

    Images wider than half a page are shown at half their size, two in a row.
    """
    high, wide = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    padded = [np.pad(p, ((0, high - len(p)), (0, wide - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    if wide > PAGE[0] * SHARPNESS // 2:
        padded = [np.asarray(Image.fromarray(picture).reduce(2)) for picture in padded]
    even = [picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2] for picture in padded]
    images = torch.from_numpy(np.stack(even)).permute(0, 3, 1, 2)
    columns = min(len(names), max(2, PAGE[0] * SHARPNESS // images.shape[-1]))
    return sheet(images, columns=columns, scale=1 / SHARPNESS, titles=names)


def as_bytes(images: Tensor) -> Tensor:
    """Convert images to uint8 (N, C, H, W) on the CPU. Raises ValueError unless N >= 1 and C is 1 or 3."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images are a tensor (N, C, H, W) with 1 or 3 channels and N at least 1; got {got}")
    images = images.detach().cpu()
    return images if images.dtype == torch.uint8 else to_uint8(images)


def mosaic(
    images: Tensor, columns: int, scale: float, *, group: int | None = None, above: int = 0
) -> tuple[np.ndarray, list[int]]:
    """Arrange uint8 images (N, C, H, W) on white: the result (height, width, 3), and the top of every row.

    A source pixel becomes a square of side ``scale * SHARPNESS``; ``above`` is space for titles above each row. All
    lengths except the shape of the result are in page pixels.
    """
    height, width = (int(side * scale) for side in images.shape[-2:])
    times, tops = int(scale * SHARPNESS), []
    for row in range(-(-len(images) // columns)):
        gap = GROUP_GAP if group and row % group == 0 else GUTTER
        tops.append((tops[-1] + height + gap if row else 0) + above)
    size = tops[-1] + height, columns * (width + GUTTER) - GUTTER
    grid = np.full((size[0] * SHARPNESS, size[1] * SHARPNESS, 3), 255, np.uint8)
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        big = image.repeat(times, 0).repeat(times, 1)
        top, left = tops[index // columns] * SHARPNESS, index % columns * (width + GUTTER) * SHARPNESS
        grid[top : top + big.shape[0], left : left + big.shape[1]] = big
    return grid, tops


def _columns(count: int) -> int:
    """One row up to 10 images; else about twice as wide as high, with full rows if possible."""
    if count <= 10:
        return count
    ideal = (2 * count) ** 0.5
    divisors = [c for c in range(2, 25) if count % c == 0 and ideal / 2 <= c <= 2 * ideal]
    return min(divisors, key=lambda c: (round(abs(np.log(c / ideal)), 6), c), default=round(ideal))


def _scale(images: Tensor, rows: int, columns: int) -> int:
    height, width = images.shape[-2:]
    return max(1, min(PAGE[0] // columns // width, PAGE[1] // rows // height, LARGEST // max(height, width)))


def _frame(
    grid: np.ndarray, tops: list[int], columns: int, cell: int, tall: int,
    titles: Sequence[str] | None, rows: Sequence[str] | None,
) -> Canvas:  # fmt: skip
    """Place the grid in a figure of exactly its size, with space for the labels; lengths in page pixels."""
    high, wide = grid.shape[0] // SHARPNESS, grid.shape[1] // SHARPNESS
    heads = titles is not None and len(titles) == columns
    left = 14 + max((_extent(row)[0] for row in rows), default=0) if rows else 0
    size = 8.5
    if titles is not None:
        size *= min(1, max(0.7, (cell + GUTTER - 4) / max(_extent(title, size)[0] for title in titles)))
    top = 5 + max(_extent(title, size)[1] for title in titles) if heads else 0
    width, height = left + wide, top + high
    inches = [(length + 1e-3) / PIXELS_PER_INCH for length in (width, height)]  # never rounded down by a pixel
    figure = Canvas(inches, dpi=PIXELS_PER_INCH * SHARPNESS)
    FigureCanvasAgg(figure)
    figure.figimage(grid, left * SHARPNESS, 0, origin="upper")

    def write(x: float, y: float, text: str, **options) -> None:
        figure.text(x / width, 1 - y / height, text, **options)

    for index, title in enumerate(titles or ()):
        below = top - 5 if heads else tops[index // columns] - 3
        x = left + index % columns * (cell + GUTTER) + cell / 2
        write(x, below, title, ha="center", va="bottom", fontsize=size, linespacing=1.25)
    for row, name in enumerate(rows or ()):
        write(left - 8, top + tops[row] + tall / 2, name, ha="right", va="center")
    return figure


def _extent(text: str, size: float | None = None) -> tuple[int, int]:
    """Width and height of a text in page pixels."""
    canvas = FigureCanvasAgg(Canvas(dpi=PIXELS_PER_INCH))
    box = canvas.figure.text(0, 0, text, fontsize=size, linespacing=1.25).get_window_extent(canvas.get_renderer())
    return int(np.ceil(box.width)), int(np.ceil(box.height))

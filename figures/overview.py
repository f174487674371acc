"""The picture of the README: one noise, three samplers, 1 to 50 evaluations. ``python figures/overview.py``."""

from pathlib import Path

import torch

from survey_lib.core import grids, samplers, schedules
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.integrators import multistep
from survey_lib.lab import plots
from survey_lib.lab.evaluation.speed import fast
from survey_lib.lab.training import checkpoints

EVALUATIONS = (1, 2, 3, 5, 8, 12, 20, 50)


def draw(seed: int = 0, examples: int = 2) -> plots.Figure:
    """Rows are samplers, columns evaluations; all start from the same noise, and ask the same network."""
    schedule = schedules.vp_linear()
    denoiser = fast(checkpoints.load("glyphs_base", schedule=schedule))
    noise = Gaussian(schedule).prior((examples, 3, 32, 32), generator=torch.Generator().manual_seed(seed))

    def ddpm(times: torch.Tensor) -> torch.Tensor:
        return samplers.ancestral(
            denoiser, Gaussian(schedule), noise, times, generator=torch.Generator().manual_seed(1)
        )

    def order(k: int):
        return lambda times: multistep(denoiser, schedule, noise, times, order=k)

    rows = {"DDPM": ddpm, "DDIM": order(1), "DPM-Solver++ 2M": order(2)}
    drawn = [torch.stack([walk(grids.karras(n, schedule)) for n in EVALUATIONS], 1) for walk in rows.values()]
    pictures = torch.stack(drawn, 1).flatten(0, 2).clamp(-1, 1)  # example, sampler, evaluations
    return plots.sheet(
        pictures, columns=len(EVALUATIONS), titles=[str(n) for n in EVALUATIONS], rows=list(rows) * examples,
        group=len(rows), scale=2,
    )  # fmt: skip


if __name__ == "__main__":
    draw().save(Path(__file__).with_name("overview.png"))

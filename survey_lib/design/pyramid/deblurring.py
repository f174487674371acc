"""Progressive deblurring: a corruption that hides details before what is coarse (Lee et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.protocols import Corruption
from survey_lib.design.pyramid.wavelets import haar, unhaar


@dataclass(frozen=True)
class ByBand:
    """A corruption for each band of the Haar transform of images, the coarsest first.

    The transform is orthonormal, so that white noise stays white and bands are corrupted apart. Schedules that hide
    details sooner make the way back one from coarse to fine: progressive deblurring (Lee et al. 2022, with blocks of
    pixels in place of cosines). It samples as any `Corruption` does.

    corruptions: of the coarse numbers and then of the details of each scale: n of them split an image n - 1 times.
    """

    corruptions: Sequence[Corruption]

    def prior(self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None) -> Tensor:
        """Every band's own prior."""
        return self._each(lambda one, band: one.prior(band.shape, t, generator=generator), torch.empty(tuple(shape)))

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t ~ q(x_t | x0)``, band by band."""
        return self._each(lambda one, band: one.corrupt(band, t, generator=generator), x0)

    def bridge(
        self,
        x_t: Tensor,
        x0: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_s ~ q(x_s | x_t, x0)``, band by band."""
        return self._each(lambda one, band, clean: one.bridge(band, clean, t, s, generator=generator), x_t, x0)

    def _each(self, apply: Callable[..., Tensor], *images: Tensor) -> Tensor:
        """Split images, apply the corruption of each band to the bands, and put them together again."""
        return _by_band(self.corruptions, apply, images)


def _by_band(corruptions: Sequence[Corruption], apply: Callable[..., Tensor], images: Sequence[Tensor]) -> Tensor:
    *coarser, finest = corruptions
    if not coarser:
        return apply(finest, *images)
    maps = [haar(x).unflatten(1, (x.shape[1], 4)) for x in images]
    coarse = _by_band(coarser, apply, [one[:, :, 0] for one in maps])
    details = apply(finest, *(one[:, :, 1:] for one in maps))
    return unhaar(torch.cat([coarse[:, :, None], details], dim=2).flatten(1, 2))

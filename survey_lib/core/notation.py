"""The conventions page as code: this package's ``alpha, sigma`` (and ``t``) in each paper's symbols, and back.

Each pair of functions inverts one another. A paper that rescales ``x_t`` says by how much in its docstring.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_ddpm(alpha: Tensor, sigma: Tensor) -> Tensor:
    """DDPM (Ho et al. 2020): ``alpha_bar = alpha^2``. Only where the variance is preserved; else ValueError."""
    if not torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha)):
        raise ValueError("DDPM has alpha^2 + sigma^2 = 1; divide x_t, alpha and sigma by sqrt(alpha^2 + sigma^2) first")
    return alpha**2


def from_ddpm(alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """``alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar)``."""
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def to_edm(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """EDM (Karras et al. 2022): ``s = alpha, sigma_EDM = sigma / alpha``, so ``x_t = s (x0 + sigma_EDM eps)``."""
    return alpha, sigma / alpha


def from_edm(scale: Tensor, sigma_edm: Tensor) -> tuple[Tensor, Tensor]:
    """``alpha = s, sigma = s sigma_EDM``."""
    return scale, scale * sigma_edm


def to_ncsn(alpha: Tensor, sigma: Tensor) -> Tensor:
    """NCSN (Song & Ermon 2019): the noise of ``x_t / alpha``, for which ``alpha = 1``."""
    return sigma / alpha


def from_ncsn(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """``alpha = 1`` and the same sigma."""
    return torch.ones_like(sigma), sigma


def to_snr(alpha: Tensor, sigma: Tensor) -> Tensor:
    """VDM (Kingma et al. 2021): ``SNR = (alpha / sigma)^2 = exp(2 lam)``, with DPM-Solver's ``lam``."""
    return (alpha / sigma) ** 2


def from_snr(snr: Tensor) -> tuple[Tensor, Tensor]:
    """The variance-preserving pair: ``alpha^2 = SNR / (1 + SNR), sigma^2 = 1 / (1 + SNR)``."""
    return torch.sigmoid(snr.log()).sqrt(), torch.sigmoid(-snr.log()).sqrt()


def to_flow(t: Tensor) -> Tensor:
    """Flow matching (Lipman et al. 2023): its time runs from noise at 0 to data at 1."""
    return 1 - t


def from_flow(time: Tensor) -> Tensor:
    """``t = 1 - time``; on the straight path ``alpha = time`` and ``sigma = 1 - time``."""
    return 1 - time

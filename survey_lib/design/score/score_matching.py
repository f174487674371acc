"""Score matching: four losses with the same minimiser (Hyvärinen 2005; Vincent 2011; Song et al. 2019).

The objective is ``1/2 E |score(x) - grad log p(x)|^2`` (`explicit`), but only samples of ``p`` are given. Integration
by parts removes the unknown score (`implicit`), random directions make that cheap (`sliced`), and noise makes the
target known (`denoising`). All losses are sums over the dimensions, one number per example (B,). Their expectations
differ by constants that do not depend on the score.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from survey_lib.core.protocols import normal
from survey_lib.nets.mlp import MLP

#: ``score(x)``: (B, ...) -> (B, ...), a network or any function that treats examples independently.
Score = Callable[[Tensor], Tensor]


def explicit(score: Score, x: Tensor, exact: Score) -> Tensor:
    """Explicit score matching ``1/2 |score(x) - exact(x)|^2`` (Hyvärinen 2005, eq. 2): (B,)."""
    return 0.5 * _square(score(x) - exact(x))


def denoising(
    score: Score,
    x0: Tensor,
    sigma: float,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoising score matching ``1/2 |score(x0 + sigma z) + z / sigma|^2`` (Vincent 2011, eq. 9): (B,).

    Its minimiser is the score of the *noised* data, ``p * N(0, sigma^2)``. Less noise brings it closer to the score of
    the data and raises the variance, because the target ``-z / sigma`` grows. ``noise`` is z, drawn if not given.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive; got {sigma:g}")
    z = normal(x0.shape, generator, x0.dtype).to(x0.device) if noise is None else noise
    return 0.5 * _square(score(x0 + sigma * z) + z / sigma)


def implicit(score: Score, x: Tensor) -> Tensor:
    """Implicit score matching ``1/2 |score(x)|^2 + div score(x)`` (Hyvärinen 2005, eq. 4): (B,).

    Equal to `explicit` in expectation up to ``1/2 E |grad log p|^2``, for densities that vanish at infinity. Cost: one
    backward pass per dimension.
    """

    def divergence(value: Tensor, x: Tensor, keep: bool) -> Tensor:
        outputs = value.flatten(1).sum(0)
        rows = [_gradient(y, x, keep).flatten(1)[:, i] for i, y in enumerate(outputs)]
        return torch.stack(rows).sum(0)

    return _differentiable(score, x, lambda value, at, keep: 0.5 * _square(value) + divergence(value, at, keep))


def sliced(
    score: Score,
    x: Tensor,
    *,
    slices: int = 1,
    reduced: bool = True,
    directions: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sliced score matching ``v . J v + 1/2 (v . score)^2``, J the Jacobian of the score (Song et al. 2019): (B,).

    slices: number of random directions v, with entries 1 and -1; the loss is the mean over them.
    reduced: replace the last term by its mean ``1/2 |score|^2``, which reduces the variance.
    directions: the v, (slices, *x.shape), drawn if not given.

    Cost: one backward pass per direction, in any dimension.
    """
    if directions is None:
        directions = normal((slices, *x.shape), generator, x.dtype).to(x.device).sign()

    def total(value: Tensor, at: Tensor, keep: bool) -> Tensor:
        curvatures, lengths = [], []
        for v in directions:
            curvatures.append((_gradient((value * v).sum(), at, keep) * v).flatten(1).sum(1))
            lengths.append(_square(value) if reduced else (value * v).flatten(1).sum(1).square())
        return torch.stack(curvatures).mean(0) + 0.5 * torch.stack(lengths).mean(0)

    return _differentiable(score, x, total)


class ScoreNet(nn.Module):
    """An `MLP` as the score of one distribution, without a noise level: (B, dims) -> (B, dims)."""

    def __init__(self, dims: int, *, width: int = 64, layers: int = 2):
        super().__init__()
        self.net = MLP(dims, width=width, layers=layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, x.new_zeros(len(x)))


def fit(
    score: nn.Module,
    loss: Callable[[Score, Tensor], Tensor],
    draw: Callable[[], Tensor],
    *,
    steps: int = 500,
    rate: float = 2e-3,
) -> Tensor:
    """Train ``score`` in place by Adam on ``loss(score, x)``, with new data ``x = draw()`` at every step.

    Returns the losses (steps,). The rate falls linearly to 0. Raises FloatingPointError for a loss that is not finite.
    """
    optimizer = torch.optim.Adam(score.parameters(), lr=rate)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        value = loss(score, draw()).mean()
        if not value.isfinite():
            raise FloatingPointError(f"loss is not finite at step {step}: lower the rate")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return torch.stack(losses)


def noised_losses(sigma: float, generator: torch.Generator | None) -> dict[str, Callable[[Score, Tensor], Tensor]]:
    """The three practical losses as functions of ``(score, x0)``, each for the score of data noised by ``sigma``.

    `denoising` adds the noise itself; `sliced`, with one direction, and `implicit` are evaluated on noised data.
    """

    def noisy(x0: Tensor) -> Tensor:
        return x0 + sigma * normal(x0.shape, generator, x0.dtype).to(x0.device)

    return {
        "denoising": lambda score, x0: denoising(score, x0, sigma, generator=generator),
        "sliced": lambda score, x0: sliced(score, noisy(x0), generator=generator),
        "implicit": lambda score, x0: implicit(score, noisy(x0)),
    }


def gradient_noise(loss: Callable[[Score, Tensor], Tensor], score: Score, x: Tensor) -> float:
    """Per-example standard deviation of the gradient of a score-matching loss with respect to a scale of the score.

    With ``(1 + theta) score`` in place of the score, all losses of this module have the same mean derivative in theta
    at 0, which vanishes for the exact score, and the same curvature ``E |score|^2``. Only the standard deviation of the
    derivative over the examples ``x`` (B, D) differs. It is returned relative to the curvature: the error in theta that
    one example would cause.
    """
    theta = torch.zeros(len(x), 1, dtype=x.dtype, device=x.device, requires_grad=True)
    powers: list[Tensor] = []

    def scaled(y: Tensor) -> Tensor:
        value = score(y)
        powers.append(_square(value.detach()))
        return (1 + theta) * value

    (gradients,) = torch.autograd.grad(loss(scaled, x).sum(), theta)
    return float(gradients.std() / powers[0].mean())


def _square(value: Tensor) -> Tensor:
    return value.flatten(1).square().sum(1)


def _differentiable(score: Score, x: Tensor, total: Callable[[Tensor, Tensor, bool], Tensor]) -> Tensor:
    """``total(score(x), x, keep)`` with an x that requires gradients; ``keep`` makes these differentiable too."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        value = score(x)
        if not value.requires_grad:
            raise RuntimeError("this loss differentiates the score, but its value is detached from x (torch.no_grad?)")
        result = total(value, x, keep)
    return result if keep else result.detach()


def _gradient(y: Tensor, x: Tensor, keep: bool) -> Tensor:
    return torch.autograd.grad(y, x, create_graph=keep, retain_graph=True, materialize_grads=True)[0]

"""Learning a score from data: four losses with one minimiser (Hyvärinen 2005; Vincent 2011; Song et al. 2019).

What one would like to minimise is ``1/2 E |score(x) - grad log p(x)|^2`` (`explicit`); of ``p`` there are only samples.
Integration by parts removes the unknown (`implicit`), random directions make that cheap (`sliced`), and a little noise
makes the target known (`denoising`). All losses are sums over the dimensions, one number an example, (B,), and differ
in expectation by constants that no choice of the score changes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from survey_lib.core.protocols import normal
from survey_lib.nets.mlp import MLP

#: ``score(x)``: (B, ...) -> (B, ...), a network or any function, one example apart from another.
Score = Callable[[Tensor], Tensor]


def explicit(score: Score, x: Tensor, exact: Score) -> Tensor:
    """``1/2 |score(x) - exact(x)|^2``, the Fisher divergence once averaged (Hyvärinen 2005, eq. 2): (B,)."""
    return 0.5 * _square(score(x) - exact(x))


def denoising(
    score: Score,
    x0: Tensor,
    sigma: float,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``1/2 |score(x0 + sigma z) + z / sigma|^2`` (Vincent 2011, eq. 9): (B,).

    Its minimiser is the score of the *noised* data, ``p * N(0, sigma^2)``: less noise is nearer to the data, and more
    random, for the target ``-z / sigma`` grows as the noise shrinks. ``noise`` is z, drawn if not given.
    """
    if not sigma > 0:
        raise ValueError(f"denoising needs noise, sigma above 0; got {sigma:g}")
    z = normal(x0.shape, generator, x0.dtype).to(x0.device) if noise is None else noise
    return 0.5 * _square(score(x0 + sigma * z) + z / sigma)


def implicit(score: Score, x: Tensor) -> Tensor:
    """``1/2 |score(x)|^2 + div score(x)`` (Hyvärinen 2005, eq. 4): (B,). One backward pass a dimension.

    Equal to `explicit` in expectation up to ``1/2 E |grad log p|^2``, for densities that vanish far out.
    """

    def divergence(value: Tensor, x: Tensor, keep: bool) -> Tensor:
        outputs = value.flatten(1).sum(0)
        rows = [_pull(y, x, keep).flatten(1)[:, i] for i, y in enumerate(outputs)]
        return torch.stack(rows).sum(0)

    return _with_slope(score, x, lambda value, at, keep: 0.5 * _square(value) + divergence(value, at, keep))


def sliced(
    score: Score,
    x: Tensor,
    *,
    slices: int = 1,
    reduced: bool = True,
    directions: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``v . J v + 1/2 (v . score)^2`` for random signs v, J the Jacobian of the score (Song et al. 2019): (B,).

    ``reduced`` writes ``1/2 |score|^2`` for the last term, of which it is the mean, and so leaves out the chance in
    it. The mean over ``slices`` directions; each costs one backward pass, in any dimension. ``directions`` are these v,
    (slices, *x.shape), drawn if not given.
    """
    if directions is None:
        directions = normal((slices, *x.shape), generator, x.dtype).to(x.device).sign()

    def total(value: Tensor, at: Tensor, keep: bool) -> Tensor:
        bends, lengths = [], []
        for v in directions:
            bends.append((_pull((value * v).sum(), at, keep) * v).flatten(1).sum(1))
            lengths.append(_square(value) if reduced else (value * v).flatten(1).sum(1).square())
        return torch.stack(bends).mean(0) + 0.5 * torch.stack(lengths).mean(0)

    return _with_slope(score, x, total)


class ScoreNet(nn.Module):
    """An `MLP` as the score of one law, without a level of noise: (B, dims) -> (B, dims)."""

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
    """Train ``score`` in place with Adam, ``loss(score, x)`` on fresh ``x = draw()`` at every step: losses (steps,).

    The rate falls linearly to 0. Raises FloatingPointError when a loss is no number any more.
    """
    optimizer = torch.optim.Adam(score.parameters(), lr=rate)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        value = loss(score, draw()).mean()
        if not value.isfinite():
            raise FloatingPointError(f"the loss is no number any more at step {step}: try a smaller rate")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return torch.stack(losses)


def noised_losses(sigma: float, generator: torch.Generator | None) -> dict[str, Callable[[Score, Tensor], Tensor]]:
    """The three losses that can be had, as functions of ``(score, x0)`` that learn the score of noised data.

    `denoising` adds the noise itself; `sliced`, in one direction, and `implicit` are given data with noise on them.
    """

    def noisy(x0: Tensor) -> Tensor:
        return x0 + sigma * normal(x0.shape, generator, x0.dtype).to(x0.device)

    return {
        "denoising": lambda score, x0: denoising(score, x0, sigma, generator=generator),
        "sliced": lambda score, x0: sliced(score, noisy(x0), generator=generator),
        "implicit": lambda score, x0: implicit(score, noisy(x0)),
    }


def gradient_noise(loss: Callable[[Score, Tensor], Tensor], score: Score, x: Tensor) -> float:
    """How far one example misjudges the size of a score, ``loss(score, x)`` a function of it and of data (B, D).

    With ``(1 + theta) score`` in place of the score, all losses of this module have the same mean derivative in theta
    at 0, none if the score is exact, and the same curvature ``E |score|^2``. What differs is the deviation of the
    derivative over examples; it is returned over that curvature, the error in theta that one example would make.
    """
    theta = torch.zeros(len(x), 1, dtype=x.dtype, device=x.device, requires_grad=True)
    powers: list[Tensor] = []

    def scaled(y: Tensor) -> Tensor:
        value = score(y)
        powers.append(_square(value.detach()))
        return (1 + theta) * value

    (votes,) = torch.autograd.grad(loss(scaled, x).sum(), theta)
    return float(votes.std() / powers[0].mean())


def _square(value: Tensor) -> Tensor:
    return value.flatten(1).square().sum(1)


def _with_slope(score: Score, x: Tensor, total: Callable[[Tensor, Tensor, bool], Tensor]) -> Tensor:
    """``total(score(x), x, keep)`` where derivatives in x can be taken; ``keep``: they will be differentiated too."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        value = score(x)
        if not value.requires_grad:
            raise RuntimeError("this loss differentiates the score; this one cut its graph (torch.no_grad inside?)")
        result = total(value, x, keep)
    return result if keep else result.detach()


def _pull(y: Tensor, x: Tensor, keep: bool) -> Tensor:
    return torch.autograd.grad(y, x, create_graph=keep, retain_graph=True, materialize_grads=True)[0]

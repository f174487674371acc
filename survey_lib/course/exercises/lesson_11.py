"""Exercises of lesson 11: noise by a chain of matrices, the way back by Bayes, and the surest places first."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.course.exercises._decode_11 import C
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

__all__ = ["A", "B", "C"]

_STATES, _STEPS, _DRAWS = 4, 3, 8000


#: Where each state likes to go, in three steps: cycles of three, which do not commute.
_FAVOURITES = ((1, 2, 0, 3), (0, 2, 3, 1), (3, 1, 0, 2))


def _matrix(generator: torch.Generator, step: int) -> Tensor:
    """A random transition matrix, far from symmetric: each state likes to stay, and has a favourite of its own."""
    weights = torch.rand(_STATES, _STATES, generator=generator, dtype=torch.float64) ** 2 + 0.05
    eye = torch.eye(_STATES, dtype=torch.float64)
    weights = weights + eye + 3 * eye[list(_FAVOURITES[step])]
    return weights / weights.sum(1, keepdim=True)


# --- A: noise by a chain of matrices ------------------------------------------------------------------------------


def _corrupt_with(
    reach=lambda total, step: total @ step,
    rows=lambda total, x0: total[x0],
    part=lambda chain, t: chain[:t],
    draw=lambda p, generator: torch.multinomial(p, 1, generator=generator)[:, 0],
):
    def corrupt(x0, chain, t, generator):
        total = torch.eye(chain.shape[-1], dtype=chain.dtype)
        for step in part(chain, t):
            total = reach(total, step)
        return draw(rows(total, x0), generator)

    return corrupt


def _unrepeatable(p, generator):
    return torch.multinomial(p, 1)[:, 0]


def _corrupt_stub(x0, chain, t, generator):
    raise NotImplementedError


def _chain_problem(generator):
    chain = torch.stack([_matrix(generator, step) for step in range(_STEPS)])
    seed = int(torch.randint(2**31, (), generator=generator))
    return SimpleNamespace(chain=chain, seed=seed)


def _corrupted(answer, p, x0: Tensor, t: int) -> Tensor:
    return answer(x0, p.chain, t, torch.Generator().manual_seed(p.seed))


def _repeats(answer, p):
    x0 = torch.arange(_STATES).repeat(500)
    return float(torch.equal(_corrupted(answer, p, x0, _STEPS), _corrupted(answer, p, x0, _STEPS)))


def _frequencies(answer, p, t: int) -> Tensor:
    """How often each state (row) became each other (column)."""
    x0 = torch.arange(_STATES).repeat_interleave(_DRAWS)
    x_t = torch.as_tensor(_corrupted(answer, p, x0, t)).long()
    return torch.nn.functional.one_hot(x_t, _STATES).double().reshape(_STATES, _DRAWS, _STATES).mean(1)


def _over_paths(p, t: int) -> Tensor:
    """The same by adding up all paths of ``t`` jumps, one by one."""
    total = torch.zeros(_STATES, _STATES, dtype=torch.float64)
    for path in itertools.product(range(_STATES), repeat=t + 1):
        chance = torch.ones((), dtype=torch.float64)
        for step, start, end in zip(p.chain, path, path[1:], strict=False):
            chance = chance * step[start, end]
        total[path[0], path[-1]] += chance
    return total


A = Exercise(
    id="11.A",
    title="noise for symbols",
    difficulty="guided",
    minutes=8,
    hints=(
        "From i to j in two steps: add up over all stations k the chance to go from i to k and then from k to j.",
        "That sum is a product of matrices. Rows are where one comes from, so the first step stands on the left.",
        "total = total @ step in the loop; then the row of total that each x0 names: total[x0].",
    ),
    problem=_chain_problem,
    properties=(
        Property(
            "the same generator gives the same x_t",
            _repeats,
            lambda p: 1.0,
            show=lambda value: "the same x_t" if value else "another x_t",
        ),
        Property(
            "after one step each symbol has become the others as often as the matrix says",
            lambda answer, p: _frequencies(answer, p, 1),
            lambda p: p.chain[0],
            0.025,
        ),
        Property(
            "after three steps, as often as all paths together say",
            lambda answer, p: _frequencies(answer, p, _STEPS),
            lambda p: _over_paths(p, _STEPS),
            0.025,
        ),
    ),
    mistakes=(
        Mistake(
            "rows and columns exchanged",
            "many papers let a matrix act on a column, and then columns sum to one. Here row i is where one comes "
            "from: total[x0]. With a symmetric matrix nobody notices.",
            _corrupt_with(rows=lambda total, x0: total.T[x0]),
        ),
        Mistake(
            "the last step's matrix for the whole way",
            "Q_t takes one step, from t - 1 to t. From the data to t leads the product of all matrices up to there, "
            "which papers write with a bar.",
            _corrupt_with(reach=lambda total, step: step),
        ),
        Mistake(
            "the product in the wrong order",
            "matrices do not commute. With rows for where one comes from, the first step stands on the left; "
            "for uniform noise alone any order will do, which hides it.",
            _corrupt_with(reach=lambda total, step: step @ total),
        ),
        Mistake(
            "one step short",
            "chain[: t - 1] stops one step early: arrays count from 0, but chain[:t] holds t steps.",
            _corrupt_with(part=lambda chain, t: chain[: t - 1]),
        ),
        Mistake(
            "the most probable instead of a draw",
            "argmax gives every symbol the same fate. Little noise then is no noise, and much noise is one symbol.",
            _corrupt_with(draw=lambda p, generator: p.argmax(1)),
        ),
        Mistake(
            "noise that cannot be repeated",
            "torch.multinomial without a generator draws from a state that any other line may change.",
            _corrupt_with(draw=_unrepeatable),
        ),
    ),
    reference=_corrupt_with(),
    stub=_corrupt_stub,
)


# --- B: the way back by Bayes -------------------------------------------------------------------------------------


def _divided(guess: Tensor, explains: Tensor) -> Tensor:
    return torch.where(explains > 0, guess / explains, 0)


def _posterior_with(
    weigh=_divided, likely=lambda s_to_t, to_t, x_t: s_to_t[:, x_t].T, final=lambda p: p / p.sum(1, keepdim=True)
):
    def posterior(x_t, guess, to_s, s_to_t, to_t):
        weights = weigh(guess, to_t[:, x_t].T)
        return final(likely(s_to_t, to_t, x_t) * (weights @ to_s))

    return posterior


def _forgetful(x_t, guess, to_s, s_to_t, to_t):
    return guess @ to_s


def _posterior_stub(x_t, guess, to_s, s_to_t, to_t):
    raise NotImplementedError


def _posterior_problem(generator):
    law = torch.rand(_STATES, generator=generator, dtype=torch.float64) + 0.1
    first, second = _matrix(generator, 0), _matrix(generator, 1)
    hidden = torch.eye(_STATES + 1, dtype=torch.float64) * 0.6  # symbols that a mask, the last state, swallows
    hidden[:, -1] += 0.4
    masked_law = torch.cat([law / law.sum(), torch.zeros(1, dtype=torch.float64)])
    return SimpleNamespace(
        plain=SimpleNamespace(law=law / law.sum(), first=first, second=second),
        masked=SimpleNamespace(law=masked_law, first=hidden, second=hidden),
    )


def _joint(chain) -> Tensor:
    """``p(x0, x_s, x_t)`` for all triples: (K, K, K)."""
    return chain.law[:, None, None] * chain.first[:, :, None] * chain.second[None, :, :]


def _answered(answer, chain, guess: Tensor) -> Tensor:
    x_t = torch.arange(len(chain.law))
    return torch.as_tensor(answer(x_t, guess, chain.first, chain.second, chain.first @ chain.second))


def _true_guess(chain) -> Tensor:
    """``p(x0 | x_t)``, a row for each x_t, from the table of triples."""
    pairs = _joint(chain).sum(1).T
    return pairs / pairs.sum(1, keepdim=True)


def _with_truth(answer, chain) -> Tensor:
    return _answered(answer, chain, _true_guess(chain))


def _true_step(chain) -> Tensor:
    """``p(x_s | x_t)``, a row for each x_t."""
    pairs = _joint(chain).sum(0).T
    return pairs / pairs.sum(1, keepdim=True)


def _if_known(answer, chain) -> Tensor:
    """``q(x_s | x_t, x0)`` for every x0 (first axis), asked with certainty."""
    certain = torch.eye(len(chain.law), dtype=torch.float64)
    return torch.stack([_answered(answer, chain, row.expand_as(certain)) for row in certain])


def _known_step(chain) -> Tensor:
    triples = _joint(chain).permute(0, 2, 1)
    return triples / triples.sum(2, keepdim=True)


B = Exercise(
    id="11.B",
    title="one step back, by Bayes",
    difficulty="supported",
    minutes=15,
    hints=(
        "If x0 were known to be k: q(x_s | x_t, k) = q(x_t | x_s) q(x_s | k) / q(x_t | k). Average over the guess.",
        "q(x_t | k) for all k is the column to_t[:, x_t]. Divide the guess by it first (where it is not 0); "
        "then one product with to_s adds up over k.",
        "s_to_t[:, x_t].T * (weights @ to_s), with weights = guess / to_t[:, x_t].T.",
    ),
    problem=_posterior_problem,
    properties=(
        Property(
            "every row sums to one",
            lambda answer, p: _with_truth(answer, p.plain).sum(1),
            lambda p: torch.ones(_STATES),
            1e-9,
        ),
        Property(
            "with a guess that is certain it is Bayes' rule on the chain",
            lambda answer, p: _if_known(answer, p.plain),
            lambda p: _known_step(p.plain),
            1e-9,
        ),
        Property(
            "with the true p(x0 | x_t) it is the true p(x_s | x_t), counted over all triples",
            lambda answer, p: _with_truth(answer, p.plain),
            lambda p: _true_step(p.plain),
            1e-9,
        ),
        Property(
            "with a mask nothing is divided by zero",
            lambda answer, p: _with_truth(answer, p.masked),
            lambda p: _true_step(p.masked),
            1e-9,
        ),
    ),
    mistakes=(
        Mistake(
            "the division by q(x_t | x0) is forgotten",
            "D3PM's equation 4 has none, and normalising at the end does not make up for it: the guess has already "
            "seen x_t, and here x_t votes a second time. With a certain guess the two agree, which hides it.",
            _posterior_with(weigh=lambda guess, explains: guess),
        ),
        Mistake(
            "neither divided nor normalised",
            "Bayes' rule has a denominator, q(x_t | x0), one for each x0. Without it rows do not even sum to one.",
            _posterior_with(weigh=lambda guess, explains: guess, final=lambda p: p),
        ),
        Mistake(
            "rows and columns exchanged",
            "x_t is where the step s to t ends: its probabilities stand in a column, s_to_t[:, x_t].",
            _posterior_with(likely=lambda s_to_t, to_t, x_t: s_to_t[x_t]),
        ),
        Mistake(
            "the whole way for one step",
            "the chance to come from x_s to x_t is the step's, s_to_t; to_t leads from the data all the way to t.",
            _posterior_with(likely=lambda s_to_t, to_t, x_t: to_t[:, x_t].T),
        ),
        Mistake(
            "x_t is forgotten",
            "guess @ to_s is noise put anew on the guess. It has the right law at time s, but it is no step from "
            "this x_t: symbols that had survived are thrown away and drawn again.",
            _forgetful,
        ),
        Mistake(
            "zero divided by zero",
            "a symbol that cannot have become x_t has q(x_t | x0) = 0 and probability 0; 0 / 0 is not a number. "
            "torch.where keeps it 0.",
            _posterior_with(weigh=lambda guess, explains: guess / explains),
        ),
    ),
    reference=_posterior_with(),
    stub=_posterior_stub,
)

"""Exercises of lesson 11: corruption by a chain of matrices, a reverse step by Bayes, and confidence decoding."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from survey_lib.core.categorical import absorbing
from survey_lib.core.exact import CategoricalTable
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

_STATES, _STEPS, _DRAWS = 4, 3, 8000

#: The preferred next state of each state, in three steps: cycles of three, which do not commute.
_FAVOURITES = ((1, 2, 0, 3), (0, 2, 3, 1), (3, 1, 0, 2))


def _matrix(generator: torch.Generator, step: int) -> Tensor:
    """A random transition matrix, far from symmetric: each state has a preferred next state."""
    weights = torch.rand(_STATES, _STATES, generator=generator, dtype=torch.float64) ** 2 + 0.05
    eye = torch.eye(_STATES, dtype=torch.float64)
    weights = weights + eye + 3 * eye[list(_FAVOURITES[step])]
    return weights / weights.sum(1, keepdim=True)


# --- A: noise by a chain of matrices ------------------------------------------------------------------------------


def _corrupt(x0, chain, t, generator):
    total = torch.eye(chain.shape[-1], dtype=chain.dtype)
    for step in chain[:t]:
        total = total @ step
    probabilities = total[x0]
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def _chain_problem(generator):
    chain = torch.stack([_matrix(generator, step) for step in range(_STEPS)])
    return SimpleNamespace(chain=chain, seed=int(torch.randint(2**31, (), generator=generator)))


def _corrupted(answer, p, x0: Tensor, t: int) -> Tensor:
    return answer(x0, p.chain, t, torch.Generator().manual_seed(p.seed))


def _repeats(answer, p):
    x0 = torch.arange(_STATES).repeat(500)
    return float(torch.equal(_corrupted(answer, p, x0, _STEPS), _corrupted(answer, p, x0, _STEPS)))


def _frequencies(answer, p, t: int) -> Tensor:
    """The fraction of each state (row) that became each state (column)."""
    x0 = torch.arange(_STATES).repeat_interleave(_DRAWS)
    x_t = torch.as_tensor(_corrupted(answer, p, x0, t)).long()
    return one_hot(x_t, _STATES).double().reshape(_STATES, _DRAWS, _STATES).mean(1)


A = Exercise(
    id="11.A",
    title="noise for symbols",
    minutes=8,
    hints=(
        "From i to j in two steps: add up over all stations k the chance to go from i to k and then from k to j.",
        "That sum is a product of matrices. Rows are where one comes from, so the first step stands on the left.",
        "At the end each x0 names a row of `total`: its probabilities.",
    ),
    problem=_chain_problem,
    reference=_corrupt,
    properties={
        "the same generator gives the same x_t": Property(
            _repeats, 1.0, show=lambda same: "the same x_t" if same else "another x_t"
        ),
        "after one step each symbol has become the others as often as the matrix says": Property(
            _frequencies, lambda p, t: p.chain[0], 0.025, given=(1,)
        ),
        "after three steps, as often as all paths together say": Property(
            _frequencies, lambda p, t: torch.einsum("ij,jk,kl->il", *p.chain), 0.025, given=(_STEPS,)
        ),
    },
    mistakes={
        "rows and columns exchanged": Mistake(
            "many papers let a matrix act on a column, and then columns sum to one. Here row i is where one comes "
            "from: total[x0]. With a symmetric matrix nobody notices.",
            ("total[x0]", "total.T[x0]"),
        ),
        "the last step's matrix for the whole way": Mistake(
            "Q_t takes one step, from t - 1 to t. From the data to t leads the product of all matrices up to there.",
            ("total @ step", "step"),
        ),
        "the product in the wrong order": Mistake(
            "rows are where one comes from: the first step stands on the left. For uniform noise any order will do.",
            ("total @ step", "step @ total"),
        ),
        "one step short": Mistake(
            "chain[: t - 1] stops one step early: arrays count from 0, but chain[:t] holds t steps.",
            ("chain[:t]", "chain[: t - 1]"),
        ),
        "the most probable instead of a draw": Mistake(
            "argmax gives every symbol the same fate. Little noise then is no noise, and much noise is one symbol.",
            ("torch.multinomial(probabilities, 1, generator=generator)[:, 0]", "probabilities.argmax(1)"),
        ),
        "noise that cannot be repeated": Mistake(
            "torch.multinomial without a generator draws from a state that any other line may change.",
            (", generator=generator", ""),
        ),
    },
)

# --- B: the way back by Bayes -------------------------------------------------------------------------------------


def _posterior(x_t, guess, to_s, s_to_t, to_t):
    explains = to_t[:, x_t].T
    weights = torch.where(explains > 0, guess / explains, 0)
    p = s_to_t[:, x_t].T * (weights @ to_s)
    return p / p.sum(1, keepdim=True)


def _posterior_problem(generator):
    """Two chains of two steps, as the tables ``p(x0, x_s, x_t)`` of all triples and the matrices of their steps."""
    law = torch.rand(_STATES, generator=generator, dtype=torch.float64) + 0.1
    first, second = _matrix(generator, 0), _matrix(generator, 1)
    hidden = torch.eye(_STATES + 1, dtype=torch.float64) * 0.6  # an absorbing chain: the last state is the mask
    hidden[:, -1] += 0.4
    masked_law = torch.cat([law, torch.zeros(1, dtype=torch.float64)])
    return {"plain": _chain(law / law.sum(), first, second), "masked": _chain(masked_law / law.sum(), hidden, hidden)}


def _chain(law: Tensor, first: Tensor, second: Tensor) -> SimpleNamespace:
    joint = law[:, None, None] * first[:, :, None] * second[None, :, :]
    return SimpleNamespace(joint=joint, matrices=(first, second, first @ second), states=torch.arange(len(law)))


def _normalised(table: Tensor) -> Tensor:
    return table / table.sum(-1, keepdim=True)


def _with_truth(answer, p, name: str) -> Tensor:
    """The answer for each x_t (row) with the exact ``p(x0 | x_t)``."""
    chain = p[name]
    return torch.as_tensor(answer(chain.states, _normalised(chain.joint.sum(1).T), *chain.matrices))


def _true_step(p, name: str) -> Tensor:
    """``p(x_s | x_t)``, a row for each x_t."""
    return _normalised(p[name].joint.sum(0).T)


def _if_known(answer, p) -> Tensor:
    """``q(x_s | x_t, x0)`` for every x0 (first axis): the answer if x0 is predicted with certainty."""
    chain, certain = p["plain"], torch.eye(_STATES, dtype=torch.float64)
    guesses = [row.expand_as(certain) for row in certain]
    return torch.stack([torch.as_tensor(answer(chain.states, guess, *chain.matrices)) for guess in guesses])


B = Exercise(
    id="11.B",
    title="one step back, by Bayes",
    minutes=15,
    importance="the lesson builds on it",
    hints=(
        "Average q(x_s | x_t, k) over the guess: everything that does not depend on k can be pulled out of the sum.",
        "q(x_t | k) for all k is the column `to_t[:, x_t]`. Divide the guess by it first, where it is not 0; "
        "then one product with `to_s` adds up over k.",
        "What was pulled out is q(x_t | x_s), which multiplies the sum: a column of `s_to_t`.",
    ),
    problem=_posterior_problem,
    reference=_posterior,
    properties={
        "every row sums to one": Property(
            lambda answer, p: _with_truth(answer, p, "plain").sum(1), torch.ones(_STATES), 1e-9
        ),
        "with a guess that is certain it is Bayes' rule on the chain": Property(
            _if_known, lambda p: _normalised(p["plain"].joint.permute(0, 2, 1)), 1e-9
        ),
        "with the true p(x0 | x_t) it is the true p(x_s | x_t), counted over all triples": Property(
            _with_truth, _true_step, 1e-9, given=("plain",)
        ),
        "with a mask nothing is divided by zero": Property(_with_truth, _true_step, 1e-9, given=("masked",)),
    },
    mistakes={
        "the division by q(x_t | x0) is forgotten": Mistake(
            "D3PM's equation 4 has none, and normalising at the end does not make up for it: the guess has already "
            "seen x_t, and here x_t votes a second time. With a certain guess the two agree, which hides it.",
            ("torch.where(explains > 0, guess / explains, 0)", "guess"),
        ),
        "neither divided nor normalised": Mistake(
            "Bayes' rule has a denominator, q(x_t | x0), one for each x0. Without it rows do not even sum to one.",
            (("torch.where(explains > 0, guess / explains, 0)", "guess"), (" / p.sum(1, keepdim=True)", "")),
        ),
        "rows and columns exchanged": Mistake(
            "x_t is where the step s to t ends: its probabilities stand in a column, s_to_t[:, x_t].",
            ("s_to_t[:, x_t].T", "s_to_t[x_t]"),
        ),
        "the whole way for one step": Mistake(
            "the chance to come from x_s to x_t is the step's, s_to_t; to_t leads from the data all the way to t.",
            ("s_to_t[:, x_t]", "to_t[:, x_t]"),
        ),
        "x_t is forgotten": Mistake(
            "guess @ to_s puts new noise on the guess. It has the right distribution at time s, but is not a step from "
            "this x_t: symbols that had survived are thrown away and drawn again.",
            ("s_to_t[:, x_t].T * (weights @ to_s)", "guess @ to_s"),
        ),
        "zero divided by zero": Mistake(
            "a symbol that cannot have become x_t has q(x_t | x0) = 0; 0 / 0 is not a number. torch.where keeps it 0.",
            ("torch.where(explains > 0, guess / explains, 0)", "guess / explains"),
        ),
    },
)

# --- C: the surest first ------------------------------------------------------------------------------------------

_PLACES, _SYMBOLS, _MASK = 3, 2, 2
_HIDDEN = torch.full((_DRAWS, _PLACES), _MASK)


def _decode(denoiser, x, mask, counts, generator):
    for count in counts:
        p = denoiser(x)[..., :mask].softmax(-1)
        drawn = torch.multinomial(p.flatten(0, 1), 1, generator=generator).reshape(x.shape)
        sure = p.amax(-1).masked_fill(x != mask, -1)
        chosen = sure.topk(count, dim=1).indices
        x = x.scatter(1, chosen, drawn.gather(1, chosen))
    return x


def _decode_problem(generator):
    """A distribution of dependent places; one place is more certain than another in every context."""
    flip = 0.08 + 0.08 * torch.rand(2, generator=generator, dtype=torch.float64)
    lean = 0.62 + 0.06 * torch.rand((), generator=generator, dtype=torch.float64)
    order = torch.randperm(_PLACES, generator=generator)
    first = torch.stack([1 - lean, lean])
    second, third = (torch.stack([torch.stack([1 - one, one]), torch.stack([one, 1 - one])]) for one in flip)
    table = torch.einsum("i,ij,ik->ijk", first, second, third).permute(*order.tolist()).contiguous()
    contexts = torch.cartesian_prod(*[torch.arange(_SYMBOLS + 1)] * _PLACES)  # every context once
    denoiser = CategoricalTable(pad(table, (0, 1) * _PLACES)).denoiser(absorbing(_SYMBOLS))
    exact = denoiser(contexts, torch.tensor(0.5))[..., :_MASK].unflatten(0, (_SYMBOLS + 1,) * _PLACES)
    seed = int(torch.randint(2**31, (), generator=generator))
    return SimpleNamespace(table=table, seed=seed, chances=lambda x: exact[tuple(x.T)])


def _logits(p, x: Tensor) -> Tensor:
    """Exact predictions as logits, with a high probability for the mask, as a network might have."""
    known = p.chances(x).clamp_min(1e-12).log() - 1.7  # logits are free up to a constant
    return pad(known, (0, 1), value=-2.5)


def _decoded(answer, p, counts, start: Tensor) -> Tensor:
    return torch.as_tensor(answer(lambda x: _logits(p, x), start, _MASK, counts, torch.Generator().manual_seed(p.seed)))


def _law(answer, p, counts) -> Tensor:
    x = _decoded(answer, p, counts, _HIDDEN)
    if not (x < _MASK).all():
        return torch.full_like(p.table, float("nan"))
    index = x[:, 0] * 4 + x[:, 1] * 2 + x[:, 2]
    return index.bincount(minlength=8).reshape(p.table.shape).double() / len(x)


def _enumerated(p, counts, x: Tensor | None = None) -> Tensor:
    """The exact distribution of confidence decoding, by following every branch with its probability."""
    x = _HIDDEN[:1] if x is None else x
    law = torch.zeros_like(p.table)
    if not counts:
        law[tuple(x[0])] = 1
        return law
    chances = p.chances(x)[0]
    free = sorted((x[0] == _MASK).nonzero().flatten().tolist(), key=lambda place: -chances[place].max().item())
    for symbols in itertools.product(range(_SYMBOLS), repeat=counts[0]):
        after = x.clone()
        after[0, free[: counts[0]]] = torch.tensor(symbols)
        law = law + chances[free[: counts[0]], symbols].prod() * _enumerated(p, counts[1:], after)
    return law


def _masks_left(answer, p) -> float:
    return float((_decoded(answer, p, (1, 2), _HIDDEN[:2000]) >= _MASK).double().mean())


def _changed(answer, p) -> float:
    """The fraction of known places that have changed."""
    start = _HIDDEN[:2000].clone()
    start[:, 1] = torch.arange(2000) % _SYMBOLS
    return float((_decoded(answer, p, (1, 1), start)[:, 1] != start[:, 1]).double().mean())


C = Exercise(
    id="11.C",
    title="the surest first",
    minutes=25,
    hints=(
        "Three things a step: probabilities, a draw at every place, and the `count` masked places that keep theirs.",
        "How sure a place is: the largest of its probabilities. Known places must not be chosen: `masked_fill` them.",
        "`scatter` writes at the chosen places what `gather` reads from the draws; then ask the denoiser again.",
    ),
    problem=_decode_problem,
    reference=_decode,
    properties={
        "no mask is left": Property(_masks_left, 0.0, 1e-9, show="{:.0%} masks".format),
        "what was known stays as it was": Property(_changed, 0.0, 1e-9, show="{:.0%} changed".format),
        "one place a step gives the law of the data": Property(
            _law, lambda p, counts: p.table, 0.025, given=((1, 1, 1),)
        ),
        "the surest first, then two at once, gives the law of that order": Property(
            _law, _enumerated, 0.025, given=((1, 2),)
        ),
    },
    mistakes={
        "the mask may be drawn": Mistake(
            "the mask is one of the states that have an output, and data hold none: leave it out before the softmax.",
            ("[..., :mask]", ""),
        ),
        "normalised over the places": Mistake(
            "softmax(1) sums to one over the places. It is the symbols of one place that compete: softmax(-1).",
            ("softmax(-1)", "softmax(1)"),
        ),
        "logits taken for probabilities": Mistake(
            "logits are logarithms up to a constant. Clamped at zero they can be drawn from, and nothing complains.",
            ("softmax(-1)", "add(8).clamp_min(1e-9)"),
        ),
        "the most probable instead of a draw": Mistake(
            "argmax writes the same few sequences again and again: each place is right, and the law is gone.",
            ("torch.multinomial(p.flatten(0, 1), 1, generator=generator).reshape(x.shape)", "p.argmax(-1)"),
        ),
        "ordered by the luck of the draw": Mistake(
            "the probability of what was drawn is large where the draw was lucky. Those are kept, the others drawn "
            "again: rare symbols die out. Order by the largest probability, before any draw.",
            ("p.amax(-1)", "p.gather(-1, drawn[..., None])[..., 0]"),
        ),
        "the least sure first": Mistake(
            "topk takes the largest; else the uncertain places are guessed together, before anything is known.",
            ("p.amax(-1)", "(1 - p.amax(-1))"),
        ),
        "known places are drawn again": Mistake(
            "known places are the surest of all: without masked_fill they are chosen again and again, and masks stay.",
            (".masked_fill(x != mask, -1)", ""),
        ),
        "everything is written": Mistake(
            "a draw for every place, and all of them kept: that is one step, whatever the counts say.",
            ("x.scatter(1, chosen, drawn.gather(1, chosen))", "drawn"),
        ),
    },
)

"""Exercise C of lesson 11: decode the surest places first, judged by the law that this must give, enumerated."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.course.exercises.framework import Exercise, Mistake, Property

_PLACES, _SYMBOLS, _DRAWS = 3, 2, 8000
_MASK = _SYMBOLS


def _decode_with(
    normalise=lambda logits: logits[..., :_MASK].softmax(-1),
    draw=lambda p, generator: torch.multinomial(p.flatten(0, 1), 1, generator=generator).reshape(p.shape[:2]),
    sure=lambda p, drawn: p.amax(-1),
    taken=lambda x: x != _MASK,
    write=lambda x, chosen, drawn: x.scatter(1, chosen, drawn.gather(1, chosen)),
):
    def decode(denoiser, x, mask, counts, generator):
        for count in counts:
            p = normalise(denoiser(x))
            drawn = draw(p, generator)
            order = sure(p, drawn).masked_fill(taken(x), -1)
            x = write(x, order.topk(count, dim=1).indices, drawn)
        return x

    return decode


def _decode_stub(denoiser, x, mask, counts, generator):
    raise NotImplementedError


def _decode_problem(generator):
    """A law in which the places hang together, and one place is surer than another whatever is known."""
    flip = 0.08 + 0.08 * torch.rand(2, generator=generator, dtype=torch.float64)
    lean = 0.62 + 0.06 * torch.rand((), generator=generator, dtype=torch.float64)
    order = torch.randperm(_PLACES, generator=generator)
    table = torch.zeros(_SYMBOLS, _SYMBOLS, _SYMBOLS, dtype=torch.float64)
    for first, second, third in itertools.product(range(_SYMBOLS), repeat=_PLACES):
        chance = lean if first else 1 - lean
        chance = chance * (flip[0] if second != first else 1 - flip[0])
        table[first, second, third] = chance * (flip[1] if third != first else 1 - flip[1])
    table = table.permute(*order.tolist()).contiguous()
    return SimpleNamespace(table=table, seed=int(torch.randint(2**31, (), generator=generator)))


def _conditional(table: Tensor, known: dict[int, int]) -> Tensor:
    """``p(place = symbol | known)`` for all places: (places, symbols)."""
    kept = table
    for place, symbol in known.items():
        only = torch.zeros(_SYMBOLS, dtype=torch.float64)
        only[symbol] = 1
        kept = kept * only.reshape([-1 if i == place else 1 for i in range(_PLACES)])
    rows = [kept.sum([j for j in range(_PLACES) if j != i]) for i in range(_PLACES)]
    return torch.stack(rows) / kept.sum()


def _network(p):
    """The exact answers as logits, with a mask among the symbols that it half believes in, as networks do."""
    contexts = list(itertools.product(range(_SYMBOLS + 1), repeat=_PLACES))
    answers = [_conditional(p.table, {i: s for i, s in enumerate(one) if s != _MASK}) for one in contexts]
    known = torch.stack(answers).clamp_min(1e-12).log() - 1.7  # logits are free up to a constant
    logits = torch.cat([known, torch.full((len(contexts), _PLACES, 1), -2.5, dtype=torch.float64)], 2)

    def denoiser(x: Tensor) -> Tensor:
        index = torch.zeros(len(x), dtype=torch.int64)
        for place in range(_PLACES):
            index = index * (_SYMBOLS + 1) + x[:, place]
        return logits[index]

    return denoiser


def _decoded(answer, p, counts, start=None) -> Tensor:
    x = torch.full((_DRAWS, _PLACES), _MASK) if start is None else start
    return torch.as_tensor(answer(_network(p), x, _MASK, counts, torch.Generator().manual_seed(p.seed)))


def _frequencies(answer, p, counts) -> Tensor:
    x = _decoded(answer, p, counts)
    if not (x < _MASK).all():
        return torch.full_like(p.table, float("nan"))
    index = x[:, 0] * 4 + x[:, 1] * 2 + x[:, 2]
    return index.bincount(minlength=8).reshape(p.table.shape).double() / len(x)


def _enumerated(p, counts, known: dict[int, int] | None = None) -> Tensor:
    """The law of decoding the surest first, by following every branch with its probability."""
    known = known or {}
    law = torch.zeros_like(p.table)
    if not counts:
        law[tuple(known[i] for i in range(_PLACES))] = 1
        return law
    chances = _conditional(p.table, known)
    free = sorted((i for i in range(_PLACES) if i not in known), key=lambda i: -chances[i].max().item())
    chosen = free[: counts[0]]
    for symbols in itertools.product(range(_SYMBOLS), repeat=len(chosen)):
        chance = torch.stack([chances[i, s] for i, s in zip(chosen, symbols, strict=True)]).prod()
        law = law + chance * _enumerated(p, counts[1:], known | dict(zip(chosen, symbols, strict=True)))
    return law


def _masks_left(answer, p) -> float:
    start = torch.full((2000, _PLACES), _MASK)
    return float((_decoded(answer, p, (1, 2), start) >= _MASK).double().mean())


def _given(answer, p) -> float:
    """How often a place that was known before has changed."""
    start = torch.full((2000, _PLACES), _MASK)
    start[:, 1] = torch.arange(2000) % _SYMBOLS
    return float((_decoded(answer, p, (1, 1), start)[:, 1] != start[:, 1]).double().mean())


C = Exercise(
    id="11.C",
    title="the surest first",
    difficulty="independent",
    minutes=25,
    hints=(
        "Three things a step: probabilities of the symbols at every place, one draw for every place, and which "
        "`count` of the masked places keep theirs.",
        "How sure a place is: the largest of its probabilities. Places that are known already must not be chosen: "
        "masked_fill them with -1 before topk.",
        "Write the chosen draws by x.scatter(1, chosen, drawn.gather(1, chosen)), and ask the denoiser again.",
    ),
    problem=_decode_problem,
    properties=(
        Property(
            "no mask is left",
            _masks_left,
            lambda p: 0.0,
            1e-9,
            show=lambda share: f"{100 * share:.0f} % masks",
        ),
        Property(
            "what was known stays as it was",
            _given,
            lambda p: 0.0,
            1e-9,
            show=lambda share: f"{100 * share:.0f} % changed",
        ),
        Property(
            "one place a step gives the law of the data",
            lambda answer, p: _frequencies(answer, p, (1, 1, 1)),
            lambda p: p.table,
            0.025,
        ),
        Property(
            "the surest first, then two at once, gives the law of that order",
            lambda answer, p: _frequencies(answer, p, (1, 2)),
            lambda p: _enumerated(p, (1, 2)),
            0.025,
        ),
    ),
    mistakes=(
        Mistake(
            "the mask may be drawn",
            "the network has an output for every state, and the mask is one. Data hold no mask: leave it out "
            "before the softmax.",
            _decode_with(normalise=lambda logits: logits.softmax(-1)),
        ),
        Mistake(
            "normalised over the places",
            "softmax(1) makes each symbol's chances sum to one over the places. It is the symbols of one place that "
            "compete: softmax(-1).",
            _decode_with(normalise=lambda logits: logits[..., :_MASK].softmax(1)),
        ),
        Mistake(
            "logits taken for probabilities",
            "logits are logarithms up to a constant. Clamped at zero they can be drawn from, and nothing complains.",
            _decode_with(normalise=lambda logits: (logits[..., :_MASK] + 8).clamp_min(1e-9)),
        ),
        Mistake(
            "the most probable instead of a draw",
            "argmax writes the same few sequences again and again: each place is right, and the law is gone.",
            _decode_with(draw=lambda p, generator: p.argmax(-1)),
        ),
        Mistake(
            "ordered by the luck of the draw",
            "the probability of what was drawn is large where the draw was lucky. Those are kept, the others drawn "
            "again: rare symbols die out. Order by the largest probability, before any draw.",
            _decode_with(sure=lambda p, drawn: p.gather(-1, drawn[..., None])[..., 0]),
        ),
        Mistake(
            "the least sure first",
            "topk takes the largest; with smallest-first the uncertain places are guessed together, before anything "
            "is known that could help them.",
            _decode_with(sure=lambda p, drawn: 1 - p.amax(-1)),
        ),
        Mistake(
            "known places are drawn again",
            "without masked_fill the places that are known are the surest of all: they are chosen again and again, "
            "and masks stay.",
            _decode_with(taken=lambda x: torch.zeros_like(x, dtype=torch.bool)),
        ),
        Mistake(
            "everything is written",
            "a draw for every place, and all of them kept: that is one step, whatever the counts say.",
            _decode_with(write=lambda x, chosen, drawn: drawn),
        ),
    ),
    reference=_decode_with(),
    stub=_decode_stub,
)

"""The transformer: shapes, gradients, who sees whom, cost, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from survey_lib.lab.evaluation.cost import CountCalls, macs
from survey_lib.nets.layers import initialised
from survey_lib.nets.transformer import Layer, Transformer
from tests.support import draw, generator, nonzero


def make(*args, **config) -> Transformer:
    return initialised(0, lambda: Transformer(*args, **{"width": 16, "layers": 2, "heads": 2, **config}))


def tokens(*shape: int, high: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randint(high, shape, generator=generator(seed))


@pytest.mark.parametrize("config", [{}, {"classes": 3}, {"causal": True}, {"causal": True, "classes": 3}], ids=str)
def test_answers_with_logits_and_moves_every_parameter(config) -> None:
    net, x = make(5, 4, 7, **config), tokens(3, 7, high=4)
    noise = None if net.causal else torch.linspace(-1, 1, 3)
    cond = torch.arange(3) if net.classes else None
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(3):  # what starts at zero wakes from the output inwards
        logits = net(x, noise, cond)
        assert logits.shape == (3, 7, 4)
        optimizer.zero_grad()
        F.cross_entropy(logits.movedim(-1, 1), x).backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        lonely = "film.weight" in name and net.causal and not net.classes  # nothing to scale by: no noise, no label
        assert lonely or (parameter.grad.isfinite().all() and parameter.grad.any()), name


def test_a_new_network_prefers_nothing() -> None:
    assert not make(5, 4, 7)(tokens(2, 7), torch.zeros(2)).any()


def test_everybody_sees_everybody() -> None:
    net, x = nonzero(make, 5, 4, 6), tokens(1, 6)
    before = net(x, torch.zeros(1))
    x[0, 5] = (x[0, 5] + 1) % 5
    assert ((net(x, torch.zeros(1)) - before).abs().amax(-1) > 0).all()


@pytest.mark.parametrize("place", range(6))
def test_causal_means_from_what_came_before(place: int) -> None:
    net, x = nonzero(make, 5, 4, 6, causal=True), tokens(2, 6)
    before = net(x, None)
    x[:, place] = (x[:, place] + 1) % 5
    changed = ((net(x, None) - before).abs().amax(-1) > 1e-6)[0]
    assert changed.tolist() == [other > place for other in range(6)]


def test_places_noise_and_label_matter_and_examples_do_not_mix() -> None:
    net, x = nonzero(make, 5, 4, 6, classes=3), tokens(3, 6)
    noise, cond = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0, 1, 3])
    together = net(x, noise, cond)
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], noise[i : i + 1], cond[i : i + 1]), together[i : i + 1])
    assert (net(x, noise + 0.5, cond) - together).abs().max() > 1e-3
    assert (net(x, noise, torch.tensor([1, 2, 0])) - together).abs().max() > 1e-3
    assert net(x, noise).equal(net(x, noise, torch.tensor([3, 3, 3]))), "no label is the last row"
    same = torch.zeros(1, 6, dtype=torch.long)
    assert net(same, torch.zeros(1))[0].unique(dim=0).shape[0] == 6, "equal tokens at different places differ"


def test_overfits_one_batch_one_after_another() -> None:
    net, x = make(5, 5, 8, causal=True, classes=4, width=32), tokens(4, 8)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x, None, torch.arange(4)).movedim(-1, 1), x)
        loss.backward()
        optimizer.step()
    assert loss < 0.05


@pytest.mark.parametrize("causal", [False, True])
def test_cost_is_that_of_its_layers(causal: bool) -> None:
    width, layers, length, outputs = 16, 3, 6, 4
    net = make(5, outputs, length, width=width, layers=layers, causal=causal)
    noise = None if causal else torch.zeros(1)
    token = 4 * width**2 + 2 * length * width + 8 * width**2  # projections, attention, the wide layer
    once = layers * 4 * width**2 + (0 if causal else 2 * 16 * width + width**2)  # film; the noise level
    assert macs(net, tokens(1, length), noise) == length * (layers * token + width * outputs) + once


def test_a_layer_without_film_agrees_with_torch() -> None:
    ours, h = nonzero(Layer, 16, 4, film=False), draw(3, 7, 16)
    theirs = torch.nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    pairs = ((theirs.self_attn.out_proj, ours.out), (theirs.linear1, ours.wide), (theirs.linear2, ours.narrow))
    for other, own in (*pairs, (theirs.norm1, ours.norms[0]), (theirs.norm2, ours.norms[1])):
        other.load_state_dict(own.state_dict())
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(ours.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.qkv.bias)
    torch.testing.assert_close(ours(h), theirs(h), rtol=0, atol=1e-5)


def test_bad_input_gets_one_clear_sentence() -> None:
    plain, causal = make(5, 4, 6), make(5, 4, 6, causal=True)
    for call, words in (
        (lambda: plain(tokens(2, 5), torch.zeros(2)), r"integers \(B, 6\); got torch.int64 \(2, 5\)"),
        (lambda: plain(torch.zeros(2, 6), torch.zeros(2)), "got torch.float32"),
        (lambda: plain(tokens(2, 6), None), "for any other"),
        (lambda: causal(tokens(2, 6), torch.zeros(2)), "must be None for a causal"),
        (lambda: plain(tokens(2, 6), torch.zeros(2), torch.zeros(2).long()), "built without classes"),
        (lambda: make(5, 4, 6, width=16, heads=3), "does not divide into 3 heads"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("classes", [None, 3])
def test_a_cache_of_keys_and_values_changes_the_work_and_not_the_answer(classes: int | None) -> None:
    net, x = nonzero(make, 5, 4, 6, causal=True, classes=classes), tokens(2, 6) % 4
    cond = None if classes is None else torch.tensor([0, 2])
    whole, counted = net(x, None, cond), CountCalls(net)
    before, cache = torch.full((2,), net.states), ()
    for place in range(6):
        logits, cache = counted(before, None, cond, cache)
        torch.testing.assert_close(logits, whole[:, place])
        before = x[:, place]
    once, width, layers = macs(net, x[:1], None, None if cond is None else cond[:1]), 16, 2
    later = 2 * width * (6 * 6 - 6 * 7 // 2)  # products with tokens that are masked
    again = 5 * 4 * width**2  # the embedding's scales and shifts, at each call
    assert counted.calls == 6 and counted.macs == 2 * (once + layers * (again - later))
    for wrong in ((make(5, 4, 6), before), (net, x)):
        with pytest.raises(ValueError, match="a cache goes with a causal transformer and the token before"):
            wrong[0](wrong[1], None, cond, ())

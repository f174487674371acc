"""Attention to a context, and the U-Net that reads captions."""

from __future__ import annotations

import pytest
import torch

from survey_lib.lab.evaluation.cost import macs
from survey_lib.nets.captioned import CaptionedUNet, CaptionEncoder
from survey_lib.nets.layers import CrossAttention, initialised
from survey_lib.nets.unet import UNet
from tests.support import draw, generator, nonzero

SMALL = {"channels": 4, "widths": (16, 32), "patch": 1, "attention": (1,)}


def captioned() -> CaptionedUNet:
    return nonzero(CaptionedUNet, 24, 19, width=16, **SMALL)


def words(*shape: int) -> torch.Tensor:
    return torch.randint(24, shape, generator=generator())


# ---------------------------------------------------------------------- attention


def test_weights_are_the_attention_of_each_place_to_each_token():
    net, x, context = nonzero(CrossAttention, 64, 8), draw(2, 64, 3, 4), draw(2, 5, 8, seed=1)
    weights = net.weights(x, context)
    assert weights.shape == (2, 2, 12, 5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 12))
    # With the values of one token alone, the output is that token's weight.
    value = net.value(context).reshape(2, 5, 2, 32)
    mixed = torch.einsum("bhpl,blhc->bphc", weights, value).reshape(2, 3, 4, 64).movedim(-1, 1)
    assert torch.allclose(net(x, context), x + net.out(mixed), atol=1e-5)


def test_the_order_of_the_tokens_does_not_matter_and_a_lone_token_is_all():
    net, x, context = nonzero(CrossAttention, 32, 8), draw(2, 32, 4, 4), draw(2, 5, 8, seed=1)
    assert torch.allclose(net(x, context), net(x, context.flip(1)), atol=1e-5)
    assert torch.equal(net.weights(x, context[:, :1]), torch.ones(2, 1, 16, 1))


def test_places_tell_apart_what_looks_alike():
    net, context = nonzero(CrossAttention, 32, 8), draw(1, 5, 8)
    weights = net.weights(torch.zeros(1, 32, 4, 4), context)[0, 0]
    assert (weights[:, None] - weights).abs().amax(-1)[~torch.eye(16, dtype=torch.bool)].min() > 1e-5


def test_agrees_with_diffusers_where_places_are_switched_off():
    attention = pytest.importorskip("diffusers.models.attention_processor")
    ours = nonzero(CrossAttention, 64, 24)
    theirs = attention.Attention(
        64, cross_attention_dim=24, heads=2, dim_head=32, norm_num_groups=1, residual_connection=True, bias=True
    )
    with torch.no_grad():
        for parameter in ours.place.parameters():
            parameter.zero_()
        pairs = ((theirs.to_q, ours.query), (theirs.to_out[0], ours.out))
        for linear, convolution in pairs:
            linear.weight.copy_(convolution.weight[:, :, 0, 0])
            linear.bias.copy_(convolution.bias)
        for linear, own in ((theirs.to_k, ours.key), (theirs.to_v, ours.value)):
            linear.weight.copy_(own.weight)
            linear.bias.zero_()
        theirs.group_norm.load_state_dict(ours.norm.state_dict())
        x, context = draw(3, 64, 4, 4), draw(3, 7, 24, seed=1)
        expected = theirs(x, encoder_hidden_states=context)
    assert torch.allclose(ours(x, context), expected, atol=1e-5)


def test_refuses_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="do not divide"):
        CrossAttention(65, 8)


# ---------------------------------------------------------------------- the U-Net with a context


def test_a_unet_attends_to_its_context_where_it_has_attention():
    net, x, c_noise = nonzero(UNet, context=8, **SMALL), draw(2, 4, 8, 8), torch.zeros(2)
    context = draw(2, 5, 8)
    assert (net(x, c_noise, context) - net(x, c_noise)).abs().max() > 1e-3
    attending = {name for name, module in net.named_modules() if isinstance(module, CrossAttention)}
    assert attending == {"down.1.0.2", "middle.0.2", "up.0.0.2"}


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 5, 8), (2, 8)])
def test_a_context_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"cond must be tokens \(2, L, 8\)"):
        nonzero(UNet, context=8, **SMALL)(draw(2, 4, 8, 8), torch.zeros(2), draw(*shape))


def test_a_context_adds_layers_and_changes_no_other():
    """Shipped weights of U-Nets without a context keep their names and shapes."""
    shapes = [{key: p.shape for key, p in UNet(**SMALL, context=c).state_dict().items()} for c in (None, 8)]
    added = shapes[1].keys() - shapes[0].keys()
    assert shapes[0].items() <= shapes[1].items()
    assert {key.rpartition(".2.")[0] for key in added} == {"down.1.0", "middle.0", "up.0.0"}


def test_a_new_network_ignores_its_context():
    """The zero-initialised output of attention: a new network begins as the one without words."""
    net, x = initialised(0, lambda: UNet(**SMALL, context=8)), draw(2, 4, 8, 8)
    torch.nn.init.normal_(net.leave.weight, generator=generator())
    assert net(x, torch.zeros(2)).any()
    assert torch.equal(net(x, torch.zeros(2)), net(x, torch.zeros(2), draw(2, 5, 8)))


@pytest.mark.parametrize("other", [{"classes": 3}, {"cond_channels": 1}])
def test_a_context_and_another_condition_are_refused(other):
    with pytest.raises(ValueError, match="not by several"):
        UNet(**SMALL, context=8, **other)


def test_a_context_without_attention_is_refused():
    with pytest.raises(ValueError, match="context needs levels with attention"):
        UNet(4, context=8)


# ---------------------------------------------------------------------- captions


def test_none_is_the_empty_caption():
    net, x, c_noise = captioned(), draw(2, 4, 8, 8), torch.zeros(2)
    assert torch.equal(net(x, c_noise), net(x, c_noise, torch.zeros(2, 19, dtype=torch.int64)))
    assert (net(x, c_noise, words(2, 19)) - net(x, c_noise)).abs().max() > 1e-3


def test_the_order_of_words_matters():
    encoder = nonzero(CaptionEncoder, 24, 19, width=16)
    tokens = words(3, 19)
    assert (encoder(tokens).flip(1) - encoder(tokens.flip(1))).abs().max() > 1e-2


def test_every_word_sees_every_word():
    encoder, tokens = nonzero(CaptionEncoder, 24, 6, width=16, layers=1), words(1, 6)
    before = encoder(tokens)
    for place in range(6):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 24
        assert ((encoder(changed) - before).abs().amax(-1) > 1e-6).all()


def test_captions_of_a_batch_do_not_mix():
    net, x, tokens = captioned(), draw(3, 4, 8, 8), words(3, 19)
    together = net(x, torch.zeros(3), tokens)
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], torch.zeros(1), tokens[i : i + 1]), together[i : i + 1])


def test_overfits_one_batch_of_captions():
    """Four patterns, each asked for by the order of the same words at full noise."""
    net = initialised(0, lambda: CaptionedUNet(6, 5, width=16, **{**SMALL, "channels": 1}))
    wanted, noise = draw(4, 1, 8, 8).sign(), draw(1, 1, 8, 8, seed=1).expand(4, -1, -1, -1)
    tokens = torch.tensor([[1, 2, 3, 4, 0], [2, 1, 3, 4, 0], [1, 2, 4, 3, 0], [4, 3, 2, 1, 0]])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (net(noise, torch.ones(4), tokens) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_is_made_again_from_its_config():
    net = captioned()
    again = CaptionedUNet(**net.config)
    again.load_state_dict(net.state_dict())
    x, tokens = draw(1, 4, 8, 8), words(1, 19)
    assert torch.equal(net(x, torch.zeros(1), tokens), again(x, torch.zeros(1), tokens))


def test_every_parameter_gets_a_gradient():
    net = captioned()
    net(draw(2, 4, 8, 8), torch.rand(2, generator=generator()), words(2, 19)).square().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_attention_costs_what_a_hand_count_says():
    channels, places, tokens, size = 32, 16, 5, 8
    net, x, context = CrossAttention(channels, size), torch.zeros(1, channels, 4, 4), torch.zeros(1, tokens, size)
    expected = 2 * places * channels**2 + 12 * places * channels + 2 * tokens * size * channels
    assert macs(net, x, context) == expected + 2 * places * tokens * channels


def test_the_encoder_costs_what_a_hand_count_says():
    width, length, layers = 16, 6, 3
    encoder = CaptionEncoder(24, length, width=width, layers=layers)
    token = 4 * width**2 + 2 * length * width + 8 * width**2  # projections, attention, the wide layer
    assert macs(encoder, words(2, length)) == 2 * layers * length * token


@pytest.mark.parametrize("tokens", [torch.zeros(1, 18, dtype=torch.int64), torch.zeros(1, 19), torch.zeros(19).long()])
def test_refuses_what_is_not_a_caption(tokens):
    with pytest.raises(ValueError, match=r"captions are integers \(B, 19\)"):
        captioned()(draw(1, 4, 8, 8), torch.zeros(1), tokens)

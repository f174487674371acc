"""The autoencoder: shapes, codes that live, gradients that pass straight through, cost, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from survey_lib.lab.evaluation.cost import macs
from survey_lib.nets.autoencoder import Autoencoder, Codebook, KLAutoencoder, gaussian_kl
from survey_lib.nets.layers import initialised
from tests.support import draw, generator


def make(**config) -> Autoencoder:
    return initialised(0, lambda: Autoencoder(**config))


@pytest.mark.parametrize(
    ("config", "size", "map_size"),
    [
        (dict(channels=1, width=8), 28, 7),
        (dict(channels=3, width=8, codes=16), 32, 8),
        (dict(channels=1, width=8, halvings=1), 16, 8),
        (dict(channels=3, width=4, halvings=3, dims=2), 32, 4),
        (dict(channels=3, width=8, codes=None), 32, 8),
    ],
)
def test_there_and_back_keeps_the_shape(config, size: int, map_size: int) -> None:
    net = make(**config)
    x = draw(2, config["channels"], size, size)
    z = net.encode(x)
    assert z.shape == (2, config.get("dims", 8), map_size, map_size)
    assert net.decode(z).shape == net(x).shape == x.shape
    if config.get("codes", 64):
        tokens = net.tokens(x)
        assert tokens.shape == (2, map_size**2) and tokens.dtype == torch.int64
        torch.testing.assert_close(net.decode_tokens(tokens), net(x))


def test_rectangles_are_images_too() -> None:
    net, x = make(channels=1, width=8), draw(1, 1, 8, 16)
    torch.testing.assert_close(net.decode_tokens(net.tokens(x), (2, 4)), net(x))


def test_the_nearest_code_is_found() -> None:
    book = Codebook(5, 3)
    book.vectors.copy_(draw(5, 3))
    z = draw(4, 7, 3, seed=1)
    distances = (z.unsqueeze(-2) - book.vectors).square().sum(-1)
    assert torch.equal(book.nearest(z), distances.argmin(-1))


def test_codes_become_the_means_of_what_chooses_them() -> None:
    """Three clusters and a code near each: it ends in the cluster's mean, and says how many live there."""
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    book = Codebook(3, 2)
    book.vectors.copy_(centres + 2)
    book.usage.fill_(33)
    for step in range(400):
        members = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
        z = centres[members] + 0.1 * draw(100, 2, seed=step)
        book.learn(z, book.nearest(z), generator=generator(step))
    order = book.nearest(centres)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(book.vectors[order], centres, atol=0.1, rtol=0)
    torch.testing.assert_close(book.usage[order], torch.tensor([50.0, 30, 20]), atol=3, rtol=0)


def test_a_code_that_nobody_chooses_is_revived_where_latents_are() -> None:
    book, z = Codebook(2, 2), draw(64, 2)
    book.vectors.copy_(torch.tensor([[0.0, 0], [100, 100]]))
    book.usage.fill_(32)
    for step in range(600):
        book.learn(z, torch.zeros(64, dtype=torch.long), generator=generator(step))
        if book.vectors[1].norm() < 10:
            break
    assert 300 < step < 600, "it had a fair chance first"
    assert (z == book.vectors[1]).all(1).any()


def test_gradients_pass_straight_through_to_every_weight() -> None:
    net, x = make(channels=1, width=8, codes=16), draw(4, 1, 8, 8)
    net.codebook.vectors.copy_(draw(16, 8))
    z = net.encode(x).detach().requires_grad_()
    code, index = net.quantise(z)
    torch.testing.assert_close(code.movedim(1, -1), net.codebook.vectors[index])
    (3 * code).sum().backward()
    assert torch.equal(z.grad, torch.full_like(z, 3.0))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(2):  # the blocks' last layers begin at zero
        optimizer.zero_grad()
        (net(x) - x).square().mean().backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_learns_four_pictures_by_heart_with_four_codes_a_place() -> None:
    net, x = make(channels=1, width=16, codes=16, halvings=1), draw(4, 1, 4, 4).sign()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(150):
        z = net.encode(x)
        code, index = net.quantise(z)
        loss = (net.decode(code) - x).square().mean() + 0.25 * (z - code.detach()).square().mean()
        net.codebook.learn(z.detach().movedim(1, -1), index, generator=generator(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert (net(x) - x).square().mean() < 0.1


def test_cost_is_that_of_its_layers() -> None:
    def conv(inputs: int, outputs: int, side: int, kernel: int = 3) -> int:
        return inputs * outputs * kernel**2 * side**2

    net, x = make(channels=3, width=8, dims=4, codes=None), draw(1, 3, 32, 32)
    block = [2 * conv(8, 8, 16), 2 * conv(16, 16, 8)]
    down = conv(12, 8, 16) + block[0] + conv(8, 16, 8) + block[1] + conv(16, 4, 8, 1)
    up = conv(4, 16, 8) + block[1] + conv(16, 8, 16) + block[0] + conv(8, 12, 16)
    assert macs(net.encode, x) == down
    assert macs(net.decode, net.encode(x)) == up


def test_bad_input_gets_one_clear_sentence() -> None:
    net = make(channels=1, width=8)
    for call, words in (
        (lambda: net.encode(draw(1, 3, 28, 28)), r"takes images \(B, 1, H, W\)"),
        (lambda: net.encode(draw(1, 1, 27, 28)), "multiples of 4"),
        (lambda: net.decode_tokens(torch.zeros(1, 50, dtype=torch.long)), "50 tokens do not fill a map of 7 x 7"),
        (lambda: make(channels=1, codes=None).tokens(draw(1, 1, 8, 8)), "no codebook"),
        (lambda: Autoencoder(1, halvings=0), "at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


# ---------------------------------------------------------------------- with a Gaussian posterior


def kl_autoencoder(**config):
    return initialised(0, lambda: KLAutoencoder(width=8, **config))


def test_normalised_latents_have_the_scale_of_the_course_in_every_channel():
    net, x = kl_autoencoder(halvings=2, dims=4), draw(64, 3, 32, 32)
    z = net.posterior(x)[0].detach()
    for _ in range(1500):  # the moving averages reach the batch's own mean and deviation
        net.follow(z)
    normalised = net.encode(x).detach()
    assert normalised.mean((0, 2, 3)).abs().max() < 1e-3
    assert (normalised.std((0, 2, 3)) - net.SCALE).abs().max() < 1e-3
    assert torch.allclose(net.decode(normalised), net.decoder(z), atol=1e-4)


@pytest.mark.parametrize(("halvings", "dims"), [(1, 3), (2, 4), (3, 16)])
def test_latents_of_each_factor(halvings, dims):
    net = kl_autoencoder(halvings=halvings, dims=dims)
    x = torch.zeros(2, 3, 32, 32)
    mean, log_variance = net.posterior(x)
    assert mean.shape == log_variance.shape == net.encode(x).shape == (2, dims, 32 >> halvings, 32 >> halvings)
    assert net(x).shape == x.shape


def test_the_divergence_is_that_of_torch():
    mean, log_variance = draw(2, 5, 4, 3, 3)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    assert torch.allclose(gaussian_kl(mean, log_variance), theirs.flatten(1).mean(1), atol=1e-6)


def test_the_posterior_is_that_of_diffusers():
    vae = pytest.importorskip("diffusers.models.autoencoders.vae")
    net, x = kl_autoencoder(halvings=2, dims=4), draw(3, 3, 16, 16)
    theirs = vae.DiagonalGaussianDistribution(net.encoder(x))
    mean, log_variance = net.posterior(x)
    assert torch.allclose(mean, theirs.mean, atol=1e-5)
    assert torch.allclose((0.5 * log_variance).exp(), theirs.std, atol=1e-5)
    latents = mean[0].numel()
    assert torch.allclose(gaussian_kl(mean, log_variance) * latents, theirs.kl(), rtol=1e-5)

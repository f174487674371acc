"""Autoencoder of two scales, and U-Nets for all scales of a pyramid."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from survey_lib.nets.pyramid import PyramidAutoencoder, PyramidUNet, SeparateUNets
from tests.support import draw, generator, nonzero

SMALL = {"dims": 2, "widths": (8, 16), "patch": 1, "cond_channels": 3}
TEXT = {"dims": 2, "text": {"words": 9, "length": 5, "width": 8}, "widths": (8, 16), "patch": 1, "attention": (1,)}


def trained_codes(width: int = 8, codes: int = 16) -> PyramidAutoencoder:
    """An autoencoder whose codes are latents of some images."""
    net = nonzero(PyramidAutoencoder, 3, width=width, dims=2, codes=codes).eval()
    with torch.no_grad():
        for scale, z in enumerate(net.latents(draw(4, 3, 16, 16, seed=5))):
            rows = z.movedim(1, -1).flatten(0, 2)
            for seed in range(30):
                net.books[scale].learn(rows, net.books[scale].nearest(rows), generator=generator(seed))
    return net


def test_the_scales_are_an_eighth_and_a_quarter():
    net = trained_codes()
    coarse, fine = net.encode(draw(3, 3, 16, 24))
    assert coarse.shape == (3, 2, 2, 3) and fine.shape == (3, 2, 4, 6)
    assert net(draw(3, 3, 16, 24)).shape == (3, 3, 16, 24)
    with pytest.raises(ValueError, match="8"):
        net.encode(draw(3, 3, 12, 16))


def test_decoding_what_was_encoded_is_the_autoencoder():
    net, x = trained_codes(), draw(2, 3, 16, 16)
    assert torch.allclose(net.decode(*net.encode(x)), net(x), atol=1e-5)
    coarse, fine = net.encode(x)
    snapped = net.snap(coarse, 0), net.snap(fine, 1)
    assert torch.allclose(net.decode(*snapped), net(x), atol=1e-5)
    assert torch.allclose(net.snap(snapped[0], 0), snapped[0], atol=1e-6)


def test_codes_are_nearest_and_normalised():
    net, x = trained_codes(), draw(2, 3, 16, 16)
    for scale, z in enumerate(net.latents(x)):
        code, index = net.nearest(z, scale)
        away = (z.movedim(1, -1)[..., None, :] - net.books[scale].vectors).square().sum(-1)
        assert torch.equal(index, away.argmin(-1))
        assert torch.allclose(code.movedim(1, -1), net.books[scale].vectors[index])
    for scale, book in enumerate(net.books):
        mean, std = net._units(scale)
        rows = book.vectors.repeat_interleave((100 * book.usage).round().long(), 0)
        assert torch.allclose(mean[:, 0, 0], rows.mean(0), atol=0.02)
        assert torch.allclose(std[:, 0, 0], rows.std(0), rtol=0.05)


def test_without_fine_codes_the_coarse_ones_decide():
    net, x = trained_codes(), draw(2, 3, 16, 16)
    coarse, fine = net.encode(x)
    alone = net.decode(coarse)
    assert torch.allclose(alone[:1], net.decode(coarse[:1]), atol=1e-5)
    assert not torch.allclose(alone, net.decode(coarse, fine))


@pytest.mark.parametrize("kind", [PyramidUNet, SeparateUNets])
def test_one_network_takes_every_scale(kind):
    net = nonzero(kind, **SMALL).eval()
    boxes, coarse = draw(3, 3, 8, 8, seed=2), draw(3, 2, 4, 4, seed=3)
    assert net(coarse, draw(3), (0, None, boxes)).shape == coarse.shape
    fine = draw(3, 2, 8, 8, seed=4)
    told = net(fine, draw(3), (1, coarse, boxes))
    assert told.shape == fine.shape
    for other in ((0, coarse, boxes), (1, -coarse, boxes), (1, coarse, 0 * boxes)):
        assert not torch.allclose(net(fine, draw(3), other), told), "scale, plan and condition all matter"
    assert torch.equal(net(fine, draw(3), (1, coarse, None)), net(fine, draw(3), (1, coarse, 0 * boxes)))


def test_the_first_scale_sees_zeros_and_a_condition_of_its_size():
    net, coarse, boxes = nonzero(PyramidUNet, **SMALL).eval(), draw(2, 2, 4, 4), draw(2, 3, 8, 8, seed=2)
    told = net(coarse, draw(2), (0, None, boxes))
    assert torch.equal(told, net(coarse, draw(2), (0, torch.zeros(2, 2, 2, 2), F.avg_pool2d(boxes, 2))))


def test_captions_are_read_at_every_scale():
    net, words = nonzero(PyramidUNet, **TEXT).eval(), torch.tensor([[1, 2, 3, 0, 0]])
    x, coarse = draw(1, 2, 8, 8), draw(1, 2, 4, 4, seed=1)
    for cond in ((0, None), (1, coarse)):
        part = x if cond[0] else coarse
        assert not torch.allclose(net(part, draw(1), (*cond, words)), net(part, draw(1), (*cond, 0 * words)))


def test_separate_networks_share_nothing():
    net = nonzero(SeparateUNets, **SMALL)
    net(draw(2, 2, 4, 4), draw(2), (0, None, None)).sum().backward()
    used = [any(p.grad is not None for p in one.parameters()) for one in net.nets]
    assert used == [True, False]
    assert sum(p.numel() for p in net.parameters()) == 2 * sum(p.numel() for p in PyramidUNet(**SMALL).parameters())

"""The trainings of lesson 11: each kind trains, samples and is saved; what is shipped is what the code would make."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from survey_lib.lab.data import quantised
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.training import checkpoints, recipes, trainings
from survey_lib.nets.classifier import Classifier


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Sixty random pictures for every data set, a batch of four, few samples for the scores."""
    images = torch.randint(256, (60, 1, 28, 28), generator=generator(), dtype=torch.uint8)
    made = ImageSet("mnist", images, torch.arange(60) % 3, ("a", "b", "c"))
    monkeypatch.setattr(trainings.data, "load", lambda name, split="train", count=None: made)  # levels' too
    plan_of, level_plan = trainings.plan_of, trainings.level_plan
    monkeypatch.setattr(trainings, "plan_of", lambda name: replace(plan_of(name), batch=4))
    monkeypatch.setattr(trainings, "level_plan", lambda kind, seed: replace(level_plan(kind, seed), batch=4))
    monkeypatch.setattr(trainings, "COUNT", 12)
    monkeypatch.setattr(recipes, "HOME", tmp_path)
    eye = Classifier(1, dims=4, widths=(4,)).eval()
    for role in ("features", "features2"):
        checkpoints.save(f"mnist_{role}", eye, {}, root=tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", trainings.KINDS)
def test_every_kind_is_trained_and_sampled_by_the_same_two_calls(kind, small, monkeypatch) -> None:
    run, again = (trainings.discrete_run("mnist", kind, 0, steps=2) for _ in range(2))
    other = trainings.discrete_run("mnist", kind, 1, steps=2)
    weights = [torch.cat([p.flatten() for p in one.net.parameters()]) for one in (run, again, other)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
    seen = []
    x = run.sample(3, 4, generator=generator(), callback=lambda x, t, x0: seen.append(float(t)))
    assert x.shape == (3, 1, 16, 16) and x.dtype == torch.int64 and x.min() >= 0 and x.max() < quantised.LEVELS
    assert len(seen) == 4 and seen == sorted(seen, reverse=True)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r'kind is "gausian" \(did you mean "gaussian"\?\); accepted: uniform, absorb'):
        trainings.discrete_run("mnist", "gausian", 0)


def test_kinds_differ_where_they_should() -> None:
    plans = {kind: trainings.level_plan(kind, 3) for kind in trainings.KINDS}
    assert {kind for kind, plan in plans.items() if plan.auxiliary == 0} == {"gaussian_plain"}
    assert {replace(plan, auxiliary=0.01) for plan in plans.values()} == {plans["uniform"]}


def test_a_shipped_training_makes_whole_checkpoints_one_after_another(small) -> None:
    """Levels, then codes, then tokens that need the codes: saved, loaded again, sampled."""
    for role in ("levels_absorbing", "levels_bits", "codes", "codes_absorbing", "codes_replace", "codes_causal"):
        path = trainings.train(f"mnist_{role}", steps=2, root=small, progress=False)
        about = checkpoints.manifest(path.stem, root=small)
        assert about["recipe"] == asdict(replace(trainings.plan_of(path.stem), steps=2))
        for key in ("dataset", "images_sha256", "seed", "minutes", "device", "torch", "scores", "parameters"):
            assert about[key] not in (None, "", {}), key
    for kind in ("absorbing", "bits"):
        assert trainings.trained("mnist", kind, root=small).sample(2, 2, generator=generator()).shape == (2, 1, 16, 16)
    codes = trainings.tokenizer("mnist", root=small)
    for kind in ("replace", "absorbing"):
        denoiser = trainings.token_denoiser("mnist", kind, root=small)
        x = denoiser.corruption.prior((2, 49), generator=generator())
        drawn = denoiser(x, torch.tensor(0.9), torch.tensor([0, 3])).argmax(-1)
        assert codes.decode_tokens(drawn).shape == (2, 1, 28, 28)
    assert trainings.token_causal("mnist", root=small)(x.clamp(max=63), None).shape == (2, 49, 64)


def test_the_same_training_makes_the_same_weights(small) -> None:
    first, second = (trainings.train("mnist_codes", steps=3, root=small, progress=False).read_bytes() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("role", ["levels_uniform", "levels_bits", "codes", "codes_absorbing"])
def test_a_stopped_training_goes_on_and_ends_in_the_same_weights(role, small, monkeypatch) -> None:
    trainings.train("mnist_codes", steps=2, root=small, progress=False)
    whole = trainings.train(f"mnist_{role}", steps=6, root=small, progress=False).read_bytes()
    run = trainings.Trainer.run

    def stopped(self, **about):
        yield from run(self, **about | {"every": 2, "until": 4})
        raise KeyboardInterrupt

    monkeypatch.setattr(trainings.Trainer, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        trainings.train(f"mnist_{role}", steps=6, root=small, progress=False)
    assert recipes.state_of(f"mnist_{role}", 6).exists()
    monkeypatch.setattr(trainings.Trainer, "run", run)
    assert trainings.train(f"mnist_{role}", steps=6, root=small, progress=False).read_bytes() == whole
    assert not recipes.state_of(f"mnist_{role}", 6).exists()


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r'no training "mnist_code" \(did you mean "mnist_codes"\?\)'):
        trainings.train("mnist_code")
    with pytest.raises(ValueError, match='device "cpu"; got "cuda"'):
        trainings.train("mnist_codes", device="cuda")


def test_every_shipped_checkpoint_has_one_recipe() -> None:
    assert not set(trainings.names()) & set(recipes.names())
    assert set(checkpoints.names()) <= set(trainings.names()) | set(recipes.names())


@pytest.mark.parametrize("name", [name for name in trainings.names() if name in checkpoints.names()])
def test_shipped_trainings_are_what_the_code_would_make(name: str) -> None:
    about = checkpoints.manifest(name)
    assert about["recipe"] == asdict(trainings.plan_of(name)), f"`survey train {name}` would make another: do it again"
    assert about["scores"] and about["minutes"] > 0 and name.startswith(about["dataset"])
    assert (checkpoints.folder() / f"{name}.safetensors").stat().st_size < 1e6
    checkpoints.load(name)


def test_all_names_are_shipped() -> None:
    assert set(trainings.names()) <= set(checkpoints.names())


def test_tokens_are_masked_and_replaced_in_the_published_shares() -> None:
    """Linear in t: nine tenths of t are masked, one tenth is drawn anew, the rest is as it was."""
    for t in (0.25, 0.5, 1.0):
        row = trainings._CHAINS["replace"](4).matrix(torch.tensor(0.0).double(), torch.tensor(t).double())[0]
        expected = torch.tensor([1 - t + 0.1 * t / 4, *[0.1 * t / 4] * 3, 0.9 * t]).double()
        torch.testing.assert_close(row, expected)


# ---------------------------------------------------------------------- levels and the loop


def test_levels_are_equal_eighths_of_the_mean(monkeypatch) -> None:
    """Two by two pixels of one brightness make one entry; colour counts by luminance; 28 pixels get a rim."""
    bytes_ = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    pictures = {
        "grey": bytes_.repeat_interleave(2, 2).repeat_interleave(2, 3),
        "colour": bytes_.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(1, 3, 32, 32),
        "narrow": torch.full((1, 1, 28, 28), 255, dtype=torch.uint8),
    }
    monkeypatch.setattr(
        quantised.data, "load", lambda name, **_: ImageSet(name, pictures[name], torch.zeros(1).long(), ("a",))
    )
    for name in ("grey", "colour"):
        x, labels = quantised.levels(name)
        assert torch.equal(x.flatten(), torch.arange(256) // 32) and labels.shape == (1,)
    x, _ = quantised.levels("narrow")
    assert (x[..., 1:15, 1:15] == 7).all() and x.sum() == 7 * 14**2


def test_of_the_glyphs_the_plain_faces_are_taken() -> None:
    x, labels = quantised.levels("glyphs", split="test", count=30)
    again, _ = quantised.levels("glyphs", split="test", count=50)
    assert x.shape == (30, 1, 16, 16) and labels.shape == (30,) and torch.equal(again[:30], x)
    every = quantised.data.load("glyphs", split="test", count=100)
    assert torch.equal(labels[:20], every.labels[every.extra["face"] < quantised.PLAIN][:20])


def test_ink_is_white_whatever_the_colours_are() -> None:
    """Dark on light and light on dark in any colours: the same strokes on black."""
    strokes = torch.zeros(3, 32, 32, dtype=torch.bool)
    strokes[:, 8:24, 14:18] = True
    x = torch.stack([torch.where(strokes, a, b).byte() for a, b in ((250, 10), (10, 250), (90, 130))])
    x[1, 2] = 77  # a channel that says nothing
    assert torch.equal(quantised.ink(x), (255 * strokes).byte().expand(3, 3, 32, 32))
    glyphs = quantised.pictures("glyphs", split="test", count=20)
    assert glyphs.shape == (3, 32, 32) and (glyphs.images[:, :, 0, 0] == 0).all()
    assert (glyphs.images.amax((1, 2, 3)) == 255).all() and glyphs.extra["face"].max() < quantised.PLAIN


def test_levels_and_numbers_there_and_back() -> None:
    x = torch.arange(8).reshape(1, 1, 2, 4)
    assert torch.equal(quantised.from_image(quantised.to_image(x)), x)
    assert quantised.to_image(x).aminmax() == (-1, 1)
    assert torch.equal(quantised.from_image(torch.tensor([-3.0, -0.99, 0.2, 9.0])), torch.tensor([0, 0, 4, 7]))
    assert quantised.for_features(x.expand(2, 1, 2, 4), 3).shape == (2, 3, 4, 8)

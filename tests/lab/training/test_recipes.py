"""The table of trainings: each role trains, resumes, is saved and loaded; the shipped ones are what the table makes."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from survey_lib.core.heads import LabelPosterior, Preconditioned
from survey_lib.core.schedules import edm, vp_cosine, vp_linear
from survey_lib.design.discrete import CategoricalDenoiser
from survey_lib.design.latent import LatentDiffusion
from survey_lib.lab import data
from survey_lib.lab.data import quantised
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation.speed import precision
from survey_lib.lab.training import checkpoints, recipes
from survey_lib.lab.training.recipes import discrete, images, training
from survey_lib.lab.training.trainer import Recipe, Trainer
from survey_lib.nets.autoencoder import Autoencoder
from survey_lib.nets.classifier import Classifier
from survey_lib.nets.transformer import Transformer
from tests.support import generator

ROLES = ("features", "features2", "base", "conditional", "weak", "noisy")
DISCRETE = ("levels_absorbing", "levels_bits", "codes", "codes_absorbing", "codes_replace", "codes_causal")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Sixty random images for every data set, two batches of four, few samples for the scores, a home of its own."""
    pixels = torch.randint(256, (60, 1, 28, 28), generator=generator(), dtype=torch.uint8)
    made = ImageSet("mnist", pixels, torch.arange(60) % 3, ("a", "b", "c"), {"face": torch.arange(60) % 2})
    monkeypatch.setattr(
        recipes.data,
        "load",
        lambda name, split="train", count=None, most=None: made.take(slice(count or most)),
    )
    for role, row in recipes.TRAININGS.items():
        monkeypatch.setitem(
            recipes.TRAININGS, role, replace(row, recipe=replace(row.recipe, batch=4, steps=2), changes={})
        )
    for kind, row in discrete.LEVELS.items():
        monkeypatch.setitem(discrete.LEVELS, kind, replace(row, recipe=replace(row.recipe, batch=4)))
    monkeypatch.setattr(training, "COUNT", 12)
    monkeypatch.setattr(recipes, "HOME", tmp_path)
    net = Classifier(1, dims=4, widths=(4,)).eval()
    for role in ("features", "features2"):
        checkpoints.save(f"mnist_{role}", net, {}, root=tmp_path)
    return tmp_path


def train(role: str, root, steps: int | None = None):
    return recipes.train(f"mnist_{role}", steps=steps, root=root, progress=False)


def whole_manifest(path, root) -> dict:
    about = checkpoints.manifest(path.stem, root=root)
    for key in ("dataset", "images_sha256", "recipe", "seed", "minutes", "device", "torch", "scores", "parameters"):
        assert about[key] not in (None, "", {}), key
    return about


@pytest.mark.parametrize("role", ROLES)
def test_a_training_of_images_makes_a_checkpoint_with_a_whole_manifest(role, small):
    path = train(role, small)
    assert path == small / f"mnist_{role}.safetensors"
    about, model = whole_manifest(path, small), checkpoints.load(path.stem, root=small)
    row, x = recipes.TRAININGS[role], torch.zeros(2, 1, 28, 28)
    assert about["recipe"] == asdict(row.recipe_for("mnist")) and about["recipe"]["steps"] == 2
    if role.startswith("features"):
        assert [labels.shape for labels in model.classify(x)] == [(2,), (2,)]
        assert set(about["scores"]) == {"loss", "accuracy_label", "accuracy_face"}
    elif role == "noisy":
        assert model(x, 0.5).shape == (2, 3)
        assert set(about["scores"]) == {"loss"} | {f"accuracy_at_{level:g}" for level in images.LEVELS}
    else:
        assert model.net.classes == (None if role == "base" else 3)
        assert about["recipe"]["label_dropout"] == (0 if role == "base" else 0.15)
        assert {"loss", "fd", "floor"} <= set(about["scores"])
        assert ("accuracy" in about["scores"]) == (role != "base")
    assert not list((small / "build").rglob("*.safetensors")), "the state of a finished training was left behind"


def test_discrete_trainings_make_whole_checkpoints_one_after_another(small) -> None:
    """Levels, then codes, then tokens that need the codes: each loads as the model itself."""
    kinds = (CategoricalDenoiser, Preconditioned, Autoencoder, CategoricalDenoiser, CategoricalDenoiser, Transformer)
    models = {}
    for role, kind in zip(DISCRETE, kinds, strict=True):
        path = train(role, small)
        about = whole_manifest(path, small)
        assert about["recipe"] == asdict(recipes.TRAININGS[role].recipe_for("mnist"))
        models[role] = checkpoints.load(path.stem, schedule=vp_cosine(), root=small)
        assert type(models[role]) is kind
    for role in DISCRETE[:2]:
        drawn = discrete.sample_levels(models[role], 2, 2, generator=generator())
        assert drawn.shape == (2, 1, 16, 16) and drawn.max() < quantised.LEVELS
    for role in ("codes_absorbing", "codes_replace"):
        x = models[role].corruption.prior((2, 49), generator=generator())
        drawn = models[role](x, torch.tensor(0.9), torch.tensor([0, 3])).argmax(-1)
        assert models["codes"].decode_tokens(drawn).shape == (2, 1, 28, 28)
    assert models["codes_causal"](x.clamp(max=63), None).shape == (2, 49, 64)


def test_tokens_come_from_the_codes_of_their_own_folder(small, tmp_path):
    """A trial of the tokens reads the trial's codes, not another folder's."""
    folders = tmp_path / "a", tmp_path / "b"
    for root, steps in zip(folders, (1, 3), strict=True):
        train("codes", root, steps)
    seen = [recipes.TRAININGS["codes_causal"].data("mnist", root).tensors[0] for root in folders]
    for root, tokens in zip(folders, seen, strict=True):
        codes = checkpoints.load("mnist_codes", root=root)
        assert torch.equal(tokens, discrete.all_tokens(codes, recipes.data.load("mnist").images))
    assert not torch.equal(*seen)


@pytest.mark.parametrize(
    "role", ["features", "noisy", "base", "levels_uniform", "levels_bits", "codes", "codes_absorbing"]
)
def test_a_stopped_training_resumes_and_ends_in_the_same_weights(role, small, monkeypatch) -> None:
    """Every kind of training, classifiers too; and twice the same training makes the same bytes."""
    train("codes", small)
    whole = [train(role, small, 6).read_bytes() for _ in range(2)]
    assert whole[0] == whole[1]
    run = Trainer.run

    def stopped(self, **about):
        yield from run(self, **about | {"every": 2, "until": 4})
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(role, small, 6)
    state = small / "build" / "training" / f"mnist_{role}_steps_6.safetensors"
    assert state.exists()
    monkeypatch.setattr(Trainer, "run", run)
    assert train(role, small, 6).read_bytes() == whole[0]
    assert not state.exists()


# ---------------------------------------------------------------------- where a training goes


def test_a_trial_goes_to_a_folder_of_its_own(small):
    """Without a root nothing is written beside the shipped checkpoints, and two lengths never meet."""
    before = {path: path.stat().st_mtime_ns for path in checkpoints.folder().iterdir()}
    first, second = (recipes.train("mnist_base", steps=steps, progress=False) for steps in (1, 2))
    assert first.parent == recipes.trial_folder(1) == small / "build" / "checkpoints" / "1_steps"
    assert first.parent != second.parent and recipes.trial_folder(None).name == "full"
    for path, steps in ((first, 1), (second, 2)):
        about = checkpoints.manifest("mnist_base", root=path.parent)
        assert about["recipe"]["steps"] == steps and set(about["scores"]) == {"loss"}
    assert {path: path.stat().st_mtime_ns for path in checkpoints.folder().iterdir()} == before


def test_a_device_is_refused_before_the_data_are_drawn(monkeypatch):
    monkeypatch.setattr(recipes.data, "load", lambda *_, **__: pytest.fail("data were loaded"))
    for device, kind, words in (
        ("gpu", ValueError, 'device is "gpu"; accepted: auto, cpu, cuda'),
        ("mps", ValueError, 'device is "mps"; accepted'),
        ("cuda:77", RuntimeError, 'device "cuda:77" asks for a GPU that torch does not see here'),
    ):
        with pytest.raises(kind, match=words):
            recipes.train("mnist_base", device=device)


def test_an_unknown_name_suggests_and_lists_all():
    with pytest.raises(ValueError, match=r'no training "mnist_code" \(did you mean "mnist_codes"\?\)') as caught:
        recipes.train("mnist_code")
    assert all(name in str(caught.value) for name in recipes.names())
    with pytest.raises(ValueError, match=r"glyphs_base, .*mnist_base"):
        recipes.train("digits_codes")


# ---------------------------------------------------------------------- grey levels without a checkpoint


@pytest.mark.parametrize("kind", discrete.LEVELS)
def test_every_kind_of_levels_is_trained_and_sampled_by_the_same_two_calls(kind, small) -> None:
    run, again, other = (recipes.fit(discrete.LEVELS[kind], "mnist", seed=seed, steps=2) for seed in (0, 0, 1))
    weights = [torch.cat([p.flatten() for p in one.parameters()]) for one in (run, again, other)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
    seen = []
    x = discrete.sample_levels(run, 3, 4, generator=generator(), callback=lambda x, t, x0: seen.append(float(t)))
    assert x.shape == (3, 1, 16, 16) and x.dtype == torch.int64 and x.min() >= 0 and x.max() < quantised.LEVELS
    assert len(seen) == 4 and seen == sorted(seen, reverse=True)


def test_kinds_differ_where_they_should() -> None:
    rows = {kind: asdict(row.recipe_for("mnist", seed=3)) for kind, row in discrete.LEVELS.items()}
    chains = {kind for kind, recipe in rows.items() if "chain" in recipe}
    assert chains == {"uniform", "absorbing", "gaussian", "gaussian_plain"}
    assert {kind for kind in chains if rows[kind]["auxiliary"] == 0} == {"gaussian_plain"}
    common = [
        {name: value for name, value in row.items() if name not in ("chain", "auxiliary")} for row in rows.values()
    ]
    assert all(row == common[0] for row in common) and common[0]["seed"] == 3


def test_tokens_are_masked_and_replaced_in_the_published_fractions() -> None:
    """Linear in t: nine tenths of t are masked, one tenth is drawn again, the rest is unchanged."""
    for t in (0.25, 0.5, 1.0):
        row = checkpoints.CHAINS["replace"](4).matrix(torch.tensor(0.0).double(), torch.tensor(t).double())[0]
        expected = torch.tensor([1 - t + 0.1 * t / 4, *[0.1 * t / 4] * 3, 0.9 * t]).double()
        torch.testing.assert_close(row, expected)


# ---------------------------------------------------------------------- classifiers


def test_one_cycle_takes_the_steps_of_torchs_scheduler_bit_for_bit():
    """The shipped classifiers were made by `OneCycleLR`; on the same batches the `Trainer` makes the same weights."""
    g = generator()
    data = TensorDataset(torch.randn(64, 5, generator=g), torch.randint(3, (64, 1), generator=g))
    recipe = images.ClassifierRecipe(steps=50, batch=16, rate=0.03)

    def net() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def loss(model, x0, cond, generator):
        return nn.functional.cross_entropy(model(x0), cond[:, 0], reduction="none"), None

    trainer, plain, batches = Trainer(net(), data, recipe, loss=loss), net(), []
    for step in range(recipe.steps):
        trainer.step = step
        batches.append(trainer._draw()[:2])
    trainer.step = 0
    trainer.finish()
    optimizer = torch.optim.Adam(plain.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.rate, total_steps=recipe.steps)
    for x0, cond in batches:
        optimizer.zero_grad()
        with precision():
            found = nn.functional.cross_entropy(plain(x0), cond[:, 0])
        found.backward()
        optimizer.step()
        schedule.step()
    for mine, theirs in zip(trainer.average.state_dict().values(), plain.state_dict().values(), strict=True):
        assert mine.equal(theirs)


def test_clips_loss_is_least_at_the_true_posterior_and_minds_no_constant():
    """Two normal distributions on a line, whose ``log p(y | x)`` is a logistic function of 2 x."""
    wanted = torch.arange(4000) % 2
    x = 2.0 * wanted - 1 + torch.randn(4000, generator=generator())
    logits = torch.nn.functional.logsigmoid(torch.stack([-2 * x, 2 * x], 1))
    right = images.contrastive_loss(logits, wanted)
    torch.testing.assert_close(images.contrastive_loss(logits + 5, wanted), right)
    for factor in (0.7, 1.4):
        assert images.contrastive_loss(factor * logits, wanted) > right + 0.005
    # a term of x alone is nothing to the labels, and wrong among images
    assert images.contrastive_loss(logits + x[:, None] / 2, wanted) > right + 0.005
    both = torch.nn.functional.cross_entropy(logits, wanted)
    assert right > both, "to find the images of a caption among thousands is harder than to name one of two"
    flat = torch.zeros(8, 2), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    assert images.contrastive_loss(*flat).item() == pytest.approx((math.log(2) + math.log(8)) / 2)


def test_accuracy_is_counted_at_each_level():
    """A posterior that reads the label off a mark in the corner: perfect while the mark is not drowned."""
    pixels, labels = torch.randint(256, (60, 1, 8, 8), generator=generator(), dtype=torch.uint8), torch.arange(60) % 3
    pixels[:, 0, 0, :3] = 0
    pixels[torch.arange(60), 0, 0, labels] = 255
    found = images.noisy_accuracy(LabelPosterior(Corner(), edm()), ImageSet("mnist", pixels, labels, ("a", "b", "c")))
    assert found["accuracy_at_0.1"] == 1 and 0.2 < found["accuracy_at_5"] < 0.7


class Corner(nn.Module):
    def forward(self, x, c_noise):
        return x[:, 0, 0, :3]


# ---------------------------------------------------------------------- what is shipped


def test_all_names_are_shipped_and_nothing_else() -> None:
    shipped = {name for name in recipes.names() if recipes.split(name)[0] in recipes.SHIPPED}
    assert shipped == set(checkpoints.names(checkpoints.folder()))


def test_cifar10_in_latents_for_whoever_has_it(monkeypatch, tmp_path):
    """The two stages on images in CIFAR-10's form: an autoencoder, then a denoiser with classes, then pictures."""
    pixels = torch.randint(256, (160, 3, 32, 32), generator=generator(), dtype=torch.uint8)
    images = ImageSet("cifar10", pixels, torch.arange(160) % 10, tuple("abcdefghij"))
    monkeypatch.setattr(data, "load", lambda name, **_: images)
    for name in ("cifar10_f4", "cifar10_denoiser_f4"):
        recipes.train(name, steps=2, root=tmp_path, progress=False)
    autoencoder, denoiser = (
        checkpoints.load(f"cifar10_{role}", root=tmp_path, schedule=vp_linear()) for role in ("f4", "denoiser_f4")
    )
    noise = torch.randn(2, 4, 8, 8, generator=generator())
    made = LatentDiffusion(autoencoder, denoiser, null=10, scale=2.0, steps=2).sample(noise, torch.tensor([3, 5]))
    assert made.shape == (2, 3, 32, 32) and made.isfinite().all()
    assert recipes.TRAININGS["f4"].score(autoencoder, "cifar10", None).keys() == {"psnr"}
    with pytest.raises(FileNotFoundError, match='no checkpoint "cifar10_f2"'):
        recipes.train("cifar10_denoiser_f2", steps=2, root=tmp_path, progress=False)


def test_the_weak_denoiser_is_smaller_and_stops_earlier():
    data = ImageSet("mnist", torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.arange(1), ("a",))
    weak, conditional = (recipes.TRAININGS[role] for role in ("weak", "conditional"))
    sizes = [sum(p.numel() for p in row.untrained(data, 0).parameters()) for row in (weak, conditional)]
    assert sizes[0] < sizes[1] / 3
    for dataset in ("glyphs", "mnist"):
        assert weak.recipe_for(dataset).steps < conditional.recipe_for(dataset).steps / 3


@pytest.mark.parametrize("name", checkpoints.names(checkpoints.folder()))
def test_shipped_checkpoints_load_and_are_what_the_table_makes(name):
    about, model = checkpoints.manifest(name), checkpoints.load(name)
    assert about["name"] == name
    for key in ("dataset", "images", "seed", "minutes", "device", "torch", "scores", "parameters"):
        assert key in about, f"{name} lacks {key}"
    assert about["scores"] and about["minutes"] > 0 and name.startswith(about["dataset"])
    assert about["parameters"] == sum(p.numel() for p in model.parameters())
    dataset, _, role = name.partition("_")
    made_by = recipes.TRAININGS[role].recipe_for(dataset)
    assert about["recipe"] == asdict(made_by), f"`survey train {name}` would make another network: train it again"
    assert about["seed"] == made_by.seed and isinstance(made_by, Recipe)
    assert about["images"] == (recipes.TRAININGS[role].images or about["images"])
    one_cycle = made_by.rate_schedule == "one_cycle" and dataset != "scenes"
    assert ("draws" in about) == one_cycle  # those were made before each step had its own random numbers
    size = (checkpoints.folder() / f"{name}.safetensors").stat().st_size
    assert size < (5e6 if role in ROLES or dataset == "scenes" else 1.5e6)

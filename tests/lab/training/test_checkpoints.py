"""Checkpoints: what was saved comes back, what is damaged or does not fit is refused, what is shipped is whole."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from survey_lib.core.heads import LabelPosterior, Preconditioned
from survey_lib.core.schedules import edm, vp_cosine
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.training import checkpoints, recipes
from survey_lib.nets.classifier import Classifier, NoisyClassifier
from survey_lib.nets.mlp import MLP
from survey_lib.nets.unet import UNet

ABOUT = {"dataset": "none", "seed": 0}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def random_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight drawn anew, none of them zero and none of them round in half precision."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return model.eval()


@pytest.fixture
def saved(tmp_path):
    """A small denoiser, saved as "little_base" in a folder of its own."""
    model = random_weights(Preconditioned(UNet(1, widths=(8, 16), classes=3, attention=(1,)), edm(), sigma_data=0.7))
    checkpoints.save("little_base", model, ABOUT, root=tmp_path)
    return tmp_path, model


def refusal(kind: type[Exception], root, name: str = "little_base") -> str:
    with pytest.raises(kind) as caught:
        checkpoints.load(name, root=root)
    message = str(caught.value)
    assert "\n" not in message and name in message
    return message


def test_a_denoiser_comes_back(saved):
    """Half precision rounds each weight by at most 2^-11 of itself: ten times that is allowed to the answer."""
    root, model = saved
    loaded = checkpoints.load("little_base", schedule=model.schedule, root=root)
    x, t, cond = draw(3, 1, 16, 16), torch.tensor([0.001, 0.01, 0.5]), torch.tensor([0, 1, 3])
    with torch.no_grad():
        wanted, skipped = model(x, t, cond), loaded(x, t, cond)
    assert (skipped - wanted).norm() < 10 * 2**-11 * wanted.norm()
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert (loaded.kind, loaded.sigma_data, loaded.net.config) == ("edm", 0.7, model.net.config)
    for key, value in model.net.state_dict().items():
        torch.testing.assert_close(loaded.net.state_dict()[key], value, rtol=2**-11, atol=2**-25)


def test_a_denoiser_serves_under_every_schedule(saved):
    """At equal lam, the state of another schedule is the same up to its scale: so is the answer."""
    root, _ = saved
    first, second = (checkpoints.load("little_base", schedule=s, root=root) for s in (edm(), vp_cosine()))
    x, t = draw(2, 1, 8, 8), torch.tensor(0.3, dtype=torch.float64)
    scale = float(vp_cosine().scales(t)[0])
    torch.testing.assert_close(second(scale * x, t), first(x, edm().time(vp_cosine().lam(t))), rtol=1e-4, atol=1e-5)


OTHERS = [
    Preconditioned(MLP(2, width=8, layers=1), edm(), "flow"),
    Classifier(1, (2, 3), widths=(4, 4), dims=4, kernel=5),
    LabelPosterior(NoisyClassifier(1, 3, widths=(4, 8), dims=6), edm(), sigma_data=0.7),
]


@pytest.mark.parametrize("model", OTHERS, ids=lambda model: type(model).__name__)
def test_other_networks_come_back(model, tmp_path):
    random_weights(model)
    about = checkpoints.save("other", model, ABOUT, root=tmp_path).with_suffix(".json").read_text()
    loaded = checkpoints.load("other", root=tmp_path)
    assert type(loaded) is type(model) and json.loads(about)["dataset"] == "none"
    assert getattr(loaded, "sigma_data", None) == getattr(model, "sigma_data", None)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=2**-11, atol=2**-25)


def test_unknown_name_suggests(saved):
    message = refusal(FileNotFoundError, saved[0], "little_bass")
    assert 'did you mean "little_base"?' in message and "there are: little_base" in message


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    message = refusal(FileNotFoundError, tmp_path / "nothing", "mnist_base")
    assert "there are: none" in message and "survey train mnist_base" in message


@pytest.mark.parametrize(("gone", "left"), [(".safetensors", ".json"), (".json", ".safetensors")])
def test_half_of_the_pair_is_missing(saved, gone, left):
    root, _ = saved
    (root / f"little_base{gone}").unlink()
    message = refusal(FileNotFoundError, root)
    assert f"little_base{gone} is missing" in message and "survey train little_base" in message


def test_weights_of_another_time(saved):
    root, model = saved
    manifest = (root / "little_base.json").read_bytes()
    checkpoints.save("little_base", random_weights(model, seed=1), ABOUT, root=root)
    (root / "little_base.json").write_bytes(manifest)
    assert "sha256 differs" in refusal(ValueError, root)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_weights(saved, keep):
    root, _ = saved
    path = root / "little_base.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "sha256 differs" in refusal(ValueError, root)


@pytest.mark.parametrize("text", ["", '{"name": "little', "[1, 2]", "3", '{"sha256": "0", "net": "UNet"}'])
def test_damaged_manifest(saved, text):
    root, _ = saved
    (root / "little_base.json").write_text(text)
    assert "is no manifest" in refusal(ValueError, root)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"config": {"channels": 1, "widths": [8, 24]}}, "do not fit the UNet of its manifest"),
        ({"config": {"channels": 1, "depth": 3}}, "do not fit the UNet of its manifest.*depth"),
        ({"config": {"widths": [8], "attention": [4]}}, "do not fit the UNet of its manifest: attention names levels"),
        ({"net": "ResNet"}, 'holds a network "ResNet"; known here: UNet, MLP, Classifier'),
        ({"net": "MLP", "config": {"dims": 2}}, "do not fit the MLP of its manifest"),
    ],
)
def test_a_net_that_does_not_fit(saved, change, sentence):
    root, _ = saved
    path = root / "little_base.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=sentence):
        checkpoints.load("little_base", root=root)
    assert len(refusal(ValueError, root)) < 500


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_half_precision_cannot_hold_are_not_saved(tmp_path, value):
    model = Preconditioned(MLP(2, width=8, layers=1), edm())
    with torch.no_grad():
        model.net.leave.weight[0, 0] = value
    with pytest.raises(ValueError, match=r"weights of broken are not finite in half precision: leave\.weight"):
        checkpoints.save("broken", model, ABOUT, root=tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- recipes and what is shipped


@pytest.fixture
def toy_images(monkeypatch, tmp_path):
    """The recipes see sixty random images for every data set, and a home of their own."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (60, 1, 8, 8), generator=g, dtype=torch.uint8)
    made = ImageSet("mnist", images, torch.arange(60) % 3, ("a", "b", "c"), {"face": torch.arange(60) % 2})
    monkeypatch.setattr(recipes, "load", lambda name, split="train": made)
    monkeypatch.setattr(recipes, "HOME", tmp_path)
    return made


@pytest.mark.parametrize("role", ["base", "conditional", "weak", "features", "features2", "noisy"])
def test_a_recipe_makes_a_checkpoint_with_a_whole_manifest(role, toy_images, tmp_path):
    path = recipes.train(f"mnist_{role}", steps=2, root=tmp_path / "out")
    assert path == tmp_path / "out" / f"mnist_{role}.safetensors"
    about, model = checkpoints.manifest(path.stem, root=path.parent), checkpoints.load(path.stem, root=path.parent)
    for key in ("dataset", "images_sha256", "recipe", "seed", "minutes", "device", "torch", "scores", "parameters"):
        assert about[key] not in (None, "", {}), key
    if role.startswith("features"):
        assert [labels.shape for labels in model.classify(toy_images.float())] == [(60,), (60,)]
        assert set(about["scores"]) == {"accuracy_label", "accuracy_face"} and about["recipe"]["steps"] == 2
    elif role == "noisy":
        assert model(toy_images.float(), 0.5).shape == (60, 3) and about["recipe"] == recipes._NOISY | {"steps": 2}
        assert set(about["scores"]) == {f"accuracy_at_{level:g}" for level in recipes.LEVELS}
    else:
        assert model.net.classes == (None if role == "base" else 3)
        assert about["recipe"]["label_dropout"] == (0 if role == "base" else 0.15)
    assert not list((tmp_path / "build").rglob("*.safetensors")), "the state of a finished training was left behind"


@pytest.mark.parametrize("role", ["base", "noisy"])
def test_the_same_recipe_makes_the_same_weights(role, toy_images, tmp_path):
    first, second = (recipes.train(f"mnist_{role}", steps=2, root=tmp_path / side).read_bytes() for side in "ab")
    assert first == second


def test_the_weak_denoiser_is_smaller_and_stops_earlier():
    images = ImageSet("mnist", torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.arange(1), ("a",))
    sizes = [
        sum(p.numel() for p in recipes.denoiser_for(images, widths=recipes._DENOISERS[role]).parameters())
        for role in ("weak", "conditional")
    ]
    assert sizes[0] < sizes[1] / 3
    assert recipes.denoiser_recipe("mnist", "weak").steps < recipes.denoiser_recipe("mnist", "conditional").steps / 3


def test_clips_loss_is_least_at_the_true_posterior_and_minds_no_constant():
    """Two normal laws on a line, whose ``log p(y | x)`` is a logistic function of 2 x."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.arange(4000) % 2
    x = 2.0 * wanted - 1 + torch.randn(4000, generator=generator)
    logits = torch.nn.functional.logsigmoid(torch.stack([-2 * x, 2 * x], 1))
    right = recipes.contrastive_loss(logits, wanted)
    torch.testing.assert_close(recipes.contrastive_loss(logits + 5, wanted), right)
    for factor in (0.7, 1.4):
        assert recipes.contrastive_loss(factor * logits, wanted) > right + 0.005
    # a term of x alone is nothing to the labels, and wrong among images
    assert recipes.contrastive_loss(logits + x[:, None] / 2, wanted) > right + 0.005
    both = torch.nn.functional.cross_entropy(logits, wanted)
    assert right > both, "to find the images of a caption among thousands is harder than to name one of two"
    flat = torch.zeros(8, 2), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    assert recipes.contrastive_loss(*flat).item() == pytest.approx((math.log(2) + math.log(8)) / 2)


def test_accuracy_is_counted_at_each_level(toy_images):
    """A posterior that reads the label off a mark in the corner: perfect while the mark is not drowned."""
    marked = toy_images.images.clone()
    marked[:, 0, 0, :3] = 0
    marked[torch.arange(60), 0, 0, toy_images.labels] = 255
    images = ImageSet("mnist", marked, toy_images.labels, ("a", "b", "c"))
    corner = LabelPosterior(Corner(), edm())
    found = recipes.noisy_accuracy(corner, images)
    assert found["accuracy_at_0.1"] == 1 and 0.2 < found["accuracy_at_5"] < 0.7


class Corner(nn.Module):
    def forward(self, x, c_noise):
        return x[:, 0, 0, :3]


def test_unknown_recipe_suggests():
    with pytest.raises(
        ValueError, match='no recipe "mnist_bass" \\(did you mean "mnist_base"\\?\\); accepted: glyphs_feat'
    ):
        recipes.train("mnist_bass")


@pytest.mark.parametrize("name", [name for name in checkpoints.names() if name in recipes.names()])
def test_shipped_checkpoints_load_and_say_where_they_come_from(name):
    about, model = checkpoints.manifest(name), checkpoints.load(name)
    assert name in recipes.names() and about["name"] == name
    for key in ("dataset", "images", "seed", "minutes", "device", "torch", "scores", "parameters"):
        assert key in about, f"{name} lacks {key}"
    assert about["scores"] and about["minutes"] > 0 and name.startswith(about["dataset"])
    assert about["parameters"] == sum(p.numel() for p in model.parameters())
    dataset, _, role = name.partition("_")
    others = {"noisy": recipes._NOISY} | dict.fromkeys(recipes._FEATURES, recipes._CLASSIFIER)
    made_by = others.get(role) or asdict(recipes.denoiser_recipe(dataset, role))
    assert about["recipe"] == made_by, f"`survey train {name}` would make another network: train it again"
    assert (checkpoints.folder() / f"{name}.safetensors").stat().st_size < 4e6

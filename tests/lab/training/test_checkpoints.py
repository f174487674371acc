"""Checkpoints: what was saved comes back, what is damaged or does not fit is refused, what is shipped is whole."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from torch import nn

from survey_lib.core.categorical import absorbing, uniform
from survey_lib.core.heads import LabelPosterior, Preconditioned
from survey_lib.core.schedules import edm, vp_cosine
from survey_lib.design.discrete import CategoricalDenoiser
from survey_lib.lab.training import checkpoints
from survey_lib.nets.captioned import CaptionedUNet
from survey_lib.nets.classifier import Classifier, NoisyClassifier
from survey_lib.nets.mlp import MLP
from survey_lib.nets.transformer import Transformer
from survey_lib.nets.unet import UNet
from survey_lib.nets.vit import UViT

ABOUT = {"dataset": "none", "seed": 0}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def random_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight drawn again, none of them zero and none of them round in half precision."""
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
    CategoricalDenoiser(Transformer(5, 4, 6, width=8, layers=1), absorbing(4), 4),
    CategoricalDenoiser(UNet(4, widths=(4,)), uniform(4), 4),
    Transformer(4, 4, 6, width=8, layers=1, causal=True),
    Preconditioned(UViT(1, patch=2, width=8, layers=3, heads=2, classes=3), edm()),
    Preconditioned(CaptionedUNet(5, 4, width=8, widths=(8,), attention=(0,)), edm(), sigma_data=0.5),
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
    assert "there are: none" in message and "`survey train`, which lists what it can make" in message


@pytest.mark.parametrize(("gone", "left"), [(".safetensors", ".json"), (".json", ".safetensors")])
def test_half_of_the_pair_is_missing(saved, gone, left):
    root, _ = saved
    (root / f"little_base{gone}").unlink()
    message = refusal(FileNotFoundError, root)
    assert f"little_base{gone} is missing" in message and "restore it, or make it with `survey train`" in message


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
    assert "is not a manifest" in refusal(ValueError, root)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"config": {"channels": 1, "widths": [8, 24]}}, "do not fit the UNet of its manifest"),
        ({"config": {"channels": 1, "depth": 3}}, "do not fit the UNet of its manifest.*depth"),
        ({"config": {"widths": [8], "attention": [4]}}, "do not fit the UNet of its manifest: attention must name"),
        (
            {"net": "ResNet"},
            'holds a network "ResNet"; known here: UNet, GuidedUNet, CaptionedUNet, SemanticUNet, PyramidUNet',
        ),
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


# ---------------------------------------------------------------------- manifests and weights that do not belong


def test_a_chain_comes_back_with_its_denoiser(tmp_path):
    """Each named chain: the loaded denoiser has the same matrix, and its predictions differ by the rounding alone."""
    for name, make in checkpoints.CHAINS.items():
        chain = make(4)
        net = Transformer(len(chain.stationary), 4, 6, width=8, layers=1)
        model = random_weights(CategoricalDenoiser(net, chain, 4))
        path = checkpoints.save("tokens", model, ABOUT, root=tmp_path)
        assert json.loads(path.with_suffix(".json").read_text())["head"]["chain"] == name
        loaded, times = checkpoints.load("tokens", root=tmp_path), torch.tensor([0.2, 0.7], dtype=torch.float64)
        assert torch.equal(loaded.corruption.matrix(*times), chain.matrix(*times))
        x = chain.corrupt(torch.arange(12).reshape(2, 6) % 4, 0.5, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(loaded(x, 0.5), model(x, 0.5).detach(), rtol=0.02, atol=0.002)


def test_models_that_could_not_be_loaded_are_not_saved(tmp_path):
    class Own(nn.Linear):
        pass

    odd = CategoricalDenoiser(UNet(4, widths=(4,)), uniform(4, survival=lambda t: (1 - t) ** 3), 4)
    for model, words in (
        (
            Own(2, 2),
            "own holds a Own; these networks can be saved: UNet, GuidedUNet, CaptionedUNet, SemanticUNet, PyramidUNet",
        ),
        (Preconditioned(Own(2, 2), edm()), "own holds a Own"),
        (UNet(1, widths=(4,)), "a bare UNet; it needs a head"),
        (odd, "a chain without a name; these can be saved, with evidence: uniform, absorbing"),
    ):
        with pytest.raises(ValueError, match=words):
            checkpoints.save("own", model, ABOUT, root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_tied_weights_are_saved_twice_and_loaded_alike(tmp_path):
    model = random_weights(Preconditioned(MLP(2, width=8, layers=2), edm()))
    linear = [module for module in model.net.modules() if getattr(module, "weight", None) is not None]
    tied = [one for one in linear if one.weight.shape == (8, 8)][:2]
    tied[1].weight = tied[0].weight
    checkpoints.save("tied", model, ABOUT, root=tmp_path)
    loaded, x = checkpoints.load("tied", schedule=edm(), root=tmp_path), draw(3, 2)
    torch.testing.assert_close(loaded(x, 0.01), model(x, 0.01).detach(), rtol=0.01, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net": [1]}, r"net is \[1\]"),
        ({"config": [1]}, r"config \[1\]"),
        ({"head": "x"}, 'head is "x"; accepted: null, or as in'),
        ({"head": {}}, "head is {}; accepted"),
        ({"head": {"kind": "edm", "sigma_data": 0.5, "more": 1}}, '"more": 1}; accepted'),
        ({"head": {"kind": "noise", "sigma_data": 0.5}}, '"noise"'),
        ({"head": {"kind": ["edm"], "sigma_data": 0.5}}, r'"kind": \["edm"\]'),
        ({"head": {"kind": "edm", "sigma_data": None}}, "sigma_data is null; a positive number"),
        ({"head": {"kind": "edm", "sigma_data": True}}, "sigma_data is true"),
        ({"head": {"kind": "edm", "sigma_data": -1}}, "sigma_data is -1"),
        ({"head": {"kind": "categorical", "chain": "unform", "categories": 8}}, "a chain is one of uniform, absorbing"),
        ({"head": {"kind": "categorical", "chain": "uniform", "categories": 0}}, "with a number of categories"),
        ({"head": None}, "head is null, and a UNet needs one"),
    ],
)
def test_a_manifest_with_a_wrong_entry_is_refused_by_name(saved, change, words):
    root, _ = saved
    path = root / "little_base.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=words):
        checkpoints.load("little_base", root=root)
    assert "little_base.json is not a manifest" in refusal(ValueError, root)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_folder_in_place_of_a_file_is_named(saved, suffix):
    path = saved[0] / f"little_base{suffix}"
    path.unlink()
    path.mkdir()
    assert f"{path} is a folder, not a file" in refusal(ValueError, saved[0])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w: w.fill_(torch.nan), "these are not finite"),
        (lambda w: w.to(torch.int8), "is torch.int8, not torch.float32"),
    ],
)
def test_weights_with_the_right_hash_but_wrong_values_are_refused(saved, spoil, words):
    from safetensors.torch import load, save

    root, _ = saved
    weights = load((root / "little_base.safetensors").read_bytes())
    key = next(key for key, value in weights.items() if value.is_floating_point())
    data = save(weights | {key: spoil(weights[key])})
    (root / "little_base.safetensors").write_bytes(data)
    about = json.loads((root / "little_base.json").read_text()) | {"sha256": hashlib.sha256(data).hexdigest()}
    (root / "little_base.json").write_text(json.dumps(about))
    message = refusal(ValueError, root)
    assert words in message and key in message

"""Trained networks on disk: weights in safetensors, and a manifest that identifies them and says how they were made.

``data/checkpoints/NAME.safetensors`` and ``NAME.json`` belong together: the manifest holds the sha256 of the
weights, class and configuration of the network, its head, the data set, recipe, seed, minutes, device and scores.
Weights with another hash, truncated files and networks that do not fit are refused.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from survey_lib.core.categorical import Categorical, absorbing, discretised_gaussian, mask_and_replace, uniform
from survey_lib.core.heads import LabelPosterior, Preconditioned
from survey_lib.core.schedules import Schedule, vp_linear
from survey_lib.design.discrete.denoisers import CategoricalDenoiser
from survey_lib.lab.runtime import HOME, suggest, write_atomically
from survey_lib.nets.autoencoder import Autoencoder, KLAutoencoder
from survey_lib.nets.captioned import CaptionedUNet
from survey_lib.nets.classifier import Classifier, NoisyClassifier
from survey_lib.nets.finder import Finder
from survey_lib.nets.guided import GuidedUNet
from survey_lib.nets.mlp import MLP
from survey_lib.nets.pyramid import PyramidAutoencoder, PyramidUNet, SeparateUNets
from survey_lib.nets.semantic import SemanticUNet
from survey_lib.nets.transformer import Transformer
from survey_lib.nets.unet import UNet
from survey_lib.nets.vit import UViT

Model = Preconditioned | LabelPosterior | CategoricalDenoiser | Classifier | Autoencoder | Finder | Transformer

#: Chains that a manifest can name: number of categories -> chain. ``replace`` is VQ-Diffusion's mask-and-replace
#: (Gu et al. 2022, sec. 4.1): at time t, 0.9 t of the tokens are masked and 0.1 t are replaced.
CHAINS: Mapping[str, Callable[[int], Categorical]] = {
    "uniform": uniform,
    "absorbing": absorbing,
    "gaussian": discretised_gaussian,
    "replace": lambda categories: mask_and_replace(categories, survival=lambda t: (1 - t) / (1 - 0.9 * t)),
}

_NETS: dict[str, type[nn.Module]] = {
    net.__name__: net
    for net in (
        *(UNet, GuidedUNet, CaptionedUNet, SemanticUNet, PyramidUNet, SeparateUNets, UViT, MLP, Transformer),
        *(Classifier, NoisyClassifier, Autoencoder, KLAutoencoder, PyramidAutoencoder, Finder),
    )
}
_BARE = ("Classifier", "Autoencoder", "KLAutoencoder", "PyramidAutoencoder", "Finder", "Transformer")  # without a head
_NEEDED = ("sha256", "net", "config", "head")  # what `load` reads in a manifest
_REMEDY = "restore it, or make it with `survey train`, which lists what it can make"
_HEADS = {kind: {"sigma_data"} for kind in ("x0", "eps", "score", "v", "flow", "edm", "labels")}
_HEADS |= {"categorical": {"chain", "categories"}}


def folder(root: Path | None = None) -> Path:
    """The folder of checkpoints: ``root``, or ``data/checkpoints`` of the course."""
    return HOME / "data" / "checkpoints" if root is None else Path(root)


def own_folder() -> Path:
    """The folder of checkpoints for the reader's own data sets."""
    return folder() / "own"


def names(root: Path | None = None) -> list[str]:
    """Names of the checkpoints in a folder; without ``root``, of the course's and of the reader's own."""
    places = (folder(), own_folder()) if root is None else (Path(root),)
    return sorted(path.stem for place in places for path in place.glob("*.safetensors"))


def _place(name: str, root: Path | None) -> Path:
    """The folder in which a checkpoint is looked for: `own_folder` where only it has the checkpoint."""
    beside = root is None and not any(folder().glob(f"{glob.escape(name)}.*"))
    return own_folder() if beside and any(own_folder().glob(f"{glob.escape(name)}.*")) else folder(root)


def save(name: str, model: Model, about: dict[str, Any], *, root: Path | None = None) -> Path:
    """Write a denoiser, a classifier or an autoencoder with its manifest; return the path of the weights.

    ``about`` holds what the network does not know: data set, recipe, seed, minutes, device, scores.
    The weights are stored in half precision, which halves the file and moves scores less than the seed does.
    Raises ValueError for a network that `load` could not read, and for weights that are not finite in half precision.
    """
    net = model.net if isinstance(model, Preconditioned | LabelPosterior | CategoricalDenoiser) else model
    if _NETS.get(type(net).__name__) is not type(net):
        raise ValueError(f"{name} holds a {type(net).__name__}; these networks can be saved: {', '.join(_NETS)}")
    head = _head(name, model)
    # Tied weights share memory, which safetensors refuses: each name gets a copy.
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in net.state_dict().items()}
    weights = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    if bad := _not_finite(weights):
        raise ValueError(f"the weights of {name} are not finite in half precision: {bad}")
    data = to_safetensors(weights)
    manifest = {
        "name": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "net": type(net).__name__,
        "config": net.config,
        "head": head,
        "parameters": sum(p.numel() for p in net.parameters()),
        **about,
    }
    path = folder(root) / f"{name}.safetensors"
    write_atomically(path, data)
    write_atomically(path.with_suffix(".json"), json.dumps(manifest, indent=1).encode() + b"\n")
    return path


def manifest(name: str, *, root: Path | None = None) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises FileNotFoundError for an unknown name, ValueError for a damaged file."""
    path = _place(name, root) / f"{name}.json"
    if not path.exists() and path.with_suffix(".safetensors").exists():
        raise FileNotFoundError(f"{path} is missing, though its weights are there; {_REMEDY}")
    if not path.exists():
        known = names(root)
        raise FileNotFoundError(
            f'no checkpoint "{name}"{suggest(name, known)}; there are: {", ".join(known) or "none"}; {_REMEDY}'
        )
    try:
        about = json.loads(_read(path))
        if not isinstance(about, dict):
            raise ValueError(f"it holds {_short(about)}")
        if missing := [key for key in _NEEDED if key not in about]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        if not isinstance(about["net"], str) or not isinstance(about["config"], dict):
            raise ValueError(f"net is {_short(about['net'])} and config {_short(about['config'])}: a name and a table")
        _check_head(about["net"], about["head"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a manifest ({error}); {_REMEDY}") from error
    return about


def load(name: str, *, schedule: Schedule | None = None, device: str = "cpu", root: Path | None = None) -> Model:
    """A trained model in eval mode, without gradients: a denoiser, a classifier, an autoencoder, or a causal network.

    ``schedule`` serves a `Preconditioned` denoiser or a `LabelPosterior`; their networks only see noise levels, so
    any schedule will do (default: `vp_linear`). A `CategoricalDenoiser` brings its chain, its ``corruption``.
    Raises FileNotFoundError for an unknown name and ValueError for files that are damaged or do not fit.
    """
    about = manifest(name, root=root)
    path, kind = _place(name, root) / f"{name}.safetensors", about["net"]
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing, though its manifest is there; {_REMEDY}")
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise ValueError(f"{path} is not the file that its manifest describes (sha256 differs); restore both")
    if kind not in _NETS:
        raise ValueError(f'{path} holds a network "{kind}"; known here: {", ".join(_NETS)}')
    try:
        weights = from_safetensors(data)
        if kind == "UNet":  # two files were written by a network that held the U-Net as its part "unet"
            weights = {key.removeprefix("unet."): value for key, value in weights.items()}
        net = _NETS[kind](**about["config"])
        _check_weights(net, weights)
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
        model = _with_head(net, about["head"], schedule or vp_linear())
    except (
        SafetensorError,
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        LookupError,
        ArithmeticError,
    ) as error:
        detail = " ".join(str(error).split())[:200]  # torch lists every layer, one a line
        raise ValueError(f"the weights in {path} do not fit the {kind} of its manifest: {detail}") from error
    return model.to(device).eval().requires_grad_(False)


def _with_head(net: nn.Module, head: dict[str, Any] | None, schedule: Schedule) -> Model:
    if head is None:
        return net
    if head["kind"] == "labels":
        return LabelPosterior(net, schedule, head["sigma_data"])
    if head["kind"] == "categorical":
        return CategoricalDenoiser(net, CHAINS[head["chain"]](head["categories"]), head["categories"])
    return Preconditioned(net, schedule, **head)


def _head(name: str, model: Model) -> dict[str, Any] | None:
    """The head as a manifest names it; None for a network that serves as it is."""
    if isinstance(model, CategoricalDenoiser):
        half = torch.tensor([0.0, 0.5], dtype=torch.float64)
        for chain, make in CHAINS.items():
            theirs, ours = make(model.categories).matrix(*half), model.corruption.matrix(*half)
            if model.evidence and theirs.shape == ours.shape and torch.allclose(theirs, ours):
                return {"kind": "categorical", "chain": chain, "categories": model.categories}
        raise ValueError(f"{name} has a chain without a name; these can be saved, with evidence: {', '.join(CHAINS)}")
    if isinstance(model, Preconditioned | LabelPosterior):
        kind = "labels" if isinstance(model, LabelPosterior) else model.kind
        return {"kind": kind, "sigma_data": model.sigma_data}
    if type(model).__name__ not in _BARE:
        raise ValueError(f"{name} is a bare {type(model).__name__}; it needs a head, as `Preconditioned` is one")
    return None


def _check_head(net: str, head: Any) -> None:
    """Raise ValueError unless ``head`` is one that `_head` writes."""
    if head is None:
        if net in _NETS and net not in _BARE:
            raise ValueError(f"head is null, and a {net} needs one")
        return
    kind = head.get("kind") if isinstance(head, dict) else None
    if not isinstance(kind, str) or kind not in _HEADS or set(head) != {"kind", *_HEADS[kind]}:
        raise ValueError(f'head is {_short(head)}; accepted: null, or as in {{"kind": "edm", "sigma_data": 0.5}}')
    if kind == "categorical":
        if head["chain"] not in [*CHAINS] or type(head["categories"]) is not int or head["categories"] < 1:
            raise ValueError(
                f"head is {_short(head)}; a chain is one of {', '.join(CHAINS)}, with a number of categories"
            )
    elif type(head["sigma_data"]) not in (int, float) or not 0 < head["sigma_data"] < float("inf"):
        raise ValueError(f"sigma_data is {_short(head['sigma_data'])}; a positive number is accepted")


def _check_weights(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError for integers in place of floats, and for weights that are not finite."""
    for key, value in net.state_dict().items():
        if key in weights and weights[key].is_floating_point() != value.is_floating_point():
            raise ValueError(f"{key} is {weights[key].dtype}, not {value.dtype}")
    if bad := _not_finite(weights):
        raise ValueError(f"these are not finite: {bad}")


def _not_finite(weights: Mapping[str, Tensor]) -> str:
    return ", ".join([key for key, value in weights.items() if not value.isfinite().all()][:3])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder, not a file") from error


def _short(value: Any) -> str:
    return json.dumps(value)[:60]

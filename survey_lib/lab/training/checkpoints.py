"""Trained networks on disk: safetensors for the weights, and a manifest that says where they come from.

``data/checkpoints/NAME.safetensors`` and ``NAME.json`` belong together: the manifest holds the sha256 of the
weights, the class and configuration of the network, the data set, the recipe, the seed, the minutes and on
what, and what the network scored. A wrong hash, a cut-off file or a network that does not fit is refused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import nn

from survey_lib.core.heads import LabelPosterior, Preconditioned
from survey_lib.core.schedules import Schedule, vp_linear
from survey_lib.lab.runtime import HOME, suggest, write_atomically
from survey_lib.nets.autoencoder import Autoencoder
from survey_lib.nets.beside import Beside
from survey_lib.nets.classifier import Classifier, NoisyClassifier
from survey_lib.nets.mlp import MLP
from survey_lib.nets.transformer import Transformer
from survey_lib.nets.unet import UNet

Model = Preconditioned | LabelPosterior | Classifier
_NETS: dict[str, type[nn.Module]] = {
    net.__name__: net for net in (UNet, MLP, Classifier, NoisyClassifier, Beside, Autoencoder, Transformer)
}
_NEEDED = ("sha256", "net", "config", "head")  # what `load` reads in a manifest


def folder(root: Path | None = None) -> Path:
    """Where checkpoints lie: ``root``, or ``data/checkpoints`` of the course."""
    return HOME / "data" / "checkpoints" if root is None else Path(root)


def names(root: Path | None = None) -> list[str]:
    """The checkpoints that can be loaded."""
    return sorted(path.stem for path in folder(root).glob("*.safetensors"))


def save(name: str, model: Model, about: dict[str, Any], *, root: Path | None = None) -> Path:
    """Write a denoiser or a classifier with its manifest; returns the path of the weights.

    ``about`` is what cannot be read off the network: data set, recipe, seed, minutes, device, scores.
    The weights are stored in half precision, which halves the file and moves scores less than the seed does.
    Raises ValueError for weights that half precision cannot hold, NaN among them.
    """
    net = model.net if isinstance(model, Preconditioned | LabelPosterior) else model
    weights = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    weights = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    if bad := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise ValueError(f"the weights of {name} are not finite in half precision: {', '.join(bad[:3])}")
    data = to_safetensors(weights)
    manifest = {
        "name": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "net": type(net).__name__,
        "config": net.config,
        "head": _head(model),
        "parameters": sum(p.numel() for p in net.parameters()),
        **about,
    }
    path = folder(root) / f"{name}.safetensors"
    write_atomically(path, data)
    write_atomically(path.with_suffix(".json"), json.dumps(manifest, indent=1).encode() + b"\n")
    return path


def _head(model: Model) -> dict[str, Any] | None:
    """What makes the network into a denoiser, or a classifier of noisy images; None for what sees clean ones."""
    if not isinstance(model, Preconditioned | LabelPosterior):
        return None
    return {"kind": "labels" if isinstance(model, LabelPosterior) else model.kind, "sigma_data": model.sigma_data}


def manifest(name: str, *, root: Path | None = None) -> dict[str, Any]:
    """What is known of a checkpoint. Raises FileNotFoundError for an unknown name, ValueError for a damaged file."""
    path = folder(root) / f"{name}.json"
    if not path.exists() and path.with_suffix(".safetensors").exists():
        raise FileNotFoundError(f"{path} is missing, though its weights are there; `survey train {name}` makes both")
    if not path.exists():
        known = names(root)
        raise FileNotFoundError(
            f'no checkpoint "{name}"{suggest(name, known)}; there are: {", ".join(known) or "none"}; '
            f"`survey train {name}` makes those that the course knows"
        )
    try:
        about = json.loads(path.read_text())
        if missing := [key for key in _NEEDED if key not in about]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return about
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no manifest ({error}); restore it, or `survey train {name}` makes it anew"
        ) from error


def load(name: str, *, schedule: Schedule | None = None, device: str = "cpu", root: Path | None = None) -> Model:
    """A trained network in eval mode: a `Preconditioned` denoiser or a `LabelPosterior` of noisy images, both under
    ``schedule``, or a `Classifier` of clean ones.

    The first two know only noise levels, so any schedule will do; the default is `vp_linear`, DDPM's.
    Raises FileNotFoundError for an unknown name and ValueError for files that are damaged or do not fit.
    """
    about = manifest(name, root=root)
    path = folder(root) / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing, though its manifest is there; `survey train {name}` makes it anew")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise ValueError(f"{path} is not the file that its manifest describes (sha256 differs); restore both")
    if about["net"] not in _NETS:
        raise ValueError(f'{path} holds a network "{about["net"]}"; known here: {", ".join(_NETS)}')
    try:
        net = _NETS[about["net"]](**about["config"])
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in from_safetensors(data).items()})
    except (SafetensorError, TypeError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]  # torch lists every layer, one a line
        raise ValueError(f"the weights in {path} do not fit the {about['net']} of its manifest: {detail}") from error
    head = about["head"]
    if head is None:
        model: Model = net
    elif head["kind"] == "labels":
        model = LabelPosterior(net, schedule or vp_linear(), head["sigma_data"])
    else:
        model = Preconditioned(net, schedule or vp_linear(), **head)
    return model.to(device).eval().requires_grad_(False)

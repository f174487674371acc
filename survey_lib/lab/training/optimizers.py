"""The optimiser of a training: Adam, or Muon for the matrices inside the network and Adam for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from survey_lib.lab.training.trainer import Recipe

_ENDS = ("enter", "leave")  # names of a network's first and last layer, which Adam updates


class Optimizer:
    """One step of Adam or, with ``recipe.optimizer == "muon"``, of Muon (Jordan et al. 2024) and Adam.

    Muon makes the update of a weight matrix orthogonal, so that no direction is left behind. The matrices are all
    weights of two and more dimensions, a convolution as ``out x rest``, but for embeddings and the network's ends.
    """

    def __init__(self, model: nn.Module, recipe: Recipe):
        self.recipe = recipe
        inner = dict(_matrices(model)) if recipe.optimizer == "muon" else {}
        rest = [p for name, p in model.named_parameters() if name not in inner]
        self.inner = list(inner.values())
        self.views = [nn.Parameter(_matrix(p.detach())) for p in self.inner]  # of the same memory
        self.adam = torch.optim.Adam(rest, **recipe.adam(0))
        self.muon = torch.optim.Muon(self.views, lr=recipe.matrix_rate, weight_decay=0.0) if inner else None
        self.all = [p for p in model.parameters()]

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.all:
            p.grad = None

    def step(self, number: int) -> None:
        """Update all parameters from their gradients, with the learning rates of step ``number``."""
        settings = self.recipe.adam(number)
        self.adam.param_groups[0].update(settings)
        self.adam.step()
        if self.muon is None:
            return
        for p, view in zip(self.inner, self.views, strict=True):
            view.grad = None if p.grad is None else _matrix(p.grad)
        self.muon.param_groups[0]["lr"] = self.recipe.matrix_rate * settings["lr"] / self.recipe.rate
        self.muon.step()

    def tensors(self) -> dict[str, Tensor]:
        """The moments by name, as in ``adam.0.exp_avg``."""
        return {
            f"{kind}.{index}.{name}": value
            for kind, one in self._parts()
            for index, moments in one.state_dict()["state"].items()
            for name, value in moments.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from the moments that `tensors` returned."""
        for kind, one in self._parts():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                owner, index, name = key.split(".")
                if owner == kind:
                    state.setdefault(int(index), {})[name] = value
            one.load_state_dict({**one.state_dict(), "state": state})

    def _parts(self) -> list[tuple[str, torch.optim.Optimizer]]:
        return [("adam", self.adam), *([("muon", self.muon)] if self.muon else [])]


def _matrices(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and weights that Muon updates."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) or path.rpartition(".")[2] in _ENDS:
            continue
        for name, p in module.named_parameters(prefix=path, recurse=False):
            if p.ndim >= 2 and min(_matrix(p).shape) > 1:
                yield name, p


def _matrix(weight: Tensor) -> Tensor:
    """A weight as a matrix ``out x rest``; of the same memory where a convolution lies channels last in it."""
    return weight.movedim(1, -1).flatten(1) if weight.ndim > 2 else weight

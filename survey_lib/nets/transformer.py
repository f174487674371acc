"""A small transformer over tokens: bidirectional for diffusion, causal for autoregression."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.layers import LabelEmbedding, NoiseEmbedding


class Transformer(nn.Module):
    """Transformer ``net(x, c_noise, cond)``: tokens (B, length) in 0 ... states - 1 -> logits (B, length, outputs).

    Learned positions, then ``layers`` of attention and a feed-forward layer four times as wide. Noise level and label
    act by FiLM on the input of each, at a cost that does not grow with the length.

    classes: number of labels. ``cond`` (B,) then holds labels; ``classes`` itself, or None, stands for "no label".
    causal: the logits at a position depend on the tokens before it alone. ``c_noise`` is then None.

    Raises ValueError for tokens of another length.
    """

    def __init__(
        self,
        states: int,
        outputs: int,
        length: int,
        *,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        classes: int | None = None,
        causal: bool = False,
    ):
        super().__init__()
        self.config = dict(
            states=states, outputs=outputs, length=length, width=width, layers=layers, heads=heads, classes=classes,
            causal=causal,
        )  # fmt: skip
        self.length, self.states, self.classes, self.causal = length, states, classes, causal
        self.embed = nn.Embedding(states + causal, width)  # causal: one more, the token before the first
        self.places = nn.Parameter(torch.zeros(length, width))
        self.noise = None if causal else NoiseEmbedding(width)
        self.label = None if classes is None else LabelEmbedding(classes, width)
        self.blocks = nn.ModuleList(Layer(width, heads, causal) for _ in range(layers))
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, outputs)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, c_noise: Tensor | None, cond: Tensor | None = None) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.length or x.is_floating_point():
            raise ValueError(f"this transformer takes integers (B, {self.length}); got {x.dtype} {tuple(x.shape)}")
        if (c_noise is None) != self.causal:
            raise ValueError("c_noise must be None for a causal transformer, and (B,) for any other")
        if self.causal:
            x = F.pad(x[:, :-1], (1, 0), value=self.states)
        h = self.embed(x) + self.places
        e = h.new_zeros(len(x), h.shape[2]) if c_noise is None else self.noise(c_noise)
        if self.label is not None:
            e = e + self.label(cond, len(x))
        elif cond is not None:
            raise ValueError("this transformer was built without classes, so cond must be None")
        e = F.silu(e)
        for block in self.blocks:
            h = block(h, e)
        return self.leave(self.norm(h))


class Layer(nn.Module):
    """Residual attention, then a residual feed-forward layer; the last layer of each is initialised to zero.

    film: whether an embedding scales and shifts the input of each. Without, ``e`` is None.

    Raises ValueError for a width that is not a multiple of ``heads``.
    """

    def __init__(self, width: int, heads: int, causal: bool = False, film: bool = True):
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} does not divide into {heads} heads of attention")
        self.heads, self.causal = heads, causal
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=not film) for _ in range(2))
        self.film = nn.Linear(width, 4 * width) if film else None
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (self.out, self.narrow):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, e: Tensor | None = None) -> Tensor:  # (B, L, width), (B, width)
        films = None if self.film is None else self.film(e).unsqueeze(1).chunk(4, dim=-1)
        seen = self._input(h, 0, films)
        q, k, v = rearrange(self.qkv(seen), "b l (three n c) -> three b n l c", three=3, n=self.heads)
        # Written out: on a CPU the backward pass of torch's fused attention takes ten times as long for few tokens.
        scores = q @ k.mT * k.shape[-1] ** -0.5  # (B, heads, L, L)
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=h.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        h = h + self.out(rearrange(scores.softmax(-1) @ v, "b n l c -> b l (n c)"))
        return h + self.narrow(F.gelu(self.wide(self._input(h, 1, films))))

    def _input(self, h: Tensor, part: int, films: tuple[Tensor, ...] | None) -> Tensor:
        """The normalised input of attention (part 0) or of the feed-forward layer (part 1)."""
        seen = self.norms[part](h)
        return seen if films is None else torch.addcmul(films[2 * part + 1], seen, 1 + films[2 * part])

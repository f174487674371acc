"""A small transformer over tokens: bidirectional for diffusion, causal for autoregression."""

from __future__ import annotations

from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.layers import LabelEmbedding, NoiseEmbedding, zeroed

#: Keys and values of each layer, (B, heads, L, c).
Cache = tuple[tuple[Tensor, Tensor], ...]


class Transformer(nn.Module):
    """Transformer ``net(x, c_noise, cond)``: tokens (B, length) in 0 ... states - 1 -> logits (B, length, outputs).

    Learned positions, then ``layers`` of attention and a feed-forward layer four times as wide. Noise level and label
    act by FiLM on the input of each, at a cost that does not grow with the length.

    classes: number of labels. ``cond`` (B,) then holds labels; ``classes`` itself, or None, stands for "no label".
    causal: the logits at a position depend on the tokens before it alone. ``c_noise`` is then None. With a ``cache``
        of keys and values each position is computed once: ``net(before, None, cond, cache)`` takes the token before,
        (B,), and returns the logits (B, outputs) and the larger cache. A sequence begins with ``states`` and ``()``.

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
        self.norm, self.leave = nn.LayerNorm(width), zeroed(nn.Linear(width, outputs))

    def forward(self, x: Tensor, c_noise: Tensor | None, cond: Tensor | None = None, cache: Cache | None = None) -> Any:
        if cache is not None:
            if not self.causal or x.ndim != 1:
                raise ValueError("a cache goes with a causal transformer and the token before, (B,)")
            logits, cache = self._continue(x[:, None], None, cond, cache)
            return logits[:, 0], cache
        if x.ndim != 2 or x.shape[1] != self.length or x.is_floating_point():
            raise ValueError(f"this transformer takes integers (B, {self.length}); got {x.dtype} {tuple(x.shape)}")
        if (c_noise is None) != self.causal:
            raise ValueError("c_noise must be None for a causal transformer, and (B,) for any other")
        if self.causal:
            x = F.pad(x[:, :-1], (1, 0), value=self.states)
        return self._continue(x, c_noise, cond, ())[0]

    def _continue(
        self, tokens: Tensor, c_noise: Tensor | None, cond: Tensor | None, cache: Cache
    ) -> tuple[Tensor, Cache]:
        """Logits (B, n, outputs) at the n places of the tokens behind those in ``cache``, and the cache with them."""
        place = cache[0][0].shape[2] if cache else 0
        h = self.embed(tokens) + self.places[place : place + tokens.shape[1]]
        e = h.new_zeros(len(h), h.shape[2]) if self.noise is None else self.noise(c_noise)
        if self.label is not None:
            e = e + self.label(cond, len(h))
        elif cond is not None:
            raise ValueError("this transformer was built without classes, so cond must be None")
        e, grown = F.silu(e), []
        for index, block in enumerate(self.blocks):
            h, one = cast(Layer, block).extend(h, e, cache[index] if cache else None)
            grown.append(one)
        return self.leave(self.norm(h)), tuple(grown)


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
        self.qkv, self.out = nn.Linear(width, 3 * width), zeroed(nn.Linear(width, width))
        self.wide, self.narrow = nn.Linear(width, 4 * width), zeroed(nn.Linear(4 * width, width))

    def forward(self, h: Tensor, e: Tensor | None = None) -> Tensor:  # (B, L, width), (B, width)
        return self.extend(h, e)[0]

    def extend(
        self, h: Tensor, e: Tensor | None, cache: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Output at the places of ``h``, which follow those in ``cache``; keys and values (B, heads, L, c) of all."""
        films = None if self.film is None else self.film(e).unsqueeze(1).chunk(4, dim=-1)
        seen = self._input(h, 0, films)
        q, k, v = rearrange(self.qkv(seen), "b l (three n c) -> three b n l c", three=3, n=self.heads)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        # Written out: on a CPU the backward pass of torch's fused attention takes ten times as long for few tokens.
        scores = q @ k.mT * k.shape[-1] ** -0.5  # (B, heads, places, L)
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=h.device).triu(1 + k.shape[2] - q.shape[2])
            scores = scores.masked_fill(later, -torch.inf)
        h = h + self.out(rearrange(scores.softmax(-1) @ v, "b n l c -> b l (n c)"))
        return h + self.narrow(F.gelu(self.wide(self._input(h, 1, films)))), (k, v)

    def _input(self, h: Tensor, part: int, films: tuple[Tensor, ...] | None) -> Tensor:
        """The normalised input of attention (part 0) or of the feed-forward layer (part 1)."""
        seen = self.norms[part](h)
        return seen if films is None else torch.addcmul(films[2 * part + 1], seen, 1 + films[2 * part])

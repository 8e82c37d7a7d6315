"""Attention with stacked LoRAs and interpolated self-attention inputs, for a whole batch at once.

Two facts carry it. A LoRA between two fits is one product with both factors stacked and a mix, so every
row of the batch has its own alpha and no weights of its own. And when the batch's first and last rows
are the two ends, their attention inputs are there at every layer and step: nothing is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")


@dataclass(slots=True, eq=False)
class StackedLora:
    """The LoRAs of K fits for one projection: down (K, r, in), up (K, out, r)."""

    down: Tensor
    up: Tensor

    def __call__(self, x: Tensor, weights: Tensor) -> Tensor:
        """What the mixed LoRA adds for x (B, T, in) with fit weights (B, K): both factors are mixed."""
        fits, rank, _ = self.down.shape
        low = F.linear(x, self.down.flatten(0, 1)).unflatten(-1, (fits, rank))
        mixed = torch.einsum("btkr,bk->btr", low, weights)
        spread = (mixed.unsqueeze(2) * weights[:, None, :, None]).flatten(2)
        return F.linear(spread, self.up.permute(1, 0, 2).flatten(1))

    def row_by_row(self, x: Tensor) -> Tensor:
        """What each row's own LoRA adds, row i having fit i: x (K, T, in)."""
        return torch.bmm(torch.bmm(x, self.down.transpose(1, 2)), self.up.transpose(1, 2))


Loras = dict[str, StackedLora]
"""By layer and projection: "<attention module's path>.to_q" and so on."""


@dataclass(slots=True, eq=False)
class Blend:
    """What the attention layers of one forward pass need to know of its rows.

    `weights` (B, K) mixes the fits' LoRAs; None gives row i the LoRA of fit i. With `mixing`, keys and
    values of the up blocks' self-attention read (1 - alpha) h_0 + alpha h_1 with `alphas` (B,), h_0 and
    h_1 being the inputs of the first and last row. `queries` is for how many tokens of one row attention is
    computed at once; 0 is for all of all rows.
    """

    loras: Loras = field(default_factory=dict)
    weights: Tensor | None = None
    alphas: Tensor | None = None
    mixing: bool = False
    queries: int = 0

    def add(self, name: str, x: Tensor, base: Tensor) -> Tensor:
        """A projection's output with its LoRA's share."""
        lora = self.loras.get(name)
        if lora is None:
            return base
        if self.weights is None:
            return base + lora.row_by_row(x.to(lora.down.dtype)).to(base.dtype)
        return base + lora(x, self.weights.to(x.dtype))

    def read(self, x: Tensor) -> Tensor:
        """The input that keys and values read, for rows x (B, T, C)."""
        if not self.mixing or self.alphas is None:
            return x
        alpha = self.alphas.to(x.dtype)[:, None, None]
        return (1 - alpha) * x[:1] + alpha * x[-1:]


class MorphAttention:
    """The attention processor of one layer (the interface is diffusers')."""

    def __init__(self, name: str, blend: Blend) -> None:
        self._name = name
        self._blend = blend
        # The paper interpolates in the upsampling blocks alone (section 3.3).
        self._mixes = ".attn1" in name and name.startswith("up_blocks")

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_unused: Any,
    ) -> Tensor:
        """Attention over tokens (B, T, C), as diffusers' own processor computes it."""
        residual, shape = hidden_states, hidden_states.shape
        x = _tokens(attn, hidden_states, temb)
        read = self._blend.read(x) if self._mixes and encoder_hidden_states is None else x
        source = _source(attn, read, encoder_hidden_states)
        query = self._project(attn.to_q, "to_q", x)
        key = self._project(attn.to_k, "to_k", source)
        value = self._project(attn.to_v, "to_v", source)
        out = _attend(attn, query, key, value, attention_mask, at_once=self._blend.queries)
        out = attn.to_out[1](self._project(attn.to_out[0], "to_out", out))
        if len(shape) == 4:
            out = out.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor

    def _project(self, layer: nn.Module, projection: str, x: Tensor) -> Tensor:
        return self._blend.add(f"{self._name}.{projection}", x, layer(x))


def _tokens(attn: Any, x: Tensor, temb: Tensor | None) -> Tensor:
    if attn.spatial_norm is not None:
        x = attn.spatial_norm(x, temb)
    if x.ndim == 4:
        x = x.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
    return x


def _source(attn: Any, own: Tensor, text: Tensor | None) -> Tensor:
    if text is None:
        return own
    return attn.norm_encoder_hidden_states(text) if attn.norm_cross else text


def _attend(
    attn: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, at_once: int
) -> Tensor:
    heads = attn.heads
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    if at_once and mask is None:
        out = _attend_in_parts(q, k, v, scale=attn.scale, at_once=at_once)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=attn.scale)
    return out.transpose(1, 2).flatten(2)


def _attend_in_parts(q: Tensor, k: Tensor, v: Tensor, *, scale: float, at_once: int) -> Tensor:
    """The same for q, k, v (B, heads, T, C), a row and `at_once` of its queries at a time."""
    rows = [
        [
            F.scaled_dot_product_attention(part, k[row : row + 1], v[row : row + 1], scale=scale)
            for part in q[row : row + 1].split(at_once, dim=2)
        ]
        for row in range(len(q))
    ]
    return torch.cat([torch.cat(parts, dim=2) for parts in rows])


def install(network: Any, blend: Blend) -> None:
    """Gives every attention layer of a network or VAE our processor; they all share `blend`."""
    network.set_attn_processor(
        {name: MorphAttention(name.removesuffix(".processor"), blend) for name in network.attn_processors}
    )


def projections(unet: Any) -> dict[str, tuple[int, int]]:
    """Every projection that a LoRA covers, with its (in, out) features."""
    found: dict[str, tuple[int, int]] = {}
    for processor in unet.attn_processors:
        name = processor.removesuffix(".processor")
        layer = unet.get_submodule(name)
        for projection in PROJECTIONS:
            linear = layer.to_out[0] if projection == "to_out" else getattr(layer, projection)
            found[f"{name}.{projection}"] = (linear.in_features, linear.out_features)
    return found

"""The arithmetic of one layer of T5's encoder, with the tensor names of the released files.

Owns no files, devices or order of layers: :mod:`engine.models.t5_layers` does. Follows transformers'
``T5EncoderModel`` (v1.1: gated GELU in its tanh form, no biases, unscaled scores) to the last bit for one caption,
which is tested; a whole model of theirs cannot be filled layer by layer.

Shapes: B captions, T tokens, C width, H heads.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.text_layout import T5Sizes

_EPS = 1e-6


class T5Norm(nn.Module):
    """Division by the root of the mean square (in float32) and a weight; no mean is taken off, no bias added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to the same shape, in the weight's type."""
        x = x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + _EPS)
        if self.weight.dtype in (torch.float16, torch.bfloat16):
            x = x.to(self.weight.dtype)
        return self.weight * x


class SelfAttention(nn.Module):
    """Attention of all heads with a bias that depends on the tokens' distance; scores are not scaled."""

    def __init__(self, sizes: T5Sizes, with_bias: bool) -> None:
        super().__init__()
        inner = sizes.num_heads * sizes.d_kv
        self.heads = sizes.num_heads
        self.q = nn.Linear(sizes.d_model, inner, bias=False)
        self.k = nn.Linear(sizes.d_model, inner, bias=False)
        self.v = nn.Linear(sizes.d_model, inner, bias=False)
        self.o = nn.Linear(inner, sizes.d_model, bias=False)
        if with_bias:
            self.relative_attention_bias = nn.Embedding(sizes.buckets, sizes.num_heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (B, T, C) to the same shape; ``bias`` (1 or B, H, T, T) is added to the scores."""
        batch, tokens = x.shape[:2]
        q, k, v = (each(x).view(batch, tokens, self.heads, -1).transpose(1, 2) for each in (self.q, self.k, self.v))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.o(found.transpose(1, 2).contiguous().reshape(batch, tokens, -1))


class GatedFeedForward(nn.Module):
    """``wo(gelu(wi_0 x) * wi_1 x)``; ``wo`` may be wider than the rest."""

    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(sizes.d_model, sizes.d_ff, bias=False)
        self.wi_1 = nn.Linear(sizes.d_model, sizes.d_ff, bias=False)
        self.wo = nn.Linear(sizes.d_ff, sizes.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to the same shape, in ``wo``'s type."""
        return self.wo((_gelu(self.wi_0(x)) * self.wi_1(x)).to(self.wo.weight.dtype))


class AttentionPart(nn.Module):
    """Norm and attention, added to the input."""

    def __init__(self, sizes: T5Sizes, with_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(sizes, with_bias)
        self.layer_norm = T5Norm(sizes.d_model)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (B, T, C) to the same shape."""
        return x + self.SelfAttention(self.layer_norm(x), bias)


class FeedForwardPart(nn.Module):
    """Norm and feed-forward, added to the input."""

    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__()
        self.DenseReluDense = GatedFeedForward(sizes)
        self.layer_norm = T5Norm(sizes.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to the same shape."""
        return x + self.DenseReluDense(self.layer_norm(x))


class T5Layer(nn.Module):
    """One of the encoder's layers; the first holds the table of position biases that all of them use."""

    def __init__(self, sizes: T5Sizes, number: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList([AttentionPart(sizes, with_bias=number == 0), FeedForwardPart(sizes)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (B, T, C) to the same shape; ``bias`` is :func:`attention_bias`'s."""
        return _finite(self.layer[1](_finite(self.layer[0](x, bias))))

    def position_bias(self, tokens: int, sizes: T5Sizes) -> Tensor:
        """What distance adds to each score, (1, H, T, T); the first layer knows it."""
        table = cast(nn.Embedding, self.get_submodule("layer.0.SelfAttention.relative_attention_bias"))
        places = torch.arange(tokens, device=table.weight.device)
        found: Tensor = table(distance_buckets(places[None, :] - places[:, None], sizes))
        return found.permute(2, 0, 1)[None]


def attention_bias(positions: Tensor, attended: Tensor | None) -> Tensor:
    """``positions`` (1, H, T, T) for captions whose tokens in ``attended`` (B, T) bool count; None: all of them."""
    if attended is not None:
        positions = torch.where(attended[:, None, None, :], positions, torch.finfo(positions.dtype).min)
    return positions.contiguous()


def distance_buckets(distance: Tensor, sizes: T5Sizes) -> Tensor:
    """The row of the bias table for each distance (key's place minus query's).

    Half the rows are for keys behind the query; of each half the first half counts exactly, the rest by logarithm up
    to ``max_distance``.
    """
    half = sizes.buckets // 2
    exact = half // 2
    far = distance.abs()
    steps = torch.log(far.float() / exact) / math.log(sizes.max_distance / exact) * (half - exact)
    coarse = (exact + steps.to(torch.long)).clamp(max=half - 1)
    return (distance > 0).to(torch.long) * half + torch.where(far < exact, far, coarse)


def _gelu(x: Tensor) -> Tensor:
    # Written out as transformers has it: torch's fused tanh form rounds differently.
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def _finite(x: Tensor) -> Tensor:
    """In float16 infinities become the largest numbers, without a word from the device."""
    if x.dtype != torch.float16:
        return x
    most = torch.finfo(x.dtype).max
    limit = torch.where(torch.isinf(x).any(), most - 1000, most)
    return torch.clamp(x, min=-limit, max=limit)

"""The FLUX.1 transformer, ours, in the key layout of the released single files.

Owns the arithmetic from packed latents, text states and a noise level to a velocity; knows nothing of files,
adapters or memory tricks. It is the plain readable reference: faster paths are tested against it. The
arithmetic and the tensor names follow black-forest-labs/flux (``src/flux/model.py``, ``modules/layers.py``);
rotary angles are computed in float64 as in diffusers and kohya sd-scripts.

Shape suffixes: B batch, S image tokens, T text tokens, L = T + S, D hidden size, H heads, K head width.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class FluxParams:
    """Size and variant of a FLUX transformer; the defaults are FLUX.1-dev's published values."""

    in_channels: int = 64
    vec_in_dim: int = 768
    context_in_dim: int = 4096
    hidden_size: int = 3072
    mlp_ratio: float = 4.0
    num_heads: int = 24
    depth: int = 19
    depth_single_blocks: int = 38
    axes_dim: tuple[int, ...] = (16, 56, 56)
    theta: int = 10_000
    qkv_bias: bool = True
    guidance_embed: bool = True
    out_channels: int = 64

    def __post_init__(self) -> None:
        """Check what no shape can tell.

        Raises:
            ValueError: heads do not divide the width, or the rotary axes do not fill a head.
        """
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        head = self.hidden_size // self.num_heads
        if sum(self.axes_dim) != head:
            raise ValueError(f"axes_dim {list(self.axes_dim)} adds up to {sum(self.axes_dim)}, a head is {head}")
        if any(axis % 2 for axis in self.axes_dim):
            raise ValueError(f"axes_dim {list(self.axes_dim)} must be even: rotations act on pairs")

    @property
    def mlp_hidden(self) -> int:
        """Width of the MLP's hidden layer."""
        return int(self.hidden_size * self.mlp_ratio)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to a header's ``params``."""
        return {**asdict(self), "axes_dim": list(self.axes_dim)}


def timestep_embedding(t: Tensor, dim: int = 256, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of ``t`` (B,), cosines first, as in BFL's ``timestep_embedding``.

    Computed in float32 whatever the model's precision: rounding ``1000 t`` to bfloat16 would move a noise
    level by up to four thousandths.

    Returns:
        Tensor (B, dim), float32.
    """
    half = dim // 2
    scale = -math.log(max_period) / half
    freqs = torch.exp(scale * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = (t.float() * 1000.0)[:, None] * freqs[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotary_table(ids: Tensor, axes_dim: tuple[int, ...], theta: int) -> Tensor:
    """Cosines and sines of the rotary angles for position ids (B, L, axes).

    Returns:
        Tensor (2, B, 1, L, K/2), float32; angles in float64.
    """
    angles = []
    for axis, dim in enumerate(axes_dim):
        exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=ids.device) / dim
        angles.append(ids[..., axis].double()[..., None] * theta ** (-exponents))
    table = torch.cat(angles, dim=-1)[:, None]
    return torch.stack([table.cos(), table.sin()]).float()


def apply_rotary(x: Tensor, table: Tensor) -> Tensor:
    """Rotate adjacent pairs of ``x`` (B, H, L, K) in float32; the result has the dtype of ``x``."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table[0], table[1]
    return torch.stack([cos * even - sin * odd, sin * even + cos * odd], dim=-1).flatten(-2).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, rotary: Tensor, mask: Tensor | None = None) -> Tensor:
    """Rotary attention over (B, H, L, K); ``mask`` is boolean (B, 1, 1, L), True where a key is attended.

    Returns:
        Tensor (B, L, H*K).
    """
    q, k = apply_rotary(q, rotary), apply_rotary(k, rotary)
    out = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``(1 + scale) * LayerNorm(x) + shift`` with a LayerNorm that has no weights (eps 1e-6)."""
    return (1 + scale) * F.layer_norm(x, (x.shape[-1],), eps=1e-6) + shift


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis with float32 statistics (eps 1e-6)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (..., dim); same dtype out."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return normed.to(x.dtype) * self.scale


class QKNorm(nn.Module):
    """The two norms of queries and keys, per head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(dim)
        self.key_norm = RMSNorm(dim)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise queries and keys (..., K)."""
        return self.query_norm(q), self.key_norm(k)


class Embedder(nn.Module):
    """Linear, SiLU, Linear: lifts a timestep, a guidance or a pooled text to the hidden width."""

    def __init__(self, in_dim: int, hidden: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(in_dim, hidden)
        self.out_layer = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_dim) to (B, D)."""
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """Shift, scale and gate for one (or two) residual branches, from the conditioning vector."""

    def __init__(self, dim: int, chunks: int) -> None:
        super().__init__()
        self.chunks = chunks
        self.lin = nn.Linear(dim, chunks * dim)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        """Map (B, D) to ``chunks`` tensors (B, 1, D) in the order shift, scale, gate[, shift, scale, gate]."""
        return self.lin(F.silu(vec))[:, None].chunk(self.chunks, dim=-1)


class SelfAttention(nn.Module):
    """The linears and norms of one stream's attention; the joint attention itself is in the block."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.norm = QKNorm(dim // num_heads)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normed queries, keys and values (B, H, L, K) of ``x`` (B, L, D)."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        q, k = self.norm(q, k)
        return q, k, v


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split (B, L, 3D) with rows ordered (q k v)(head)(width) into three (B, H, L, K)."""
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


class DoubleStreamBlock(nn.Module):
    """Image and text each with their own weights, joined in attention (text first)."""

    def __init__(self, p: FluxParams) -> None:
        super().__init__()
        dim = p.hidden_size

        def mlp() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(dim, p.mlp_hidden), nn.GELU(approximate="tanh"), nn.Linear(p.mlp_hidden, dim)
            )

        self.img_mod = Modulation(dim, 6)
        self.img_attn = SelfAttention(dim, p.num_heads, p.qkv_bias)
        self.img_mlp = mlp()
        self.txt_mod = Modulation(dim, 6)
        self.txt_attn = SelfAttention(dim, p.num_heads, p.qkv_bias)
        self.txt_mlp = mlp()

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, rotary: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Advance ``img`` (B, S, D) and ``txt`` (B, T, D) by one block."""
        i_shift1, i_scale1, i_gate1, i_shift2, i_scale2, i_gate2 = self.img_mod(vec)
        t_shift1, t_scale1, t_gate1, t_shift2, t_scale2, t_gate2 = self.txt_mod(vec)

        img_heads = self.img_attn.heads(modulate(img, i_shift1, i_scale1))
        txt_heads = self.txt_attn.heads(modulate(txt, t_shift1, t_scale1))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(txt_heads, img_heads, strict=True))
        joint = attention(q, k, v, rotary, mask)
        txt_out, img_out = joint.split([txt.shape[1], img.shape[1]], dim=1)

        img = img + i_gate1 * self.img_attn.proj(img_out)
        img = img + i_gate2 * self.img_mlp(modulate(img, i_shift2, i_scale2))
        txt = txt + t_gate1 * self.txt_attn.proj(txt_out)
        txt = txt + t_gate2 * self.txt_mlp(modulate(txt, t_shift2, t_scale2))
        return img, txt


class SingleStreamBlock(nn.Module):
    """Text and image in one stream; attention and MLP side by side through two fused linears."""

    def __init__(self, p: FluxParams) -> None:
        super().__init__()
        dim = p.hidden_size
        self.dim = dim
        self.num_heads = p.num_heads
        self.mlp_hidden = p.mlp_hidden
        self.linear1 = nn.Linear(dim, 3 * dim + p.mlp_hidden)
        self.linear2 = nn.Linear(dim + p.mlp_hidden, dim)
        self.norm = QKNorm(dim // p.num_heads)
        self.modulation = Modulation(dim, 3)

    def forward(self, x: Tensor, vec: Tensor, rotary: Tensor, mask: Tensor | None = None) -> Tensor:
        """Advance ``x`` (B, L, D) by one block."""
        shift, scale, gate = self.modulation(vec)
        qkv, hidden = self.linear1(modulate(x, shift, scale)).split([3 * self.dim, self.mlp_hidden], dim=-1)
        q, k, v = split_heads(qkv, self.num_heads)
        q, k = self.norm(q, k)
        attended = attention(q, k, v, rotary, mask)
        return x + gate * self.linear2(torch.cat([attended, F.gelu(hidden, approximate="tanh")], dim=-1))


class FinalLayer(nn.Module):
    """The last modulated norm and the projection to packed channels."""

    def __init__(self, dim: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        """Map (B, S, D) to (B, S, out_channels)."""
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear(modulate(x, shift, scale))


class FluxTransformer(nn.Module):
    """FLUX.1's rectified-flow transformer: packed latents in, velocity (noise minus data) out."""

    def __init__(self, params: FluxParams) -> None:
        super().__init__()
        self.params = params
        self.gradient_checkpointing = False
        dim = params.hidden_size
        self.img_in = nn.Linear(params.in_channels, dim)
        self.time_in = Embedder(256, dim)
        self.vector_in = Embedder(params.vec_in_dim, dim)
        self.guidance_in = Embedder(256, dim) if params.guidance_embed else None
        self.txt_in = nn.Linear(params.context_in_dim, dim)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(params) for _ in range(params.depth))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(params) for _ in range(params.depth_single_blocks))
        self.final_layer = FinalLayer(dim, params.out_channels)

    def conditioning(self, timesteps: Tensor, y: Tensor, guidance: Tensor | None) -> Tensor:
        """The vector (B, D) that drives every modulation, from sigma (B,), pooled text and guidance (B,).

        Raises:
            ValueError: the model embeds guidance and none was given.
        """
        dtype = self.time_in.in_layer.weight.dtype
        vec = self.time_in(timestep_embedding(timesteps).to(dtype))
        if self.guidance_in is not None:
            if guidance is None:
                raise ValueError("this model embeds guidance (FLUX.1-dev): give a guidance value per sample")
            vec = vec + self.guidance_in(timestep_embedding(guidance).to(dtype))
        return vec + self.vector_in(y.to(dtype))

    def forward(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        txt_mask: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity.

        Args:
            img: packed noisy latents (B, S, in_channels).
            img_ids: positions (B, S, 3), ``[0, row, column]`` on the packed grid.
            txt: T5 states (B, T, context_in_dim).
            txt_ids: positions (B, T, 3), all zero for FLUX.
            timesteps: sigma in [0, 1] (B,), float32.
            y: pooled CLIP state (B, vec_in_dim).
            guidance: embedded guidance (B,), raw (3.5, not 3500); ignored by models without the embedding.
            txt_mask: boolean (B, T), True where a text token is attended; None attends to all, as FLUX was
                trained.

        Returns:
            Tensor (B, S, out_channels).
        """
        vec = self.conditioning(timesteps, y, guidance)
        dtype = self.img_in.weight.dtype
        img, txt = self.img_in(img.to(dtype)), self.txt_in(txt.to(dtype))
        rotary = rotary_table(torch.cat([txt_ids, img_ids], dim=1), self.params.axes_dim, self.params.theta)
        mask = joint_mask(txt_mask, img.shape[1])

        for block in self.double_blocks:
            img, txt = self._run(block, img, txt, vec, rotary, mask)
        x = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            x = self._run(block, x, vec, rotary, mask)
        return self.final_layer(x[:, txt.shape[1] :], vec)

    def _run(self, block: nn.Module, *args: Any) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)


def joint_mask(txt_mask: Tensor | None, image_tokens: int) -> Tensor | None:
    """Extend a text mask (B, T) by always attended image tokens to (B, 1, 1, T + S)."""
    if txt_mask is None:
        return None
    image = txt_mask.new_ones(txt_mask.shape[0], image_tokens)
    return torch.cat([txt_mask, image], dim=1)[:, None, None].bool()


def pack_latents(latents: Tensor) -> Tensor:
    """Pack (B, C, h, w) into tokens (B, h/2*w/2, 4C), row-major; feature index ``c*4 + ph*2 + pw``.

    Raises:
        ValueError: height or width is odd.
    """
    batch, channels, height, width = latents.shape
    if height % 2 or width % 2:
        raise ValueError(f"latents of {height}x{width} cannot be packed: both sides must be even")
    x = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)


def unpack_latents(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo :func:`pack_latents` for latents of ``height`` x ``width``: (B, S, 4C) to (B, C, height, width)."""
    batch, _, features = tokens.shape
    x = tokens.reshape(batch, height // 2, width // 2, features // 4, 2, 2)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(batch, features // 4, height, width)


def image_ids(batch: int, height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Positions (B, height/2*width/2, 3) for latents of ``height`` x ``width``; float32."""
    rows, cols = height // 2, width // 2
    ids = torch.zeros(rows, cols, 3, device=device)
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(cols, device=device)[None, :]
    return ids.reshape(1, rows * cols, 3).repeat(batch, 1, 1)


def text_ids(batch: int, length: int, device: torch.device | str | None = None) -> Tensor:
    """Positions (B, length, 3) of text tokens: all zero; float32."""
    return torch.zeros(batch, length, 3, device=device)

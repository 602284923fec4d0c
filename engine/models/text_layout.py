"""The text encoders as files: sizes of CLIP-L and T5 read from a header, and the names and shapes they imply.

Torch-free. Names are transformers' (without CLIP's ``text_model.``), which ComfyUI's and kohya's single files use.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import ModelFileError
from engine.models.parts import Part, Shapes, agree, check_depth, stated_int, stated_params
from engine.text import safe_text

Layout = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ClipSizes:
    """Size of a CLIP text encoder; the defaults are clip-vit-large-patch14's."""

    vocab_size: int = 49408
    hidden_size: int = 768
    positions: int = 77
    layers: int = 12
    intermediate_size: int = 3072
    num_heads: int = 12

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to a header's ``params``."""
        return asdict(self)


@dataclass(frozen=True)
class T5Sizes:
    """Size of a T5 encoder (v1.1, gated); the defaults are T5-XXL's."""

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    layers: int = 24
    num_heads: int = 64
    buckets: int = 32
    max_distance: int = 128

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to a header's ``params``."""
        return asdict(self)


def clip_sizes(part: Part) -> ClipSizes:
    """Read the sizes of the CLIP text encoder in ``part``; heads from ``params``, else 64 wide as in CLIP-L.

    Raises:
        ModelFileError: params contradict shapes, or heads do not divide the width.
    """
    header, shapes, default = part.header, Shapes(part.tensors), ClipSizes()
    params = stated_params(header)

    def told(key: str, fallback: int, *places: tuple[str, int]) -> int:
        found = shapes.find(*places)
        if found:
            agree(header, params, key, *found)
        return found[0] if found else fallback

    layers = shapes.blocks("encoder.layers")
    check_depth(header, (layers,))
    hidden = told(
        "hidden_size", default.hidden_size, ("embeddings.token_embedding.weight", 1), ("final_layer_norm.weight", 0)
    )
    heads = stated_int(header, params, "num_heads", max(1, hidden // 64))
    if hidden < 1 or hidden % heads:
        raise ModelFileError(
            "The text encoder's heads are unknown",
            f"{safe_text(header.path, 400)}: {heads} heads do not divide the hidden size {hidden}",
            'State num_heads as JSON under "params" in the header\'s metadata.',
        )
    sizes = ClipSizes(
        vocab_size=told("vocab_size", default.vocab_size, ("embeddings.token_embedding.weight", 0)),
        hidden_size=hidden,
        positions=told("positions", default.positions, ("embeddings.position_embedding.weight", 0)),
        layers=layers,
        intermediate_size=told(
            "intermediate_size", default.intermediate_size, ("encoder.layers.N.mlp.fc1.weight", 0)
        ),
        num_heads=heads,
    )
    if sizes.vocab_size < 3 or sizes.positions < 3:
        raise _too_small(
            part, f"{sizes.vocab_size} tokens and {sizes.positions} positions hold no start, text and end"
        )
    return sizes


def _too_small(part: Part, detail: str) -> ModelFileError:
    return ModelFileError(
        "Not a text encoder that works", f"{safe_text(part.header.path, 400)}: {detail}", "The file is damaged."
    )


def clip_layout(sizes: ClipSizes) -> Layout:
    """Every tensor's name and shape for these sizes, without the prefix ``text_model.``."""
    dim, wide = sizes.hidden_size, sizes.intermediate_size
    out: Layout = {
        "embeddings.token_embedding.weight": (sizes.vocab_size, dim),
        "embeddings.position_embedding.weight": (sizes.positions, dim),
    }
    for layer in range(sizes.layers):
        at = f"encoder.layers.{layer}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            out |= {f"{at}.self_attn.{name}.weight": (dim, dim), f"{at}.self_attn.{name}.bias": (dim,)}
        for name in ("layer_norm1", "layer_norm2"):
            out |= {f"{at}.{name}.weight": (dim,), f"{at}.{name}.bias": (dim,)}
        out |= {f"{at}.mlp.fc1.weight": (wide, dim), f"{at}.mlp.fc1.bias": (wide,)}
        out |= {f"{at}.mlp.fc2.weight": (dim, wide), f"{at}.mlp.fc2.bias": (dim,)}
    return out | {"final_layer_norm.weight": (dim,), "final_layer_norm.bias": (dim,)}


def t5_sizes(part: Part) -> T5Sizes:
    """Read the sizes of the T5 encoder in ``part``; heads are the columns of the relative attention bias.

    Raises:
        ModelFileError: params contradict shapes, or heads do not divide the attention's width.
    """
    header, shapes, default = part.header, Shapes(part.tensors), T5Sizes()
    params = stated_params(header)

    def told(key: str, fallback: int, *places: tuple[str, int]) -> int:
        found = shapes.find(*places)
        if found:
            agree(header, params, key, *found)
        return found[0] if found else fallback

    layers = shapes.blocks("encoder.block")
    check_depth(header, (layers,))
    attention = "encoder.block.N.layer.0.SelfAttention"
    heads = told("num_heads", default.num_heads, (f"{attention}.relative_attention_bias.weight", 1))
    inner = shapes.find((f"{attention}.q.weight", 0), (f"{attention}.o.weight", 1))
    if inner and (heads < 1 or inner[0] % heads):
        raise ModelFileError(
            "The text encoder's heads are unknown",
            f"{safe_text(header.path, 400)}: {heads} heads (relative_attention_bias) do not divide {inner[0]} rows",
            "The file is damaged or not a T5 encoder.",
        )
    d_kv = inner[0] // heads if inner else default.d_kv
    agree(header, params, "d_kv", d_kv, inner[1] if inner else "T5")
    sizes = T5Sizes(
        vocab_size=told("vocab_size", default.vocab_size, ("shared.weight", 0)),
        d_model=told("d_model", default.d_model, ("shared.weight", 1), ("encoder.final_layer_norm.weight", 0)),
        d_kv=d_kv,
        d_ff=told("d_ff", default.d_ff, ("encoder.block.N.layer.1.DenseReluDense.wi_0.weight", 0)),
        layers=layers,
        num_heads=heads,
        buckets=told("buckets", default.buckets, (f"{attention}.relative_attention_bias.weight", 0)),
        max_distance=stated_int(header, params, "max_distance", default.max_distance),
    )
    # Half the buckets look each way, half of those are exact; the others divide by log(max_distance / exact).
    if sizes.buckets < 4 or sizes.max_distance <= sizes.buckets // 4:
        raise _too_small(part, f"{sizes.buckets} buckets of relative positions up to {sizes.max_distance}")
    return sizes


def t5_layout(sizes: T5Sizes) -> Layout:
    """Every tensor's name and shape for these sizes; the tied ``encoder.embed_tokens.weight`` is left out."""
    dim, inner, wide = sizes.d_model, sizes.num_heads * sizes.d_kv, sizes.d_ff
    out: Layout = {"shared.weight": (sizes.vocab_size, dim)}
    for layer in range(sizes.layers):
        at = f"encoder.block.{layer}.layer"
        for name in ("q", "k", "v"):
            out[f"{at}.0.SelfAttention.{name}.weight"] = (inner, dim)
        out[f"{at}.0.SelfAttention.o.weight"] = (dim, inner)
        if layer == 0:
            out[f"{at}.0.SelfAttention.relative_attention_bias.weight"] = (sizes.buckets, sizes.num_heads)
        out[f"{at}.0.layer_norm.weight"] = (dim,)
        out[f"{at}.1.DenseReluDense.wi_0.weight"] = (wide, dim)
        out[f"{at}.1.DenseReluDense.wi_1.weight"] = (wide, dim)
        out[f"{at}.1.DenseReluDense.wo.weight"] = (dim, wide)
        out[f"{at}.1.layer_norm.weight"] = (dim,)
    return out | {"encoder.final_layer_norm.weight": (dim,)}

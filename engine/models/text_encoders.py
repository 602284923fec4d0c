"""CLIP-L and T5 as FLUX.1 uses them: token ids in, a pooled state or token states out.

The arithmetic is transformers'; the files are the single ones of ComfyUI and kohya, loaded by our own strict
loader (transformers' CLIP has other names than the files, and a lax load would load nothing silently).

Shapes: B captions, T tokens, C width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from engine.models.detect import expect_part
from engine.models.header import encoder_fingerprint
from engine.models.parts import Part
from engine.models.text_layout import ClipSizes, T5Sizes, clip_sizes, t5_sizes
from engine.models.weights import load_weights


class ClipTextEncoder:
    """CLIP's text tower; its output is the final-norm state at the first end token, without a projection."""

    def __init__(self, net: CLIPTextModel, sizes: ClipSizes, fingerprint: str) -> None:
        self.net = net
        self.sizes = sizes
        self.fingerprint = fingerprint

    @torch.no_grad()
    def encode_ids(self, ids: Tensor) -> Tensor:
        """Pooled states (B, C) of token ids (B, T), float32; the end token is the one with the highest id."""
        ids = ids.to(self.net.device)
        states = self.net(input_ids=ids).last_hidden_state
        ends = (ids == self.sizes.vocab_size - 1).int().argmax(dim=-1)
        return states[torch.arange(len(ids), device=ids.device), ends].float()


class T5Encoder:
    """T5's encoder; its output is the final-norm state of every token."""

    def __init__(self, net: T5EncoderModel, sizes: T5Sizes, fingerprint: str) -> None:
        self.net = net
        self.sizes = sizes
        self.fingerprint = fingerprint

    @torch.no_grad()
    def encode_ids(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """States (B, T, C) of token ids (B, T) in the encoder's dtype.

        ``mask`` (B, T) is True where a token is attended; None attends to padding too, as FLUX was trained.
        """
        device = self.net.device
        attended = torch.ones_like(ids) if mask is None else mask.long()
        return self.net(input_ids=ids.to(device), attention_mask=attended.to(device)).last_hidden_state


def load_clip(path: Path, device: torch.device | str, dtype: torch.dtype) -> ClipTextEncoder:
    """Load the CLIP-L text encoder at ``path``, frozen.

    Raises:
        ModelFileError: not a complete CLIP-L text encoder, or damaged.
    """
    _, part = expect_part(path, "clip_l")
    sizes = clip_sizes(part)
    return ClipTextEncoder(build_clip(part, sizes, device, dtype), sizes, encoder_fingerprint(path, dtype))


def load_t5(path: Path, device: torch.device | str, dtype: torch.dtype) -> T5Encoder:
    """Load the T5 encoder at ``path`` (fp16, bf16, fp32, plain or scaled fp8), frozen.

    Raises:
        ModelFileError: not a complete T5 encoder, or damaged.
    """
    _, part = expect_part(path, "t5")
    sizes = t5_sizes(part)
    return T5Encoder(build_t5(part, sizes, device, dtype), sizes, encoder_fingerprint(path, dtype))


def build_clip(part: Part, sizes: ClipSizes, device: torch.device | str, dtype: torch.dtype) -> CLIPTextModel:
    """Build and fill CLIP's text tower: quick_gelu, which OpenAI trained it with (not gelu).

    Raises:
        ModelFileError: a tensor is missing, unexpected, of another shape, or unreadable.
    """
    config = CLIPTextConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.num_heads,
        max_position_embeddings=sizes.positions,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        bos_token_id=sizes.vocab_size - 2,
        eos_token_id=sizes.vocab_size - 1,
        pad_token_id=sizes.vocab_size - 1,
    )
    with torch.device("meta"):
        net = CLIPTextModel(config)
    # Older transformers put the tower under `text_model.`; the file's names are the bare ones.
    prefix = "text_model." if any(name.startswith("text_model.") for name in net.state_dict()) else ""
    load_weights(net, part, device=device, dtype=dtype, rename=lambda name: prefix + name)
    for module in net.modules():
        if isinstance(getattr(module, "position_ids", None), Tensor):
            module.position_ids = torch.arange(sizes.positions, device=device)[None]
    return net.eval()


def build_t5(part: Part, sizes: T5Sizes, device: torch.device | str, dtype: torch.dtype) -> T5EncoderModel:
    """Build and fill T5's encoder.

    In float16 the ``wo`` projections stay float32: their outputs exceed float16's range.

    Raises:
        ModelFileError: a tensor is missing, unexpected, of another shape, or unreadable.
    """
    config = T5Config(
        vocab_size=sizes.vocab_size,
        d_model=sizes.d_model,
        d_kv=sizes.d_kv,
        d_ff=sizes.d_ff,
        num_layers=sizes.layers,
        num_heads=sizes.num_heads,
        relative_attention_num_buckets=sizes.buckets,
        relative_attention_max_distance=sizes.max_distance,
        feed_forward_proj="gated-gelu",
        layer_norm_epsilon=1e-6,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.device("meta"):
        net = T5EncoderModel(config)
    half = dtype == torch.float16
    load_weights(
        net, part, device=device, dtype=dtype, keep_float32=lambda name: half and name.endswith(".wo.weight")
    )
    return net.eval()

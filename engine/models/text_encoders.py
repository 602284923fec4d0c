"""CLIP-L and T5 as FLUX.1 uses them: token ids in, a pooled state or token states out.

The arithmetic is transformers' (T5's layers are written out in :mod:`engine.models.t5_net`, because they pass through
the device one by one); the files are the single ones of ComfyUI and kohya, loaded by our own strict loader
(transformers' CLIP has other names than the files, and a lax load would load nothing silently).

Shapes: B captions, T tokens, C width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from engine.models.detect import expect_part
from engine.models.header import encoder_fingerprint
from engine.models.parts import Part
from engine.models.t5_layers import T5Encoder
from engine.models.text_layout import ClipSizes, clip_sizes, t5_sizes
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


def load_clip(path: Path, device: torch.device | str, dtype: torch.dtype) -> ClipTextEncoder:
    """Load the CLIP-L text encoder at ``path``, frozen.

    Raises:
        ModelFileError: not a complete CLIP-L text encoder, or damaged.
    """
    _, part = expect_part(path, "clip_l")
    sizes = clip_sizes(part)
    return ClipTextEncoder(build_clip(part, sizes, device, dtype), sizes, encoder_fingerprint(path, dtype))


def load_t5(path: Path, device: torch.device | str, dtype: torch.dtype) -> T5Encoder:
    """The T5 encoder at ``path`` (fp16, bf16, fp32, plain or scaled fp8), which reads its weights as it encodes.

    Raises:
        ModelFileError: not a complete T5 encoder, or damaged.
    """
    _, part = expect_part(path, "t5")
    sizes = t5_sizes(part)
    return T5Encoder(part, sizes, device, dtype, encoder_fingerprint(path, dtype))


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

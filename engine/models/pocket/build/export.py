"""Writes the trained parts as the single files that real checkpoints come in.

Transformer and autoencoder in black-forest-labs' names, T5 and CLIP in the names of the usual single files;
half precision; what a real checkpoint's size tells is told by the header's `params` here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.models.pocket.build import constants as c
from engine.models.pocket.build import draws
from engine.models.pocket.build.transformer import Run

LEVELS = 4


def bfl_autoencoder_key(key: str) -> str:
    """The name that black-forest-labs' file gives to a tensor of diffusers' AutoencoderKL."""
    key = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{LEVELS - 1 - int(m[1])}", key)
    key = (
        key.replace("down_blocks.", "down.")
        .replace("downsamplers.0", "downsample")
        .replace("upsamplers.0", "upsample")
    )
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("resnets.", "block.")
    key = key.replace("attn_1.group_norm", "attn_1.norm").replace("to_out.0", "proj_out")
    key = re.sub(r"to_([qkv])\b", r"\1", key)
    return key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def bfl_autoencoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A diffusers autoencoder's weights in black-forest-labs' layout, with 1 x 1 convolutions for linears."""
    out = {}
    for key, value in state.items():
        name = bfl_autoencoder_key(key)
        is_projection = "attn_1" in name and name.endswith("weight") and value.ndim == 2
        out[name] = value[:, :, None, None] if is_projection else value
    return out


def write(path: Path, tensors: dict[str, Tensor], params: dict[str, object]) -> None:
    """Write one file in half precision with its params in the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {key: value.detach().half().contiguous() for key, value in sorted(tensors.items())}
    if not all(bool(torch.isfinite(value).all()) for value in halves.values()):
        raise ValueError(f"{path.name}: a weight does not fit half precision")
    save_file(halves, path, metadata={"format": "pt", "params": json.dumps(params), "made_with": "lorakiln pocket"})
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


def export_autoencoder(files: Path) -> None:
    """Write ae-pocket.safetensors from the stages "encoder" and "decoder"."""
    state, decoder = draws.load("encoder"), draws.load("decoder")
    if state is None or decoder is None:
        raise FileNotFoundError("the stages encoder and decoder have not run")
    state |= {f"decoder.{key}": value for key, value in decoder["decoder"].items()}
    write(files / "ae-pocket.safetensors", bfl_autoencoder(state), dict(c.AE_PARAMS))


def export_transformer(files: Path) -> None:
    """Write the transformer and both text encoders from the averaged weights."""
    state = draws.load("guidance") or draws.load("transformer")
    if state is None:
        raise FileNotFoundError("the stage transformer has not run")
    run = Run(files)
    run.average.load_state_dict(state["average"])
    transformer, encoders = run.average.model, run.average.text.encoders
    write(files / "flux-pocket.safetensors", transformer.state_dict(), dict(c.TRANSFORMER_PARAMS))
    clip = {f"text_model.{key}": value for key, value in encoders.clip.state_dict().items()}
    clip = {key: value for key, value in clip.items() if "position_ids" not in key}
    write(files / "clip-pocket.safetensors", clip, {"num_heads": c.CLIP_HEADS})
    t5 = {key: value for key, value in encoders.t5.state_dict().items() if key != "encoder.embed_tokens.weight"}
    write(files / "t5-pocket.safetensors", t5, {"num_heads": c.T5_HEADS})

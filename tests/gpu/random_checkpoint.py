"""Random weights in the layout of the released single files, at any size, written as a stream."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.models.autoencoder_layout import AutoencoderSizes, autoencoder_layout
from engine.models.flux import FluxParams
from engine.models.flux_layout import flux_layout
from engine.models.pocket.build.vocabulary import write_clip, write_t5
from engine.models.text_layout import ClipSizes, T5Sizes, clip_layout, t5_layout


def write_random(path: Path, layout: Mapping[str, tuple[int, ...]], params: Mapping[str, Any], seed: int) -> None:
    """Write bf16 tensors: norms at one, biases at zero, matrices scaled so that activations keep their size."""
    header: dict[str, Any] = {"__metadata__": {"params": json.dumps(params)}}
    offset = 0
    for name, shape in layout.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, shape in layout.items():
            values = _values(name, shape, generator, device)
            file.write(values.to(torch.bfloat16).cpu().view(torch.uint8).numpy().tobytes())


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator, device: str) -> torch.Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape, device=device)
    if len(shape) < 2:
        return torch.ones(shape, device=device)
    fan_in = math.prod(shape[1:])
    # bf16 straight away: the largest matrix in float32 would take a quarter of a small card.
    draw = torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)
    return draw / math.sqrt(fan_in)


def write_base(folder: Path, flux: FluxParams, clip: ClipSizes, t5: T5Sizes, ae: AutoencoderSizes) -> dict[str, str]:
    """Write all four files and two small tokenizers; returns the ``[model]`` table that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder / "tokenizer")
    write_t5(folder / "tokenizer_2")
    ae_params = {"ch": ae.ch, "ch_mult": list(ae.ch_mult), "num_res_blocks": ae.num_res_blocks}
    ae_params |= {"z_channels": ae.z_channels, "norm_groups": ae.norm_groups}
    parts = {
        "transformer": (flux_layout(flux.to_dict()), flux.to_dict()),
        "autoencoder": (autoencoder_layout(ae), ae_params),
        "clip_l": (clip_layout(clip), {"num_heads": clip.num_heads}),
        "t5": (t5_layout(t5), {}),
    }
    table = {}
    for seed, (name, (layout, params)) in enumerate(parts.items()):
        path = folder / f"random-{name}.safetensors"
        write_random(path, layout, params, seed)
        table[name] = str(path)
    return table

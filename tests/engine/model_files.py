"""Writes small model files for tests: whole, prefixed, half, broken."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.models.flux import FluxParams
from engine.models.flux_file import layout

TINY = FluxParams(
    in_channels=64,
    vec_in_dim=24,
    context_in_dim=48,
    hidden_size=64,
    num_heads=2,
    depth=2,
    depth_single_blocks=3,
    axes_dim=(8, 12, 12),
)


def random_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 0, scale: float = 0.05) -> dict[str, Tensor]:
    """Small random float32 tensors of these shapes; norm scales near one."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, shape in shapes.items():
        out[name] = torch.randn(shape, generator=generator) * scale
        if name.endswith("scale") or ("norm" in name and name.endswith("weight")):
            out[name] += 1
    return out


def write(
    path: Path, tensors: Mapping[str, Tensor], params: Mapping[str, Any] | None = None, prefix: str = ""
) -> Path:
    """Write a safetensors file, with ``params`` in its metadata."""
    metadata = {"params": json.dumps(params)} if params is not None else None
    save_file({prefix + name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def tiny_flux(path: Path, params: FluxParams = TINY, seed: int = 0, prefix: str = "", **more: Any) -> Path:
    """Write a tiny transformer; ``more`` replaces or adds params in the metadata."""
    tensors = random_tensors(layout(params), seed)
    return write(path, tensors, {**params.to_dict(), **more}, prefix)


def raw_file(path: Path, header: object, data: bytes = b"") -> Path:
    """Write a header (bytes, or anything JSON can hold) and data as a safetensors file would have them."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def sparse_file(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16", width: int = 2) -> Path:
    """Write only a header; the data are a hole in the file, so that full-size models cost nothing."""
    at, header = 0, {}
    for name, shape in shapes.items():
        size = width * int(torch.Size(shape).numel())
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw_file(path, header)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + at)
    return path

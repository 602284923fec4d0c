"""CLIP and DINOv2 as their publishers lay them out: a folder's config.json and preprocessor_config.json.

Out come the sizes that a network is built from and how a picture is brought to it; everything else that stands in
these files is left alone, whatever it asks for. Torch-free. Weights are :mod:`engine.models.scorers`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import SamplingConfig
from engine.dataset.regular import read_limited
from engine.errors import DatasetError, ModelFileError
from engine.text import safe_text

MAX_BYTES = 2**20

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_DINO_MEAN, _DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Tower:
    """A transformer's size, as both models have it."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    activation: str
    eps: float


@dataclass(frozen=True)
class Look:
    """How a picture is brought to a model: its shorter side scaled to ``shortest``, the middle ``crop`` px of it cut
    out, colours from 0 to 1 less ``mean``, by ``std``."""

    shortest: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class ClipFiles:
    """A CLIP model's folder."""

    weights: Path
    vision: Tower
    text: Tower
    image_size: int
    patch_size: int
    vocab_size: int
    positions: int
    projection: int
    look: Look


@dataclass(frozen=True)
class DinoFiles:
    """A DINOv2 model's folder. ``swiglu``: its feed-forward layers are gated, as the largest's are."""

    weights: Path
    tower: Tower
    image_size: int
    patch_size: int
    swiglu: bool
    look: Look


def check_scorers(sampling: SamplingConfig) -> None:
    """Look at the scoring models' folders, without loading anything.

    Raises:
        ModelFileError: one is configured that cannot be used.
    """
    if sampling.score_clip is not None:
        clip_files(sampling.score_clip)
    if sampling.score_dino is not None:
        dino_files(sampling.score_dino)


def clip_files(folder: Path) -> ClipFiles:
    """What the CLIP model in ``folder`` is.

    Raises:
        ModelFileError: none is there, or its description makes no sense.
    """
    table = _described(folder, "clip")
    vision, text = _inner(table, "vision_config"), _inner(table, "text_config")
    size = _whole(vision, "image_size", 224, 8192)
    projection = _whole(table, "projection_dim", 512, 65536)
    plain = Look(size, size, _CLIP_MEAN, _CLIP_STD)
    return ClipFiles(
        _weights(folder),
        _tower(vision, Tower(768, 3072, 12, 12, "quick_gelu", 1e-5)),
        _tower(text, Tower(512, 2048, 12, 8, "quick_gelu", 1e-5)),
        size,
        _whole(vision, "patch_size", 32, size),
        _whole(text, "vocab_size", 49408, 10**7),
        _whole(text, "max_position_embeddings", 77, 65536),
        projection,
        _look(folder, plain),
    )


def dino_files(folder: Path) -> DinoFiles:
    """What the DINOv2 model in ``folder`` is.

    Raises:
        ModelFileError: none is there, or its description makes no sense.
    """
    table = _described(folder, "dinov2")
    size, width = _whole(table, "image_size", 224, 8192), _whole(table, "hidden_size", 768, 65536)
    ratio = _whole(table, "mlp_ratio", 4, 64)
    tower = _tower(table, Tower(width, width * ratio, 12, 12, "gelu", 1e-6))
    return DinoFiles(
        _weights(folder),
        tower,
        size,
        _whole(table, "patch_size", 16, size),
        table.get("use_swiglu_ffn") is True,
        _look(folder, Look(256, 224, _DINO_MEAN, _DINO_STD)),
    )


def read_description(data: bytes, path: Path) -> dict[str, Any]:
    """The table in a JSON file's bytes.

    Raises:
        ModelFileError: they hold no JSON table.
    """
    try:
        table = json.loads(data) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError) as err:
        raise _unfit(path, f"no JSON: {err}") from err
    if not isinstance(table, dict):
        raise _unfit(path, "no table, or one of more than 1 MB")
    return table


def _described(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        table = read_description(read_limited(path, MAX_BYTES), path)
    except DatasetError as err:
        raise _unfit(path, err.detail) from err
    if table.get("model_type") != kind:
        raise _unfit(path, f"model_type is {_shown(table.get('model_type'))}, wanted {kind}")
    return table


def _weights(folder: Path) -> Path:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise _unfit(path, "it is missing; pickled weights are not read")
    return path


def _look(folder: Path, plain: Look) -> Look:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return plain
    try:
        table = read_description(read_limited(path, MAX_BYTES), path)
    except DatasetError as err:
        raise _unfit(path, err.detail) from err
    shortest, crop = _side(table.get("size"), "shortest_edge"), _side(table.get("crop_size"), "height")
    mean, std = (_three(table.get(name)) for name in ("image_mean", "image_std"))
    crop = crop or plain.crop
    look = Look(shortest or plain.shortest, crop, mean or plain.mean, std or plain.std)
    if look.crop > look.shortest or min(look.std) <= 0:
        raise _unfit(path, f"{look.crop} px of {look.shortest} px cannot be cut out, or image_std is not positive")
    return look


def _side(value: Any, name: str) -> int:
    side = value.get(name) if isinstance(value, dict) else value
    return side if isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= 8192 else 0


def _three(value: Any) -> tuple[float, float, float] | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    if not all(isinstance(one, int | float) and -1e3 < one < 1e3 for one in value):
        return None
    return float(value[0]), float(value[1]), float(value[2])


def _inner(table: Table, name: str) -> Table:
    inner = table.get(name, {})
    return inner if isinstance(inner, dict) else {}


def _tower(table: Table, plain: Tower) -> Tower:
    hidden, heads = (
        _whole(table, "hidden_size", plain.hidden_size, 65536),
        _whole(table, "num_attention_heads", plain.heads, 1024),
    )
    if hidden % heads:
        raise _unfit(None, f"{heads} heads do not divide a width of {hidden}")
    activation, eps = table.get("hidden_act", plain.activation), table.get("layer_norm_eps", plain.eps)
    if activation not in ("quick_gelu", "gelu") or not isinstance(eps, float) or not 0 < eps < 1:
        raise _unfit(None, f"hidden_act {_shown(activation)} or layer_norm_eps {_shown(eps)}")
    return Tower(
        hidden,
        _whole(table, "intermediate_size", plain.intermediate_size, 2**20),
        _whole(table, "num_hidden_layers", plain.layers, 1000),
        heads,
        activation,
        eps,
    )


def _whole(table: Table, name: str, plain: int, most: int) -> int:
    value = table.get(name, plain)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise _unfit(None, f"{name} is {_shown(value)}, wanted a whole number from 1 to {most}")
    return value


def _shown(value: Any) -> str:
    """A value of the file in a message; a table or list of any depth is named as one."""
    return safe_text(value, 40) if isinstance(value, str | int | float) else type(value).__name__


def _unfit(path: Path | None, detail: str) -> ModelFileError:
    return ModelFileError(
        "A model that scores samples cannot be read",
        f"{safe_text(path, 400)}: {safe_text(detail, 400)}" if path is not None else f"config.json: {detail}",
        "sampling.score_clip and sampling.score_dino name folders with config.json and model.safetensors, as "
        "openai/clip-vit-large-patch14 and facebook/dinov2-base have them; leave them out to score nothing.",
    )

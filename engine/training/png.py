"""Pictures as PNG files that carry how they were drawn.

Two text chunks: ``parameters`` in the form that other image programs show, ``lorakiln`` as JSON with everything.
Knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from engine.errors import RunError
from engine.files import atomic_path
from engine.text import safe_text

# The names that other programs know, in their usual order; everything else follows under its own name.
_KNOWN = {
    "steps": "Steps",
    "cfg": "CFG scale",
    "guidance": "Distilled CFG Scale",
    "seed": "Seed",
    "model": "Model",
    "lora": "Lora",
}
MAX_TEXT = 20_000
"""Longest text that goes into a picture for people, in characters."""

_SHOWN_APART = {"prompt", "negative", "width", "height"}


def picture_pixels(decoded: Tensor) -> np.ndarray:
    """Turn decoded pixels (3, H, W) or (1, 3, H, W) in [-1, 1] into (H, W, 3) uint8; values beyond are clipped.

    Raises:
        RunError: there are values that are not finite.
        ValueError: the shape is another.
    """
    image = decoded[0] if decoded.ndim == 4 and decoded.shape[0] == 1 else decoded
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"one picture of shape (3, H, W) was expected, not {tuple(decoded.shape)}")
    values = image.detach().float().cpu()
    if not bool(values.isfinite().all()):
        raise RunError(
            "A sample came out with values that are not finite",
            "the model's weights or its LoRA have diverged, or the precision overflows",
            "Lower the learning rate, or use bf16 instead of fp16.",
        )
    levels: np.ndarray = ((values.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()
    return levels


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """Write parameters the way image programs read them: prompt, negative prompt, one line of ``Name: value``."""
    lines = [str(parameters.get("prompt", ""))]
    if parameters.get("negative"):
        lines.append(f"Negative prompt: {parameters['negative']}")
    pairs = [f"{label}: {_plain(parameters[key])}" for key, label in _KNOWN.items() if key in parameters]
    pairs.insert(1 if "steps" in parameters else 0, "Sampler: Euler")
    if "width" in parameters and "height" in parameters:
        pairs.append(f"Size: {parameters['width']}x{parameters['height']}")
    others = [key for key in parameters if key not in _KNOWN and key not in _SHOWN_APART]
    pairs += [f"{key.replace('_', ' ').capitalize()}: {_plain(parameters[key])}" for key in others]
    pairs.append("Version: lorakiln")
    return "\n".join([*lines, ", ".join(pairs)])


def _plain(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    # A comma or line feed would end the value for every reader of this form: such values go in JSON quotes.
    return json.dumps(text) if any(char in text for char in ",\n:") else text


def save_png(path: Path, pixels: np.ndarray | Tensor, parameters: Mapping[str, Any]) -> None:
    """Write a picture with its parameters: wholly, or not at all.

    Args:
        pixels: (H, W, 3) uint8, or what :func:`picture_pixels` takes.
        parameters: plain values; prompt, negative, width, height, steps, cfg, guidance, seed, model and lora are
            known to other programs.

    Raises:
        DiskError: the file could not be written; one that stood there is unharmed.
        RunError: pixels are not finite.
    """
    levels = picture_pixels(pixels) if isinstance(pixels, Tensor) else pixels
    info = PngInfo()
    # Other programs show this text in terminals too; the JSON beside it has every character, as escapes.
    info.add_text("parameters", safe_text(parameters_text(parameters), MAX_TEXT, newlines=True))
    info.add_text("lorakiln", json.dumps(dict(parameters), ensure_ascii=True, default=str))
    with atomic_path(path) as temp:
        Image.fromarray(levels).save(temp, format="PNG", pnginfo=info)

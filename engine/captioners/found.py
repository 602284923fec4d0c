"""Which folders hold a model that captions pictures, told by the files in them alone.

Comes in: folders. Goes out: :class:`CaptionerFolder`. Nothing of a model is run or trusted here: of ``config.json``
its ``model_type`` is read, and refused what would have code fetched from elsewhere. Torch-free.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.captioners.tags import TAGS_NAME
from engine.dataset.regular import read_limited
from engine.errors import DatasetError, ModelFileError
from engine.text import safe_text

MAX_CONFIG_BYTES = 4 * 2**20
MAX_DEPTH = 8
MAX_ENTRIES = 200_000
ONNX_NAME = "model.onnx"

OWN = {"florence2": "Florence-2", "blip": "BLIP", "blip-2": "BLIP-2", "llava": "LLaVA"}
"""``model_type`` of the kinds that are asked in a manner of their own, and what people call them."""

# What transformers loads to answer a chat with pictures in it; others are tried when they are named outright.
CHATS = frozenset({
    "aria", "aya_vision", "chameleon", "cohere2_vision", "deepseek_vl", "deepseek_vl_hybrid", "emu3", "gemma3",
    "gemma3n", "gemma4", "glm4v", "got_ocr2", "idefics", "idefics2", "idefics3", "internvl", "janus", "kosmos-2.5",
    "lfm2_vl", "llama4", "llava_next", "llava_onevision", "mistral3", "mllama", "ovis2", "paligemma",
    "perception_lm", "pixtral", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_vl", "smolvlm", "vipllava",
})  # fmt: skip


@dataclass(frozen=True)
class CaptionerFolder:
    """A folder with a captioning model.

    Attributes:
        path: the folder.
        kind: ``florence2``, ``blip``, ``blip-2``, ``chat`` or ``tagger``.
        name: what it is called, safe to show.
        size_bytes: of its weights.
    """

    path: Path
    kind: str
    name: str
    size_bytes: int


def recognise(folder: Path) -> CaptionerFolder:
    """Say what captioning model ``folder`` holds.

    Raises:
        ModelFileError: none, or one that would need code from elsewhere or weights in another form.
    """
    folder = folder.expanduser()
    if (folder / TAGS_NAME).is_file() and (folder / ONNX_NAME).is_file():
        size = (folder / ONNX_NAME).stat().st_size
        return CaptionerFolder(folder, "tagger", f"{safe_text(folder.name, 80)} (tagger)", size)
    if not folder.is_dir():
        raise ModelFileError(
            "No such folder", f"{safe_text(folder, 400)} was given as the captioning model", "Name a folder."
        )
    config = _config(folder / "config.json")
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise _no_captioner(folder, "its config.json names no model_type")
    _refuse_foreign_code(config, folder)
    size = sum(os.path.getsize(file) for file in folder.glob("*.safetensors") if file.is_file())
    if not size:
        raise _no_captioner(folder, "it has no weights in .safetensors files; others are not loaded")
    if "vision_config" not in config and kind not in OWN and kind not in CHATS:
        raise _no_captioner(folder, f"a model of type {safe_text(kind, 40)} sees no pictures")
    ours = kind if kind in OWN and kind != "llava" else "chat"
    label = OWN.get(kind, kind)
    return CaptionerFolder(folder, ours, f"{_named(folder)} ({safe_text(label, 40)})", size)


def search(roots: Sequence[Path]) -> list[CaptionerFolder]:
    """Every folder below ``roots`` that :func:`recognise` knows, in the order of their paths. Reads the disk."""
    found: dict[str, CaptionerFolder] = {}
    for folder in _folders(roots):
        try:
            one = recognise(folder)
        except (ModelFileError, DatasetError, OSError):
            continue
        if one.kind != "chat" or _model_type(folder) in CHATS | OWN.keys():
            found.setdefault(os.path.realpath(folder), one)
    return sorted(found.values(), key=lambda one: str(one.path))


def _folders(roots: Sequence[Path]) -> Iterator[Path]:
    """Folders that hold a config.json or a list of tags."""
    stack = [(os.fspath(root), 0) for root in reversed(roots)]
    seen: set[tuple[int, int]] = set()
    entries = 0
    while stack and entries < MAX_ENTRIES:
        folder, depth = stack.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                listing = sorted(scan, key=lambda entry: entry.name)
            entries += len(listing)
            if {"config.json", TAGS_NAME} & {entry.name for entry in listing}:
                yield Path(folder)
            if depth < MAX_DEPTH:
                below = [entry.path for entry in listing if not entry.name.startswith(".") and entry.is_dir()]
                stack += [(path, depth + 1) for path in reversed(below)]
        except OSError:
            continue


def _config(path: Path) -> dict[str, Any]:
    try:
        data = read_limited(path, MAX_CONFIG_BYTES)
        config = json.loads(data) if len(data) <= MAX_CONFIG_BYTES else None
    except DatasetError as err:
        raise _no_captioner(path.parent, "it has no config.json that can be read") from err
    except (ValueError, RecursionError) as err:
        raise _no_captioner(path.parent, "its config.json is no JSON") from err
    if not isinstance(config, dict):
        raise _no_captioner(path.parent, "its config.json is no table of settings")
    return config


def _model_type(folder: Path) -> str:
    return str(_config(folder / "config.json").get("model_type"))


def _refuse_foreign_code(config: Any, folder: Path) -> None:
    """A setting may name a kernel in a repository: transformers would fetch it and run it."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif isinstance(part, dict):
            pending += part.values()
            for key, value in part.items():
                if key.endswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
                    detail = (
                        f"{safe_text(folder, 400)}: config.json has {safe_text(key, 60)} = {safe_text(value, 100)}"
                    )
                    raise ModelFileError(
                        "The model wants code from elsewhere", detail, "Remove the line, or take another model."
                    )


def _named(folder: Path) -> str:
    """The folder's name; in the Hugging Face cache that of the repository, not of a revision."""
    parts = folder.absolute().parts
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return safe_text(parts[-3].removeprefix("models--").replace("--", "/"), 80)
    return safe_text(parts[-1] if parts else folder, 80)


def _no_captioner(folder: Path, why: str) -> ModelFileError:
    return ModelFileError(
        "No captioning model stands there",
        f"{safe_text(folder, 400)}: {why}",
        "Name the folder of a vision model as transformers keeps it (config.json, *.safetensors, the files of its "
        f"processor and tokenizer), or of a tagger ({ONNX_NAME}, {TAGS_NAME}).",
    )

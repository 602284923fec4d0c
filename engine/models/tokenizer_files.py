"""Finds tokenizer files: where settings say, beside the weights, in a ComfyUI or Forge folder, in the Hugging Face
cache, and at last by download.

In: the encoder's file. Out: the paths of the tokenizer's files. Torch-free. Downloads come from two named
repositories, only files of a fixed list, and their content must have the digest known here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.errors import ModelFileError
from engine.models.places import program_folders
from engine.text import safe_text

log = logging.getLogger(__name__)

CLIP_REPO, T5_REPO = "openai/clip-vit-large-patch14", "google/t5-v1_1-xxl"

# SHA-256 of the published files: the pin of a download.
_DIGESTS = {
    (CLIP_REPO, "vocab.json"): "5047b556ce86ccaf6aa22b3ffccfc52d391ea4accdab9c2f2407da5b742d4363",
    (CLIP_REPO, "merges.txt"): "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
    (T5_REPO, "spiece.model"): "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86",
}
_COMFY = {"clip": "comfy/sd1_tokenizer", "t5": "comfy/text_encoders/t5_tokenizer"}
_FORGE = "backend/huggingface/black-forest-labs/FLUX.1-dev"
_BESIDE = {
    "clip": ("", "tokenizer", CLIP_REPO.replace("/", "_"), "clip_tokenizer"),
    "t5": ("", "tokenizer_2", "tokenizer", T5_REPO.replace("/", "_"), "t5_tokenizer"),
}
_HUB_REPOS = {
    "clip": (CLIP_REPO, "black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"),
    "t5": (T5_REPO, "black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"),
}
_WANTED = {"clip": "vocab.json and merges.txt", "t5": "spiece.model or tokenizer.json"}
_NAMES = {"clip": "CLIP", "t5": "T5"}

Pick = Callable[[Path], "tuple[Path, ...] | None"]


def find_clip_files(weights: Path, given: Path | None, download: bool) -> tuple[Path, ...]:
    """``(vocab.json, merges.txt)`` or ``(tokenizer.json,)`` for the CLIP encoder at ``weights``.

    Raises:
        ModelFileError: nothing found; the hint says which files to put where.
    """
    return _find("clip", _pick_clip, Path(weights), given, download)


def find_t5_files(weights: Path, given: Path | None, download: bool) -> tuple[Path, ...]:
    """``(tokenizer.json,)`` or ``(spiece.model,)`` for the T5 encoder at ``weights``.

    Raises:
        ModelFileError: nothing found; the hint says which files to put where.
    """
    return _find("t5", _pick_t5, Path(weights), given, download)


def _find(kind: str, pick: Pick, weights: Path, given: Path | None, download: bool) -> tuple[Path, ...]:
    if given is not None:
        found = pick(Path(given))
        if found is None:
            raise ModelFileError(
                f"No {_NAMES[kind]} tokenizer there",
                f"{safe_text(given, 400)} holds no {_WANTED[kind]}",
                f"Name a folder with {_WANTED[kind]} as model.{kind}_tokenizer, or leave it out to search.",
            )
        return found
    for folder in (*_beside(kind, weights), *_programs(kind, weights), *_hub_folders(kind)):
        found = pick(folder)
        if found is not None:
            return found
    if download:
        return _download(kind, weights)
    raise _absent(kind, weights, "downloading is off (model.download_tokenizers = false)")


def _pick_clip(place: Path) -> tuple[Path, ...] | None:
    if place.is_file():
        if place.name == "tokenizer.json":
            return (place,) if _json_kind(place) == "BPE" else None
        place = place.parent
    vocab, merges, whole = place / "vocab.json", place / "merges.txt", place / "tokenizer.json"
    if vocab.is_file() and merges.is_file():
        return vocab, merges
    return (whole,) if whole.is_file() and _json_kind(whole) == "BPE" else None


def _pick_t5(place: Path) -> tuple[Path, ...] | None:
    if place.is_file():
        if place.suffix == ".model":
            return (place,)
        if place.suffix == ".json":
            return (place,) if _json_kind(place) == "Unigram" else None
        place = place.parent
    whole, spiece = place / "tokenizer.json", place / "spiece.model"
    if whole.is_file() and _json_kind(whole) == "Unigram":
        return (whole,)
    return (spiece,) if spiece.is_file() else None


def json_kind(data: bytes) -> str:
    """``BPE`` or ``Unigram`` for the content of a ``tokenizer.json``; older files leave the type out.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: it is not one.
    """
    model = json.loads(data)["model"]
    kind = model.get("type") if isinstance(model, dict) else None
    return str(kind or ("Unigram" if isinstance(model["vocab"], list) else "BPE"))


def _json_kind(path: Path) -> str:
    """The kind of model in a ``tokenizer.json``; empty where it cannot be told."""
    try:
        return json_kind(path.read_bytes()) if path.stat().st_size <= 64 * 2**20 else ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _beside(kind: str, weights: Path) -> Iterator[Path]:
    for base in dict.fromkeys(folder for path in _both(weights) for folder in (path.parent, path.parent.parent)):
        yield from (base / name if name else base for name in _BESIDE[kind])


def _both(weights: Path) -> tuple[Path, Path]:
    """The path as given and where its links lead: people link one model folder into several programs."""
    return Path(os.path.abspath(weights)), Path(os.path.realpath(weights))


def _programs(kind: str, weights: Path) -> Iterator[Path]:
    """ComfyUI's and Forge's own copies: of a program the weights lie in, then of any other on the machine."""
    forge = f"{_FORGE}/{'tokenizer' if kind == 'clip' else 'tokenizer_2'}"
    above = [folder for path in _both(weights) for folder in path.parents]
    for program in dict.fromkeys([*above, *program_folders()]):
        yield program / _COMFY[kind]
        yield program / forge


def hub_caches() -> list[Path]:
    """Folders of the Hugging Face cache, by its environment variables and by default, that exist."""
    home = os.environ.get("HF_HOME")
    named = [
        os.environ.get("HF_HUB_CACHE"),
        os.environ.get("HUGGINGFACE_HUB_CACHE"),
        home and os.path.join(home, "hub"),
    ]
    every = [Path(name) for name in named if name] + [Path.home() / ".cache" / "huggingface" / "hub"]
    return [folder for folder in dict.fromkeys(every) if folder.is_dir()]


def _hub_folders(kind: str) -> Iterator[Path]:
    subfolder = "tokenizer" if kind == "clip" else "tokenizer_2"
    for cache in hub_caches():
        for repo in _HUB_REPOS[kind]:
            for snapshot in sorted((cache / f"models--{repo.replace('/', '--')}" / "snapshots").glob("*")):
                yield snapshot
                yield snapshot / subfolder


def _download(kind: str, weights: Path) -> tuple[Path, ...]:
    wanted = [(repo, name) for repo, name in _DIGESTS if repo == (CLIP_REPO if kind == "clip" else T5_REPO)]
    names = ", ".join(name for _, name in wanted)
    log.warning("no %s tokenizer on this machine: fetching %s of %s", _NAMES[kind], names, wanted[0][0])
    # Imported here: only a machine without tokenizers pays for it.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        paths = [Path(hf_hub_download(repo, name)) for repo, name in wanted]
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, ValueError) as err:
        raise _absent(kind, weights, f"the download of {names} failed: {safe_text(err, 300)}") from err
    for path, pin in zip(paths, wanted, strict=True):
        if hashlib.sha256(path.read_bytes()).hexdigest() != _DIGESTS[pin]:
            raise ModelFileError(
                "A downloaded tokenizer is not the published one",
                f"{pin[1]} of {pin[0]} has another content than the one this program knows",
                "Put the files there by hand and name their folder in the settings if you trust them.",
            )
    return tuple(paths)


def _absent(kind: str, weights: Path, why: str) -> ModelFileError:
    folder = "tokenizer" if kind == "clip" else "tokenizer_2"
    repo = CLIP_REPO if kind == "clip" else T5_REPO
    return ModelFileError(
        f"No {_NAMES[kind]} tokenizer found",
        f"Looked beside {safe_text(weights, 400)}, in the folders of ComfyUI and Forge and in the Hugging Face "
        f"cache; {why}",
        f"Put {_WANTED[kind]} of {repo} into {safe_text(weights.parent / folder, 400)}, or name their folder as "
        f"model.{'clip_tokenizer' if kind == 'clip' else 't5_tokenizer'}.",
    )

"""Walks folders for model files and says what each one is; a broken file is listed with its reason, never fatal.

In: folders. Out: :class:`~engine.models.detect.ModelInfo` per file. Torch-free. Links are followed, as people link
one model folder into several programs, but no file or folder is visited twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.errors import ModelFileError
from engine.models.detect import ModelInfo, detect
from engine.models.header import PICKLES
from engine.models.places import PARENTS, program_folders
from engine.models.tokenizer_files import hub_caches
from engine.text import safe_text

MAX_DEPTH = 16
MAX_ENTRIES = 1_000_000

_EXTENSIONS = {".safetensors", ".sft", ".gguf", *PICKLES}


def known_roots() -> list[Path]:
    """Folders where ComfyUI, Forge, kohya's programs and the Hugging Face hub keep models, as far as they exist.

    The programs are looked for in the working folder, the home folder, /workspace and /opt, and where $COMFYUI_PATH
    points.
    """
    every = [folder / "models" for folder in program_folders()]
    every += [Path(parent).expanduser() / "models" for parent in PARENTS]
    every += hub_caches()
    found: dict[str, Path] = {}
    for folder in every:
        if folder.is_dir():
            found.setdefault(os.path.realpath(folder), folder)
    return list(found.values())


def find_models(roots: Sequence[Path]) -> list[ModelInfo]:
    """Every model file under ``roots`` (files themselves are allowed), in the order of their paths.

    A file that cannot be read, is damaged or is a pickle has kind ``unknown`` and the reason in ``note``.

    Raises:
        ModelFileError: a root does not exist.
    """
    found: list[ModelInfo] = []
    visited: set[tuple[int, int]] = set()
    for root in map(Path, roots):
        if not root.exists():
            raise ModelFileError(
                "No such folder", f"{safe_text(root, 400)} was given to be searched for models", "Check the path."
            )
        for path in [root] if root.is_file() else _walk(root, visited):
            try:
                info = os.stat(path)
            except OSError:  # gone since the folder was listed
                continue
            if (info.st_dev, info.st_ino) not in visited:
                visited.add((info.st_dev, info.st_ino))
                found.append(_described(path, info.st_size))
    return sorted(found, key=lambda info: str(info.path))


def _described(path: Path, size: int) -> ModelInfo:
    try:
        return detect(path)
    except ModelFileError as err:
        # The path is shown beside it anyway.
        detail = err.detail.split(": ", 1)[-1]
        note = f"{err.title}: {detail}"
        return ModelInfo(path, "unknown", "", "", "", 0, size, complete=False, note=note)


def _walk(root: Path, visited: set[tuple[int, int]]) -> Iterator[Path]:
    """Regular files with a model's extension below ``root``, depth first; unreadable folders are passed over."""
    stack = [(os.fspath(root), 0)]
    entries = 0
    while stack:
        folder, depth = stack.pop()
        try:
            info = os.stat(folder)
            if (info.st_dev, info.st_ino) in visited:
                continue
            visited.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as scan:
                listing = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in listing:
            entries += 1
            if entries > MAX_ENTRIES:
                return
            if os.path.splitext(entry.name)[1].lower() in _EXTENSIONS and os.path.isfile(entry.path):
                yield Path(entry.path)
            elif depth < MAX_DEPTH and not entry.name.startswith(".") and os.path.isdir(entry.path):
                stack.append((entry.path, depth + 1))

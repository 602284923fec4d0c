"""Walks folders for model files and says what each one is; a broken file is listed with its reason, never fatal.

In: folders. Out: :class:`~engine.models.detect.ModelInfo` per file. Torch-free. Links are followed, as people link
one model folder into several programs, but no file or folder is visited twice.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import platformdirs

from engine.errors import ModelFileError
from engine.models.detect import ModelInfo, detect
from engine.models.header import PICKLES
from engine.models.tokenizer_files import hub_caches

MAX_DEPTH = 16
MAX_ENTRIES = 1_000_000

_EXTENSIONS = {".safetensors", ".sft", ".gguf", *PICKLES}
_PROGRAMS = {
    "ComfyUI": ("models",),
    "comfyui": ("models",),
    "stable-diffusion-webui-forge": ("models",),
    "sd-webui-forge": ("models",),
    "stable-diffusion-webui": ("models",),
    "kohya_ss": ("models",),
    "sd-scripts": ("models",),
    "fluxgym": ("models",),
    "models": ("",),
}
_PARENTS = (".", "~", "~/ai", "~/AI", "/workspace", "/opt")


def known_roots() -> list[Path]:
    """Folders where ComfyUI, Forge, kohya's programs and the Hugging Face hub keep models, as far as they exist.

    First come the settings' folders: $KILN_MODELS (separated as in $PATH) and ``folders`` of the table ``[models]``
    in :func:`settings_file`. The programs are looked for in the working folder, the home folder and /workspace, and
    where $COMFYUI_PATH points.

    Raises:
        ModelFileError: the settings file cannot be read.
    """
    every: list[Path] = [Path(part) for part in os.environ.get("KILN_MODELS", "").split(os.pathsep) if part]
    every += _settings_folders()
    comfy = os.environ.get("COMFYUI_PATH")
    if comfy:
        every.append(Path(comfy) / "models")
    for parent in _PARENTS:
        base = Path(parent).expanduser()
        every += [base / program / sub for program, subs in _PROGRAMS.items() for sub in subs]
    every += hub_caches()
    found: dict[str, Path] = {}
    for folder in every:
        if folder.is_dir():
            found.setdefault(os.path.realpath(folder), folder)
    return list(found.values())


def settings_file() -> Path:
    """The user's settings; it need not exist."""
    return Path(platformdirs.user_config_dir("lorakiln")) / "settings.toml"


def _settings_folders() -> list[Path]:
    path = settings_file()
    if not path.is_file():
        return []
    try:
        folders = tomllib.loads(path.read_text("utf-8")).get("models", {}).get("folders", [])
        if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
            raise ValueError("models.folders must be a list of paths")
    except (OSError, ValueError, AttributeError, RecursionError) as err:
        raise ModelFileError("The settings cannot be read", f"{path}: {err}", "Correct or remove the file.") from err
    return [Path(folder).expanduser() for folder in folders]


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
            raise ModelFileError("No such folder", f"{root} was given to be searched for models", "Check the path.")
        paths = [root] if root.is_file() else _walk(root, visited)
        for path in paths:
            info = os.stat(path)
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

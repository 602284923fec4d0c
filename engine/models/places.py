"""Where the programs that people already have keep their files: ComfyUI, Forge, kohya's."""

from __future__ import annotations

import os
from pathlib import Path

_PROGRAMS = (
    "ComfyUI",
    "comfyui",
    "stable-diffusion-webui-forge",
    "sd-webui-forge",
    "stable-diffusion-webui",
    "kohya_ss",
    "sd-scripts",
    "fluxgym",
)
PARENTS = (".", "~", "~/ai", "~/AI", "/workspace", "/opt")
"""Folders that programs are usually put into."""


def program_folders() -> list[Path]:
    """The programs' folders that exist: where $COMFYUI_PATH points, then by name in the usual places."""
    comfy = os.environ.get("COMFYUI_PATH")
    every = [Path(comfy)] if comfy else []
    every += [Path(parent).expanduser() / name for parent in PARENTS for name in _PROGRAMS]
    return [folder for folder in dict.fromkeys(every) if folder.is_dir()]

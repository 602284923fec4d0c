"""Importing from another trainer's checkout: its folder first on the path, stand-ins for what no step calls."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

UNUSED = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchaudio")
"""Imported by some trainers' modules for pictures and sound; the step needs neither."""


@contextlib.contextmanager
def on_path(checkout: Path) -> Iterator[None]:
    """Let modules be imported from ``checkout`` while inside."""
    # These look for optional packages when they are imported: before there are stand-ins.
    for name in ("transformers", "diffusers", "diffusers.loaders.peft", "diffusers.models.autoencoders"):
        importlib.import_module(name)
    for name in UNUSED:
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError, OSError):  # not there, or built for another torch
            _stand_in(name)
    sys.path.insert(0, str(checkout))
    try:
        yield
    finally:
        sys.path.remove(str(checkout))


def _stand_in(name: str) -> None:
    module = types.ModuleType(name)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, or how it can be told otherwise."""
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"

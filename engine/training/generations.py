"""The folders in which training states lie, without torch: found, verified, read as bytes, cleared up.

A generation is ``state/step-00000123`` with a manifest of sizes and SHA-256; what is in its files is
:mod:`engine.training.checkpoint`'s. Stands alone so that a screen can look at what a run would go on from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import RunError
from engine.text import safe_text

Parsed = TypeVar("Parsed")

FORMAT = 3
"""3: the state names the record of what the run was made with; 2: flat storage; 1: a tensor for each matrix."""

READABLE = (2, 3)

FILES = ("lora.safetensors", "optimizer.safetensors", "state.json")
"""What a generation consists of, its manifest apart."""


@dataclass(frozen=True)
class Generation:
    """A generation that verified: its folder, its files as bytes, and ``state.json`` parsed."""

    folder: Path
    contents: dict[str, bytes]
    table: dict[str, Any]


def folder_name(step: int) -> str:
    """The name of a step's generation."""
    return f"step-{step:08d}"


def discard(folder: Path) -> None:
    """Remove a generation so that none is left that looks whole, even where that breaks off half-way.

    Raises:
        OSError: the disk refuses; what is left is swept later.
    """
    going = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(going, ignore_errors=True)  # what an earlier attempt left; where it still stands the rename says so
    os.rename(folder, going)
    shutil.rmtree(going)


def sweep(states: Path) -> None:
    """Clear up what a kill left half-done; only for the holder of the run's lock."""
    for old in states.glob(".step-*.old"):
        final = states / old.name.removeprefix(".").removesuffix(".old")
        if not final.exists():  # killed between the two renames of a replacement
            os.rename(old, final)
        shutil.rmtree(old, ignore_errors=True)
    for part in states.glob(".step-*.part"):
        shutil.rmtree(part, ignore_errors=True)


def generations(states: Path) -> list[Path]:
    """Complete-looking generations, newest first."""
    return sorted((p for p in states.glob("step-*") if p.is_dir()), reverse=True)


def step_of(folder: Path) -> int:
    """The step that a generation's folder is named for; 0 where the name holds none."""
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdecimal() else 0


def next_step(states: Path) -> int:
    """The step after the newest generation's, by its name alone: a damaged one may have a run begin earlier."""
    newest = next(iter(generations(states)), None)
    return step_of(newest) + 1 if newest is not None else 1


def read_newest(states: Path, parse: Callable[[Generation], Parsed]) -> tuple[Parsed | None, list[str]]:
    """What ``parse`` makes of the newest generation that verifies, and a line for each damaged one passed over.

    Returns:
        ``(None, [])`` where no generation stands.

    Raises:
        RunError: generations stand there but none verifies, or the newest that does is of another version; starting
            over silently would lose the work.
    """
    damaged: list[str] = []
    for folder in generations(states):
        try:
            return parse(_read(folder)), damaged
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as err:
            damaged.append(f"{safe_text(folder.name)}: {safe_text(err, 300)}")
    if damaged:
        raise _none_whole(states, damaged)
    return None, []


def _none_whole(states: Path, damaged: list[str]) -> RunError:
    """Every generation is damaged: which LoRA files stand, and how to go on from one."""
    loras = sorted(states.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    if not loras:
        hint = "No LoRA file was saved yet: train anew with the run's config.toml."
    else:
        more = f" ({len(loras) - 1} earlier ones stand beside it)" if len(loras) > 1 else ""
        hint = (
            f"The newest LoRA file is {safe_text(loras[-1])}{more}. "
            "Name it as lora.resume_from in a new run to train on from it."
        )
    return RunError("No training state can be read", f"in {safe_text(states)}: " + "; ".join(damaged), hint)


def _read(folder: Path) -> Generation:
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    contents: dict[str, bytes] = {}
    for name in FILES:
        data = (folder / name).read_bytes()
        if len(data) != manifest[name]["size"] or hashlib.sha256(data).hexdigest() != manifest[name]["sha256"]:
            raise ValueError(f"{name} does not match its checksum")
        contents[name] = data
    table = json.loads(contents["state.json"])
    if table["format"] not in READABLE:
        raise RunError(
            "The training state was saved by another version",
            f"{safe_text(folder)} is in format {safe_text(table['format'], 40)}, this version reads "
            f"{READABLE[0]} to {FORMAT}",
            "Finish it with the version that began it, or begin a new run from its LoRA with lora.resume_from.",
        )
    return Generation(folder, contents, table)

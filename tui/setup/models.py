"""Model files for the setup form: what is on this machine for each slot, and whether a typed file will do.

Files are recognised by their headers. Reads the disk: for threads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelFileError
from engine.models.detect import ModelInfo, expect
from engine.models.find import find_models, known_roots
from engine.text import safe_text
from tui.setup.fields import SLOTS, WHERE
from tui.units import size


@dataclass(frozen=True)
class Verdict:
    """What is said of one slot's file."""

    good: bool
    text: str


Finds = dict[str, tuple[ModelInfo, ...]]
"""By slot, the files that would do, those alone in their file first."""


def search(folders: Sequence[Path]) -> Finds:
    """Look for files in ``folders``, as far as they exist, and in the places that other programs use."""
    roots = [folder for folder in folders if folder.is_dir()]
    found = find_models([*roots, *known_roots()])
    return {slot: tuple(_fitting(slot, found)) for slot in SLOTS}


def _fitting(slot: str, found: list[ModelInfo]) -> list[ModelInfo]:
    alone = [info for info in found if info.kind == slot and info.family == "flux1" and info.complete]
    inside = [info for info in found if info.kind == "checkpoint" and info.family == "flux1" and info.complete]
    return alone + [info for info in inside if _judged(slot, info.path).good]


def judge(slot: str, text: str, folder: Path) -> Verdict:
    """Say whether the file that is typed for ``slot`` will do; relative paths count from ``folder``."""
    if not text.strip():
        return Verdict(False, wanted(slot))
    return _judged(slot, folder / text.strip())


def _judged(slot: str, path: Path) -> Verdict:
    try:
        return Verdict(True, described(expect(path, slot)))
    except ModelFileError as err:
        # The path is what was typed: it stands right above.
        detail = err.detail.removeprefix(safe_text(path, 400)).removeprefix(":").strip()
        return Verdict(False, f"{err.title}: {detail}. {err.hint}")


def described(info: ModelInfo) -> str:
    """What a file is, in a few words."""
    words = [info.family.replace("flux1", "FLUX.1") if info.kind == "transformer" else "", info.variant, info.dtype]
    return safe_text(", ".join([*filter(None, words), size(info.size_bytes)]), 200)


def wanted(slot: str) -> str:
    """What is missing and where to get it."""
    return f"Missing: {WHERE[slot]}"

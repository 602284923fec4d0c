"""Files about a dataset: how one is made, and how it is read; a part of :mod:`kinds`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from kinds_screen import DETECTED

from engine.dataset.decoder import ImageInfo, Look
from engine.dataset.edits import open_caption, write_caption
from engine.dataset.journal import Change, Journal, Step
from engine.dataset.mend_journal import MendJournal
from engine.dataset.quality import measure
from engine.dataset.quality_store import QualityStore, records_in
from engine.dataset.sidecar import Sidecar


def make_quality_file(folder: Path, which: int) -> Path:
    store = QualityStore(folder / "quality.bin")
    for number in range(2):
        picture = folder / f"{number}.png"
        picture.write_bytes(bytes([which, number]))
        pixels = np.random.default_rng([which, number]).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        store.add(picture, measure(Look(ImageInfo(32, 24, "PNG"), pixels, pixels)))
    assert store.save() == ""
    return folder / "quality.bin"


def read_quality_file(path: Path) -> Any:
    found = [(mark, kept.content, repr(kept.measures)) for mark, kept in records_in(path.read_bytes())]
    return found or DETECTED


def make_sidecar(folder: Path, which: int) -> Path:
    Sidecar().with_stars("a.png", 4).with_stars(f"sub/b {which}.png", 2).save(folder)
    return folder / "lorakiln-dataset.toml"


def make_caption(folder: Path, which: int) -> Path:
    write_caption(open_caption(folder / "a.txt"), f"a cat {which} — on a chair, é")
    return folder / "a.txt"


def make_journal(folder: Path, which: int) -> Path:
    journal = Journal(folder / "undo.jsonl")
    for number in range(4):
        change = Change(Path("/a.txt"), f"a cat {which}, {number}", f"a cat {which}, {number + 1}")
        step = journal.record(Step("Replace é", (change, Change(Path("/b.txt"), None, f"{number}"))))
    journal.undone(step)
    return folder / "undo.jsonl"


def read_journal(path: Path) -> Any:
    return Journal(path).steps()


def make_mend_journal(folder: Path, which: int) -> Path:
    journal = MendJournal(folder / "mend-undo.jsonl")
    for number in range(1, 5):
        assert journal.note(0, Path(f"/pictures/{number}.png"), {"stars": 1 + which % 5, "repeats": number}) == number
    return folder / "mend-undo.jsonl"


def read_mend_journal(path: Path) -> Any:
    journal = MendJournal(path)
    return [step for number in range(1, 5) if (step := journal.step(number)) is not None]

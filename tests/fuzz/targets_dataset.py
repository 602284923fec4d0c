"""Targets that read what is kept about a dataset."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from engine.dataset.decoder import ImageInfo, Look
from engine.dataset.mend import Mended, readings
from engine.dataset.mend_journal import MendJournal
from engine.dataset.quality import measure
from engine.dataset.quality_check import percentiles, twins
from engine.dataset.quality_store import HEAD, QualityStore, records_in
from engine.dataset.sidecar import PictureNotes
from engine.errors import DatasetError
from engine.text import safe_text
from tests.fuzz.target import Target, as_file, assert_harmless, scratch


def _quality_seeds() -> list[bytes]:
    picture, file = as_file(b"any", "picture.png"), scratch() / "quality.bin"
    pixels = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    store = QualityStore(file)
    store.add(picture, measure(Look(ImageInfo(32, 24, "PNG"), pixels, pixels)))
    store.save()
    return [file.read_bytes(), HEAD + hashlib.sha256(HEAD).digest()]


def _quality(data: bytes) -> None:
    """As it is, and with a checksum that holds: whoever may write the cache can make one."""
    for whole in (data, data[:-32] + hashlib.sha256(data[:-32]).digest()):
        found = [kept for _, kept in records_in(whole)]
        assert len(percentiles([each.measures for each in found])) == len(twins(found)) == len(found)


def _encodings(data: bytes) -> None:
    for name, text in readings(as_file(data, "caption.txt")):
        assert data.decode(name) == text
        assert_harmless(safe_text(text, 500))


def _mending_seeds() -> list[bytes]:
    file = scratch() / "made.jsonl"
    file.unlink(missing_ok=True)
    journal = MendJournal(file)
    made = Mended(
        "a read", ((Path("/d/é\udcff.txt"), "0" * 64),), ((Path("/d/a"), Path("/d/originals/a"), "1" * 64),)
    )
    number = journal.file(0, made)
    journal.note(number, Path("/d/a.png"), {"exclude": None, "crop": (1, 2, 3, 4)})
    journal.file(0, made)
    journal.left(number, 0, 1)
    return [file.read_bytes(), b'{"did": "note", "number": 1, "picture": "/a", "before": {"stars": 1}}\n']


def _mendings(data: bytes) -> None:
    """Whatever it holds: paths that lie together, words that are safe to show, and room for what comes."""
    path = as_file(data, "mend.jsonl")
    journal = MendJournal(path)
    number = journal.note(0, Path("/z.png"), {"stars": 1})
    again = MendJournal(path)
    step = again.undoable()
    assert step is not None and step.number == number, "what is recorded after damage is lost"
    while step is not None:
        assert_harmless(step.what)
        for mended in step.files:
            folder = (mended.made[0][0] if mended.made else mended.moved[0][0]).parent
            touched = [path for path, _ in mended.made] + [path for moved in mended.moved for path in moved[:2]]
            assert all(path.is_relative_to(folder) and ".." not in path.parts for path in touched)
        for _, notes in step.notes:
            PictureNotes.model_validate(notes)
        again.left(step.number, 0, 0)
        step = again.undoable()


TARGETS = (
    Target("mend-undo", _mendings, (), _mending_seeds, ("engine.dataset.mend_journal.MendJournal",)),
    Target("quality", _quality, (), _quality_seeds, ("engine.dataset.quality_store.records_in",)),
    Target(
        "encodings", _encodings, (DatasetError,),
        lambda: ["café, naïve".encode("cp1252"), "猫と花".encode("shift_jis"), "a cat, é".encode("utf-16-le")],
        ("engine.dataset.mend.readings",),
    ),
)  # fmt: skip

"""Targets that read what is kept about a dataset."""

from __future__ import annotations

import hashlib

import numpy as np

from engine.dataset.decoder import ImageInfo, Look
from engine.dataset.mend import readings
from engine.dataset.quality import measure
from engine.dataset.quality_check import percentiles, twins
from engine.dataset.quality_store import HEAD, QualityStore, records_in
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


TARGETS = (
    Target("quality", _quality, (), _quality_seeds, ("engine.dataset.quality_store.records_in",)),
    Target(
        "encodings", _encodings, (DatasetError,),
        lambda: ["café, naïve".encode("cp1252"), "猫と花".encode("shift_jis"), "a cat, é".encode("utf-16-le")],
        ("engine.dataset.mend.readings",),
    ),
)  # fmt: skip

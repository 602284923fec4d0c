"""What is measured of pictures, as a file: how one is made, and how it is read; a part of :mod:`kinds`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from kinds_screen import DETECTED

from engine.dataset.decoder import ImageInfo, Look
from engine.dataset.quality import measure
from engine.dataset.quality_store import QualityStore, records_in


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

"""Tiny pictures by code, for tests of the dataset pane."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from engine.config import DatasetConfig
from tui.catalog import Catalog

PATIENCE_S = 30.0


def png(width: int = 8, height: int = 8) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x40\x80\xc0" * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def add(folder: Path, name: str, caption: str | None = "a caption", size: tuple[int, int] = (8, 8)) -> Path:
    """One picture with its caption."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(*size))
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def dataset(*folders: Path, **settings: object) -> DatasetConfig:
    """The settings of a dataset of these folders."""
    return DatasetConfig.model_validate({"folders": [{"path": folder} for folder in folders], **settings})


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def opened(catalog: Catalog, *folders: Path, **settings: object) -> Catalog:
    """``catalog`` with these folders read."""
    catalog.open(dataset(*folders, **settings), None)
    wait_for(lambda: catalog.state != "scanning")
    return catalog

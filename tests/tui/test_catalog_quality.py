"""Sharpness and likeness in the rows: from what is kept, measured where little is missing, never before the rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from tiny_pictures import dataset, opened, wait_for

from engine.dataset.decoder import Decoder
from tui import catalog_quality
from tui.catalog import Catalog


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """One process for all."""
    with Decoder() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of noise, one of them a second time, one blurred."""
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(3):
        cells = np.random.default_rng(number).integers(0, 255, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(cells).save(folder / f"{number}.png")
    Image.open(folder / "0.png").save(folder / "again.png")
    Image.open(folder / "2.png").filter(ImageFilter.GaussianBlur(3)).save(folder / "soft.png")
    return folder


def told(catalog: Catalog) -> dict[str, tuple[int | None, int]]:
    return {row.name: (row.sharp, row.twin) for row in catalog.rows}


def test_rows_are_filled_while_a_screen_looks(
    decoder: Decoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured once; a second catalog takes it from the disk, even where it would measure nothing itself."""

    def filled(catalog: Catalog) -> bool:
        catalog.look()
        return all(row.sharp is not None for row in catalog.rows)

    first = opened(Catalog(decoder, tmp_path / "cache"), folder)
    assert all(value == (None, 0) for value in told(first).values())
    wait_for(lambda: filled(first))
    found = told(first)
    assert found["soft.png"][0] == 0 and found["0.png"][1] == found["again.png"][1] > 0 and found["1.png"][1] == 0
    first.close()
    monkeypatch.setattr(catalog_quality, "MOST_UNKNOWN", 0)
    second = opened(Catalog(decoder, tmp_path / "cache"), folder)
    wait_for(lambda: filled(second))
    assert told(second) == found
    os.rename(folder / "soft.png", folder / "renamed.png")
    second.refresh()
    wait_for(lambda: second.state == "ready" and "renamed.png" in told(second))
    assert told(second)["renamed.png"] == (None, 0)
    second.close()


def test_without_a_cache_nothing_is_measured(decoder: Decoder, folder: Path) -> None:
    catalog = Catalog(decoder)
    catalog.open(dataset(folder), None)
    wait_for(lambda: catalog.state == "ready")
    catalog.look()
    assert all(value == (None, 0) for value in told(catalog).values())
    catalog.close()

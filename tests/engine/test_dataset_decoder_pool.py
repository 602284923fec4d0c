"""Several decoders side by side, and JPEGs decoded at a part of their size."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from pictures import gradient, turned
from PIL import Image

from engine.dataset.buckets import Placement, jpeg_reduction
from engine.dataset.decoder import Decoder
from engine.dataset.decoder_pool import MOST_DECODERS, DecoderPool, decoder_count
from engine.errors import DatasetError

WHOLE = Placement(64, 48, 64, 48, 0, 0)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(workers=2) as running:
        yield running


def children(pool: DecoderPool) -> list[psutil.Process]:
    running = [decoder._child for decoder in pool._decoders if decoder._child is not None]
    return [psutil.Process(child._process.pid) for child in running]


def test_as_many_decoders_as_cores_and_memory_allow() -> None:
    assert decoder_count(8, 64 << 30, 64.0) == 8
    assert decoder_count(128, 512 << 30, 64.0) == MOST_DECODERS
    assert decoder_count(8, 4 << 30, 64.0) == 2
    assert decoder_count(8, 4 << 30, 1000.0) == 1, "a picture never takes more than a child's limit"
    assert decoder_count(8, 1 << 20, 64.0) == 1
    assert decoder_count(1, 64 << 30, 64.0) == 1


def test_pictures_are_the_same_whoever_decodes_them(pool: DecoderPool, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:02d}.png" for number in range(12)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((48, 64, 3), number * 20, np.uint8)).save(path)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda path: pool.pixels(path, WHOLE, "white", False), paths))
    assert [int(each[0, 0, 0]) for each in found] == [number * 20 for number in range(12)]
    assert len(children(pool)) == 2


def test_a_hostile_picture_costs_itself_alone(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    gradient().save(good)
    bad.write_bytes(good.read_bytes()[:60])
    with DecoderPool(workers=2) as pool:
        assert not children(pool), "children start when they are needed"
        with pytest.raises(DatasetError, match=r"bad\.png"):
            pool.pixels(bad, WHOLE, "white", False)
        assert len(children(pool)) == 1, "one at a time needs one child"
        wanted = pool.pixels(good, WHOLE, "white", False)
        os.kill(children(pool)[0].pid, signal.SIGKILL)
        psutil.wait_procs(children(pool), timeout=10)
        assert (pool.pixels(good, WHOLE, "white", False) == wanted).all()
        left = children(pool)
    assert not psutil.wait_procs(left, timeout=10)[1], "closing the pool ends its children"
    with pytest.raises(RuntimeError, match="closed"):
        pool.pixels(good, WHOLE, "white", False)


def placement(width: int, height: int) -> Placement:
    return Placement(width, height, width, height, 0, 0)


@pytest.mark.parametrize(
    ("kind", "size", "wanted", "reduction"),
    [
        ("JPEG", (4000, 3000), (1184, 888), 2), ("JPEG", (4000, 3000), (592, 444), 4),
        ("MPO", (6000, 4000), (612, 408), 4), ("JPEG", (6000, 4000), (480, 320), 8),
        ("JPEG", (4000, 3000), (1334, 1000), 1),  # less than 1.5 times would be left
        ("JPEG", (4001, 3000), (1184, 888), 1), ("JPEG", (4002, 3002), (592, 444), 2),  # sides that do not divide
        ("PNG", (4000, 3000), (1184, 888), 1), ("", (4000, 3000), (1184, 888), 1),
        ("JPEG", (1000, 800), (1200, 960), 1),
    ],
)  # fmt: skip
def test_how_far_a_jpeg_is_reduced(kind: str, size: tuple[int, int], wanted: tuple[int, int], reduction: int) -> None:
    assert jpeg_reduction(kind, *size, placement(*wanted)) == reduction


def scene(width: int, height: int) -> Image.Image:
    """Smooth colours and hard edges."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([127 + 90 * np.sin(x / 37.0 + phase) * np.cos(y / 53.0) for phase in (0.0, 1.0, 2.0)], axis=-1)
    waves[(x // 60 + y // 80) % 5 == 0] = 255
    return Image.fromarray(waves.astype(np.uint8))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_shows_the_same(pool: DecoderPool, tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / "a.jpg"
    scene(800, 600).convert(kind).save(path, quality=95, subsampling=0, exif=turned(orientation))
    across = orientation != 6
    # The crop begins off the grid of the reduced picture.
    place = Placement(128, 96, 176, 132, 7, 5) if across else Placement(96, 128, 132, 176, 5, 7)
    whole = pool.pixels(path, place, "white", True).astype(float)
    reduced = pool.pixels(path, place, "white", True, reduction=2).astype(float)
    assert whole.shape == reduced.shape
    psnr = 10 * np.log10(255**2 / np.mean((whole - reduced) ** 2))
    assert psnr > 38
    moved = 10 * np.log10(255**2 / np.mean((np.roll(whole, 1, axis=1) - reduced) ** 2))
    assert moved < psnr - 10, "half a pixel off would show"


def test_what_cannot_be_reduced_changed_since_the_scan(pool: DecoderPool, tmp_path: Path) -> None:
    scene(800, 600).save(tmp_path / "a.png")
    scene(801, 600).save(tmp_path / "b.jpg")
    for name in ("a.png", "b.jpg"):
        with pytest.raises(DatasetError, match="changed"):
            pool.pixels(tmp_path / name, placement(160, 120), "white", False, reduction=4)
    with Decoder() as single, pytest.raises(DatasetError, match="changed"):
        single.pixels(tmp_path / "b.jpg", placement(160, 120), "white", False, reduction=4)

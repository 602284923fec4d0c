"""What pixels tell: blur, blocks, bars, copies and marks, on pictures that are made to have them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, turned
from PIL import Image, ImageDraw, ImageFilter

from engine.dataset.decoder import Decoder, ImageInfo, Look
from engine.dataset.likeness import NEAR, alike
from engine.dataset.quality import PATCH, SIDE, Measures, measure
from engine.dataset.quality_check import Measured, crop_without_border, percentiles, quality_problems, twins
from engine.dataset.quality_store import HEAD, QualityStore, records_in


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """One process for all."""
    with Decoder() as found:
        yield found


@cache
def texture(seed: int, width: int = 512, height: int = 384) -> Image.Image:
    """A picture with structure of all sizes, another one for each seed."""
    draw = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for size in (2, 8, 32, 128):
        cells = draw.integers(0, 255, (height // size + 1, width // size + 1, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)) * size**0.3
    total -= total.min()
    return Image.fromarray((total / total.max() * 255).astype(np.uint8))


def measured(folder: Path, **pictures: Image.Image) -> list[Measured]:
    """Pictures measured as if they had been decoded from files of these names."""
    store = QualityStore(folder / "cache" / "a.bin")
    found = []
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        path.write_bytes(picture.tobytes())
        small = picture.copy()
        small.thumbnail((SIDE, SIDE))
        seen = Look(ImageInfo(*picture.size, "PNG"), np.asarray(small), np.asarray(picture))
        found.append(Measured(path, path.name, *picture.size, store.add(path, measure(seen))))
    return found


def codes(found: list[Measured], held_out: list[Measured] | None = None) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for each in quality_problems(found, held_out or []):
        told.setdefault(each.code, []).append(Path(each.path).name)
    return told


def of(decoder: Decoder, path: Path) -> Measures:
    return measure(decoder.look(path, SIDE, PATCH))


@pytest.mark.parametrize("size", [(512, 384), (1100, 1040)])
def test_jpeg_blocks_grow_as_quality_falls(decoder: Decoder, tmp_path: Path, size: tuple[int, int]) -> None:
    """In small pictures by their pixels, saved again or not; in large ones by what the file says of itself."""
    path, strengths = tmp_path / "a.jpg", []
    for quality in (92, 50, 20, 10):
        path.write_bytes(encoded(texture(1, *size), "JPEG", quality=quality))
        strengths.append(of(decoder, path).blocks)
    assert strengths == sorted(strengths) and strengths[0] < 1.3 and strengths[1] < 2.5 < strengths[2]
    again = tmp_path / "again.png"
    again.write_bytes(encoded(Image.open(path), "PNG"))
    clean = tmp_path / "clean.png"
    clean.write_bytes(encoded(texture(1, *size), "PNG"))
    assert of(decoder, again).blocks > 2.5 > of(decoder, clean).blocks


def test_squares_are_no_jpeg(tmp_path: Path) -> None:
    """Pixel art of 8 pixels a square, and a plain picture."""
    art = texture(2, 64, 64).resize((512, 512), Image.Resampling.NEAREST)
    found = measured(tmp_path, art=art, plain=Image.new("RGB", (512, 512), "grey"))
    assert [each.kept.measures.blocks for each in found] == [1.0, 1.0]


def test_the_blurred_one_is_told_by_the_set(tmp_path: Path) -> None:
    pictures = {f"p{number}": texture(number) for number in range(5)}
    pictures["soft"] = texture(9).filter(ImageFilter.GaussianBlur(4))
    found = measured(tmp_path, **pictures)
    assert codes(found) == {"blurred": ["soft.png"]}
    places = percentiles([each.kept.measures for each in found])
    assert places[-1] == 0 and max(places) == 100 and percentiles([found[0].kept.measures]) == [50]


def test_bars_are_found_where_they_end_at_once(decoder: Decoder, tmp_path: Path) -> None:
    """Film bars, one at a turned side; not a plain background, nor a plain picture."""
    barred = Image.new("RGB", (512, 480))
    barred.paste(texture(1), (0, 48))
    studio = Image.new("RGB", (480, 480), "white")
    studio.paste(texture(2, 200, 300), (140, 90))
    found = measured(tmp_path, barred=barred, studio=studio, plain=Image.new("RGB", (99, 99)))
    assert codes(found) == {"border": ["barred.png"]}
    left, top, width, height = crop_without_border(found[0].kept.measures.border, 512, 480)
    assert (left, width) == (0, 512) and 48 <= top <= 52 and 427 <= top + height <= 432
    path = tmp_path / "lying.jpg"
    path.write_bytes(encoded(barred.rotate(90, expand=True), "JPEG", quality=95, exif=turned(6)))
    bars = of(decoder, path).border
    assert bars[0] == bars[2] == 0 and 0.09 < bars[1] < 0.12 and 0.09 < bars[3] < 0.12


def test_copies_exact_near_and_held_out(tmp_path: Path) -> None:
    pictures = {"a": texture(1), "again": texture(1), "small": texture(1).resize((256, 192)), "b": texture(2)}
    found = measured(tmp_path, **pictures)
    assert codes(found) == {"copy": ["again.png"], "near-copy": ["small.png"]}
    assert twins([each.kept for each in found]) == [1, 1, 1, 0]
    other = measured(tmp_path / "..", b2=texture(2).resize((400, 300)))
    assert codes(found, other)["held-out-copy"] == ["b.png"]


def test_a_mark_at_the_same_place_of_many_may_be_a_watermark(tmp_path: Path) -> None:
    def signed(number: int) -> Image.Image:
        picture = texture(number).copy()
        draw = ImageDraw.Draw(picture)
        for line in range(5):
            draw.rectangle((370 + 25 * line, 340, 379 + 25 * line, 366), fill="white")
        return picture

    clean = measured(tmp_path, **{f"c{number}": texture(number) for number in range(7)})
    assert "mark" not in codes(clean)
    marked = measured(tmp_path, **{f"m{number}": signed(number) for number in range(7)})
    (told,) = [each for each in quality_problems(marked) if each.code == "mark"]
    faces = {f"f{number}": texture(number).copy() for number in range(7)}
    for picture in faces.values():
        ImageDraw.Draw(picture).rectangle((200, 150, 300, 200), fill="black")
    assert "mark" not in codes(measured(tmp_path, **faces)), "eyes of portraits stand at the same place too"
    assert "may be" in told.message and "at the bottom right" in told.message and "7 pictures" in told.message


def test_one_stands_apart(tmp_path: Path) -> None:
    pictures = {f"p{number}": texture(number) for number in range(9)}
    pictures["dark"] = texture(20).point(lambda value: value // 6)
    told = codes(measured(tmp_path, **pictures))
    assert told["apart"] == ["dark.png"]


def test_groups_are_those_of_comparing_every_pair() -> None:
    """The short cuts change nothing, also just at the limit."""
    draw = np.random.default_rng(4)
    base = draw.uniform(20, 230, (12, 768)).astype(np.float32)
    looks = [
        *base,
        *(base[number % 12] + draw.normal(0, 9.2 + number / 60, 768).astype(np.float32) for number in range(60)),
    ]
    parent = list(range(len(looks)))
    for first in range(len(looks)):
        for second in range(first + 1, len(looks)):
            if np.abs(looks[first] - looks[second]).mean() < NEAR:
                old, new = parent[second], parent[first]
                parent = [new if each == old else each for each in parent]
    groups = [[at for at in range(len(looks)) if parent[at] == name] for name in dict.fromkeys(parent)]
    assert alike(looks) == groups and 12 < len(groups) < len(looks)


def test_the_store_knows_a_picture_by_its_bytes(tmp_path: Path) -> None:
    """Also under another name; not after a change; nothing of a damaged file."""
    (one,) = measured(tmp_path, one=texture(3))
    store = QualityStore(tmp_path / "a.bin")
    store.add(one.path, one.kept.measures)
    assert store.save() == "" and store.save() == ""
    again = QualityStore(tmp_path / "a.bin")
    kept = again.find(one.path)
    assert kept is not None and kept.content == one.kept.content
    was, now = one.kept.measures, kept.measures
    assert now.shape == was.shape and now.border == was.border and np.array_equal(now.look, was.look)
    assert now.sharpness == pytest.approx(was.sharpness) and np.array_equal(now.lighter, was.lighter)
    moved = one.path.with_name("moved.png")
    os.rename(one.path, moved)
    assert again.find(moved) is None and again.find_moved(moved) is not None and again.find(moved) is not None
    moved.write_bytes(encoded(texture(4), "PNG"))
    assert again.find(moved) is None and again.find_moved(moved) is None
    whole = (tmp_path / "a.bin").read_bytes()
    assert len(records_in(whole)) == 1
    assert not records_in(whole[:-1]) and not records_in(HEAD) and not records_in(b"")
    assert QualityStore(tmp_path / "gone.bin").find(moved) is None


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (one,) = measured(tmp_path, one=texture(3))
    (tmp_path / "file").write_text("in the way")
    store = QualityStore(tmp_path / "file" / "a.bin")
    store.add(one.path, one.kept.measures)
    assert store.save() != "" and store.find(one.path) is not None

"""Thumbnails: made once, found again, made anew when picture or file changed, never in the way of a problem."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import tui.thumbnails
from engine.dataset.decoder import Decoder
from engine.errors import DatasetError
from tui.thumbnails import LARGE_SIDE, SIDE, Thumbnails


class CountingDecoder(Decoder):
    """Paints instead of decoding, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def thumbnail(self, path: Path, max_side: int, background: str = "white") -> NDArray[np.uint8]:
        self.asked.append(path.name)
        if path.name.startswith("bad"):
            raise DatasetError("Not a picture", f"{path}: \x1b]52;c;QQ==\x07 inside", "Remove it.")
        return np.full((max_side // 2, max_side, 3), 90, np.uint8)


@pytest.fixture
def decoder() -> Iterator[CountingDecoder]:
    with CountingDecoder() as decoder:
        yield decoder


def picture(folder: Path, name: str = "a.png") -> Path:
    path = folder / name
    path.write_bytes(b"stands for a picture")
    return path


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.webp"))


def test_a_picture_is_decoded_once(tmp_path: Path, decoder: CountingDecoder) -> None:
    path, folder = picture(tmp_path), tmp_path / "thumbs"
    first = Thumbnails(decoder, folder)
    assert first.load(path).pixels is first.load(path).pixels
    second = Thumbnails(decoder, folder)
    found = second.load(path).pixels
    assert decoder.asked == ["a.png"]
    assert found is not None and found.shape == (SIDE // 2, SIDE, 3)
    assert folder.stat().st_mode & 0o777 == 0o700
    for thumbnails in (first, second):
        thumbnails.close()


def test_a_changed_picture_gets_a_new_thumbnail(tmp_path: Path, decoder: CountingDecoder) -> None:
    path, folder = picture(tmp_path), tmp_path / "thumbs"
    thumbnails = Thumbnails(decoder, folder)
    thumbnails.load(path)
    os.utime(path, ns=(1, 1))
    thumbnails.load(path)
    assert len(decoder.asked) == 2 and len(files(folder)) == 2


def test_a_large_picture_is_kept_in_memory_alone_and_not_for_long(tmp_path: Path, decoder: CountingDecoder) -> None:
    thumbnails = Thumbnails(decoder, tmp_path / "thumbs")
    paths = [picture(tmp_path, name) for name in ("a.png", "b.png", "c.png")]
    for path in (*paths, paths[2]):
        found = thumbnails.large(path).pixels
        assert found is not None and found.shape == (LARGE_SIDE // 2, LARGE_SIDE, 3)
    assert decoder.asked == ["a.png", "b.png", "c.png"] and not files(tmp_path / "thumbs")
    thumbnails.large(paths[0])
    thumbnails.forget_large()
    thumbnails.large(paths[0])
    assert decoder.asked[3:] == ["a.png", "a.png"]
    assert "Not a picture" in thumbnails.large(picture(tmp_path, "bad.png")).problem
    thumbnails.close()


@pytest.mark.parametrize("damage", ["cut", "foreign", "large", "empty"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, decoder: CountingDecoder, damage: str) -> None:
    path, folder = picture(tmp_path), tmp_path / "thumbs"
    Thumbnails(decoder, folder).load(path)
    (file,) = files(folder)
    if damage == "foreign":
        Image.new("RGB", (8, 8)).save(file, "PNG")
    elif damage == "large":
        Image.new("RGB", (SIDE + 1, 8)).save(file, "WEBP")
    else:
        file.write_bytes(file.read_bytes()[: 40 if damage == "cut" else 0])
    pixels = Thumbnails(decoder, folder).load(path).pixels
    assert pixels is not None and pixels.shape == (SIDE // 2, SIDE, 3)
    assert len(decoder.asked) == 2
    with Image.open(file) as whole:
        assert whole.format == "WEBP" and whole.size == (SIDE, SIDE // 2)


def test_a_bad_picture_is_a_problem_in_plain_words(tmp_path: Path, decoder: CountingDecoder) -> None:
    thumbnail = Thumbnails(decoder, tmp_path / "thumbs").load(picture(tmp_path, "bad.png"))
    assert thumbnail.pixels is None
    assert thumbnail.problem == "Not a picture: \\x1b]52;c;QQ==\\x07 inside"
    assert not files(tmp_path / "thumbs")


def test_a_missing_picture_is_a_problem(tmp_path: Path, decoder: CountingDecoder) -> None:
    thumbnails = Thumbnails(decoder, tmp_path / "thumbs")
    assert "No such file" in thumbnails.load(tmp_path / "gone.png").problem
    assert thumbnails.load(Path("a\0b")).problem


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, decoder: CountingDecoder) -> None:
    (tmp_path / "thumbs").write_text("a file")
    thumbnails = Thumbnails(decoder, tmp_path / "thumbs")
    assert thumbnails.load(picture(tmp_path)).pixels is not None


def test_the_oldest_files_go_when_there_are_too_many(
    tmp_path: Path, decoder: CountingDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tui.thumbnails, "KEPT_FILES", 10)
    folder = tmp_path / "thumbs"
    folder.mkdir()
    for number in range(12):
        file = folder / f"{number:040x}.webp"
        file.touch()
        os.utime(file, ns=(number + 1, number + 1))
    (folder / "mine.webp").touch()
    Thumbnails(decoder, folder).load(picture(tmp_path))
    names = {file.name for file in files(folder)}
    assert "mine.webp" in names
    assert f"{2:040x}.webp" not in names and f"{3:040x}.webp" in names


def test_a_real_picture_is_turned_and_shrunk(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (1200, 800), (200, 10, 10)).save(path, exif=exif)
    with Decoder() as decoder:
        thumbnails = Thumbnails(decoder, tmp_path / "thumbs")
        pixels = thumbnails.pool.submit(thumbnails.load, path).result().pixels
        thumbnails.close()
    assert pixels is not None and pixels.shape == (SIDE, 341, 3)

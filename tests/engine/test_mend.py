"""Files mended when asked: what is made, that the original is kept and left out of training, and taking it back."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import encoded, gradient, picture_file

from engine.config import DatasetConfig, FolderConfig
from engine.dataset.decoder import Decoder
from engine.dataset.mend import keep_beside, readings, rename_apart, take_back, to_png, to_utf8
from engine.dataset.scan import collect
from engine.errors import DatasetError

ENDINGS = (".txt",)


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the note on originals, with their bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lorakiln-originals.txt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def trained(folder: Path) -> list[str]:
    with Decoder() as decoder:
        return [
            sample.name for sample in collect(DatasetConfig(folders=(FolderConfig(path=folder),)), decoder).samples
        ]


def test_an_encoding_is_repaired_and_taken_back(tmp_path: Path) -> None:
    path = picture_file(tmp_path, caption=None).with_suffix(".txt")
    path.write_bytes("a café — naïve".encode("cp1252"))
    before = everything(tmp_path)
    found = dict(readings(path))
    assert found["cp1252"] == "a café — naïve" and len(set(found.values())) == len(found)
    mended = to_utf8(path, "cp1252")
    assert path.read_text("utf-8") == "a café — naïve" and "cp1252" in mended.what and not readings(path)
    assert everything(tmp_path)["originals/a.txt"] == before["a.txt"] and trained(tmp_path) == ["a.png"]
    with pytest.raises(DatasetError, match="does not read"):
        to_utf8(path, "cp1252")
    take_back(mended)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("encoding", ["utf-16-le", "shift_jis", "cp1251"])
def test_other_encodings_are_among_the_readings(tmp_path: Path, encoding: str) -> None:
    text = {"utf-16-le": "a cat, é", "shift_jis": "猫と花", "cp1251": "кошка"}[encoding]
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert text in dict(readings(tmp_path / "a.txt")).values()


def test_a_picture_becomes_a_plain_png(tmp_path: Path) -> None:
    """An animation's first frame, in its own name or a new one; the original does not count as a picture."""
    more = {"save_all": True, "append_images": [gradient().rotate(90)]}
    (tmp_path / "a.webp").write_bytes(encoded(gradient(), "WEBP", **more))
    (tmp_path / "a.txt").write_text("x")
    before = everything(tmp_path)
    with Decoder() as decoder:
        mended = to_png(tmp_path / "a.webp", 64, 48, decoder, "white")
        assert sorted(everything(tmp_path)) == ["a.png", "a.txt", "originals/a.webp"]
        assert decoder.probe(tmp_path / "a.png").warnings == () and trained(tmp_path) == ["a.png"]
        take_back(mended)
        assert everything(tmp_path) == before
        clear = gradient().convert("RGBA")
        clear.putalpha(100)
        (tmp_path / "b.png").write_bytes(encoded(clear, "PNG"))
        own = to_png(tmp_path / "b.png", 64, 48, decoder, "black")
        assert decoder.look(tmp_path / "b.png", 64, 8).transparent == 0
        picture_file(tmp_path, "b.png", None)
        with pytest.raises(DatasetError, match="not as it was made"):
            take_back(own)
        with pytest.raises(DatasetError, match="would be overwritten"):
            to_png(tmp_path / "b.png", 64, 48, decoder, "black")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Neither a picture of the new name, nor a folder of the user's that is called as ours."""
    path = picture_file(tmp_path, "a.jpg")
    picture_file(tmp_path, "a.png", None)
    before = everything(tmp_path)
    with Decoder() as decoder:
        with pytest.raises(DatasetError, match="would be overwritten"):
            to_png(path, 64, 48, decoder, "white")
        (tmp_path / "a.png").unlink()
        (tmp_path / "originals").mkdir()
        with pytest.raises(DatasetError, match="is not lorakiln's"):
            to_png(path, 64, 48, decoder, "white")
    assert everything(tmp_path) == {name: data for name, data in before.items() if name != "a.png"}


def test_two_of_a_stem_get_names_of_their_own(tmp_path: Path) -> None:
    picture_file(tmp_path, "a.jpg")
    path = picture_file(tmp_path, "a.png", None)
    (tmp_path / "a-png.txt").write_text("taken")
    before = everything(tmp_path)
    mended = rename_apart(path, ENDINGS)
    assert trained(tmp_path) == ["a-png-2.png", "a.jpg"]
    assert (tmp_path / "a-png-2.txt").read_text() == "a picture" and "with a copy" in mended.what
    with pytest.raises(DatasetError, match="no other picture"):
        rename_apart(tmp_path / "a.jpg", ENDINGS)
    take_back(mended)
    assert everything(tmp_path) == before


def test_a_made_picture_is_kept_beside(tmp_path: Path) -> None:
    path = picture_file(tmp_path / "set")
    made = picture_file(tmp_path, "out.png", None, width=128, height=96)
    before = everything(tmp_path)
    mended = keep_beside(path, made, "upscaled", ENDINGS)
    assert trained(tmp_path / "set") == ["a-upscaled.png", "a.png"]
    with pytest.raises(DatasetError, match="would be overwritten"):
        keep_beside(path, made, "upscaled", ENDINGS)
    take_back(mended)
    assert everything(tmp_path) == before

"""Files mended when asked: what is made, that the original is kept and left out of training, and taking it back."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import encoded, gradient, picture_file
from PIL import Image

from engine.config import DatasetConfig, FolderConfig
from engine.dataset.decoder import Decoder
from engine.dataset.mend import gif_to_png, keep_beside, readings, rename_apart, take_back, to_png, to_utf8
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


def test_a_gif_becomes_a_png_of_its_first_frame(tmp_path: Path) -> None:
    """Nothing else opens one; the caption is found then, and a file that is no GIF stays as it is."""
    first = gradient().convert("RGB").quantize(256)
    more = {"save_all": True, "append_images": [first.rotate(90)], "transparency": 0}
    (tmp_path / "a.gif").write_bytes(encoded(first, "GIF", **more))
    (tmp_path / "a.txt").write_text("x")
    picture_file(tmp_path, "b.png").rename(tmp_path / "b.gif")
    before = everything(tmp_path)
    config = DatasetConfig(folders=(FolderConfig(path=tmp_path),))
    with Decoder() as decoder:
        fixes = {found.path: found.fix for found in collect(config, decoder).problems if found.code == "unsupported"}
        assert fixes == {str(tmp_path / "a.gif"): "convert", str(tmp_path / "b.gif"): "convert"}
        for refusing in (decoder.probe, decoder.verify, lambda path: decoder.thumbnail(path, 64)):
            with pytest.raises(DatasetError, match="is a GIF"):
                refusing(tmp_path / "a.gif")
        mended = gif_to_png(tmp_path / "a.gif", decoder, "white")
        assert sorted(everything(tmp_path)) == ["a.png", "a.txt", "b.gif", "b.txt", "originals/a.gif"]
        assert trained(tmp_path) == ["a.png"] and "first frame" in mended.what
        with Image.open(tmp_path / "a.png") as made, Image.open(tmp_path / "originals" / "a.gif") as was:
            expected = Image.new("RGB", was.size, "white")
            expected.paste(was.convert("RGBA"), mask=was.convert("RGBA").getchannel("A"))
            assert made.mode == "RGB" and made.tobytes() == expected.tobytes()
        take_back(mended)
        assert everything(tmp_path) == before
        with pytest.raises(DatasetError, match="Not a GIF"):
            gif_to_png(tmp_path / "b.gif", decoder, "white")
        decoder.admit(0.001)
        with pytest.raises(DatasetError, match="too large"):
            gif_to_png(tmp_path / "a.gif", decoder, "white")
    assert everything(tmp_path) == before


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

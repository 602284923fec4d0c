"""Captions written back: the file's own manner kept, nobody else's change overwritten, nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dataset.captions import read_caption
from engine.dataset.edits import CaptionChanged, caption_path, caption_places, open_caption, write_caption
from engine.errors import DatasetError, DiskError

E_ACUTE = "caf\u00e9"

MANNERS = {
    "plain": (b"a cat", b"a dog\nasleep"),
    "line feed": (b"a cat\n", b"a dog\nasleep\n"),
    "two line feeds": (b"a cat\n\n", b"a dog\nasleep\n"),
    "crlf": (b"a cat\r\non a mat\r\n", b"a dog\r\nasleep\r\n"),
    "cr": (b"a cat\ron a mat", b"a dog\rasleep"),
    "mixed": (b"a\r\nb\r\nc\n", b"a dog\r\nasleep\n"),
    "bom": (b"\xef\xbb\xbfa cat\n", b"\xef\xbb\xbfa dog\nasleep\n"),
    "utf-16le": ("\ufeffa cat\r\n".encode("utf-16-le"), "\ufeffa dog\r\nasleep\r\n".encode("utf-16-le")),
    "utf-16be": ("\ufeffa cat".encode("utf-16-be"), "\ufeffa dog\nasleep".encode("utf-16-be")),
    "empty": (b"", b"a dog\nasleep\n"),
    "only a mark": (b"\xef\xbb\xbf", b"\xef\xbb\xbfa dog\nasleep\n"),
    "only a line feed": (b"\n", b"a dog\nasleep\n"),
}


@pytest.mark.parametrize("name", MANNERS)
def test_an_edit_keeps_the_manner_of_the_file(tmp_path: Path, name: str) -> None:
    before, after = MANNERS[name]
    path = tmp_path / "a.txt"
    path.write_bytes(before)
    base = open_caption(path)
    assert write_caption(base, base.text) == base and path.read_bytes() == before
    edited = write_caption(base, "a dog\nasleep")
    assert path.read_bytes() == after
    assert edited.text == "a dog\nasleep" and write_caption(edited, edited.text) == edited
    assert path.read_bytes() == after and os.listdir(tmp_path) == ["a.txt"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)) | st.sampled_from("\n\t"), max_size=60))
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever is typed comes back, and typing goes on from there without growing the file."""
    path = tmp_path_factory.mktemp("edit") / "a.txt"
    written = write_caption(open_caption(path), text)
    assert written.text == text
    assert read_caption(path) == text.removeprefix("\ufeff").strip() if path.exists() else text == ""
    before = path.read_bytes() if path.exists() else None
    assert write_caption(written, text) == written
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_new_caption_is_made_only_when_something_is_written(tmp_path: Path) -> None:
    base = open_caption(tmp_path / "a.txt")
    assert (base.text, base.digest) == ("", "")
    assert write_caption(base, "") == base and not base.path.exists()
    written = write_caption(base, "a cat")
    assert base.path.read_bytes() == b"a cat\n" and written.digest
    emptied = write_caption(written, "")
    assert base.path.read_bytes() == b""
    assert write_caption(emptied, "again").path.read_bytes() == b"again\n"


@pytest.mark.parametrize("first", [None, b"a cat\n"])
@pytest.mark.parametrize("then", [None, b"theirs\n"])
def test_what_others_did_is_never_overwritten(tmp_path: Path, first: bytes | None, then: bytes | None) -> None:
    path = tmp_path / "a.txt"
    if first is not None:
        path.write_bytes(first)
    base = open_caption(path)
    path.unlink(missing_ok=True)
    if then is not None:
        path.write_bytes(then)
    if first == then:
        assert write_caption(base, "mine").text == "mine"
        return
    with pytest.raises(CaptionChanged) as caught:
        write_caption(base, "mine")
    now = caught.value.now
    assert now.text == ("theirs" if then else "") and bool(now.digest) == (then is not None)
    assert (path.read_bytes() if path.exists() else None) == then
    assert caught.value.hint and write_caption(now, "mine").text == "mine"


def test_a_change_while_the_new_file_is_flushed_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import engine.dataset.edits as edits

    path = tmp_path / "a.txt"
    path.write_text("a cat")
    base = open_caption(path)
    monkeypatch.setattr(edits, "flush", lambda temp: path.write_text("theirs"))
    with pytest.raises(CaptionChanged):
        write_caption(base, "mine")
    assert path.read_text() == "theirs" and os.listdir(tmp_path) == ["a.txt"]


def test_permissions_stay_and_links_are_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("of someone else")
    outside.chmod(0o640)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "a.txt"
    path.symlink_to(outside)
    write_caption(open_caption(path), "mine")
    assert outside.read_text() == "of someone else"
    assert not path.is_symlink() and path.stat().st_mode & 0o777 == 0o640
    broken = tmp_path / "data" / "b.txt"
    broken.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DatasetError):
        open_caption(broken)


@pytest.mark.parametrize("text", ["a\x1b]52;c;AA\x07", "a\x00", "x" * 70_000, "half \ud83d"])
def test_a_text_that_could_not_be_read_back_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a cat")
    with pytest.raises(DatasetError):
        write_caption(open_caption(path), text)
    assert path.read_text() == "a cat" and os.listdir(tmp_path) == ["a.txt"]


def test_a_write_that_fails_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a cat")
    base = open_caption(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.files.os.replace", full)
    with pytest.raises(DiskError):
        write_caption(base, "mine")
    assert path.read_text() == "a cat" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("data", [b"caf\xe9", b"a\x1b[2J", b"x" * 100_000])
def test_what_is_no_caption_is_not_opened(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DatasetError):
        open_caption(tmp_path / "a.txt")


def test_where_a_caption_goes() -> None:
    picture = Path("/data/a.b.png")
    assert caption_path(picture, (".txt", ".caption")) == Path("/data/a.b.txt")
    assert list(caption_places(picture, ("CAPTION", ".txt"))) == [Path("/data/a.b.caption"), Path("/data/a.b.txt")]
    assert caption_path(picture, ()) == Path("/data/a.b.txt")

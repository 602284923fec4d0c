"""The journal of mendings: there after a restart, and what a kill left half done is taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import encoded, gradient, picture_file

from engine.dataset import mend
from engine.dataset.decoder import Decoder
from engine.dataset.mend import Announce, Mended, keep_beside, rename_apart, take_back, to_png, to_utf8
from engine.dataset.mend_journal import MendJournal
from engine.errors import DatasetError
from engine.sealed import sealed

ENDINGS = (".txt",)


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the note on originals, with their bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lorakiln-originals.txt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_mendings_and_notes_are_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state" / "mend.jsonl"
    journal = MendJournal(path)
    assert journal.undoable() is None and not path.exists()
    caption = tmp_path / "b\udcff.txt"
    caption.write_bytes("ein Café".encode("cp1252"))
    numbers: list[int] = []
    to_utf8(caption, "cp1252", lambda mended: numbers.append(journal.file(0, mended)))
    second = journal.note(0, tmp_path / "a.png", {"exclude": None})
    assert journal.note(second, tmp_path / "b.png", {"exclude": None, "crop": (1, 2, 3, 4)}) == second != numbers[0]
    again = MendJournal(path)
    step = again.undoable()
    assert step is not None and step.number == second and step.what == "a.png, b.png left out"
    assert [notes for _, notes in step.notes] == [{"exclude": None}, {"exclude": None, "crop": [1, 2, 3, 4]}]
    again.left(second, 0, 1)
    assert journal.undoable() is not None and len(journal.undoable().notes) == 1, "the other process hears of it"  # type: ignore[union-attr]
    journal.left(second, 0, 0)
    first = again.undoable()
    assert first is not None and "cp1252" in first.what
    take_back(first.files[0])
    assert caption.read_bytes() == "ein Café".encode("cp1252") and again.damaged == 0


def test_a_journal_cut_to_its_newest_steps_still_holds_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.dataset import step_file

    journal = MendJournal(tmp_path / "mend.jsonl")
    for number in range(40):
        step = journal.note(0, tmp_path / f"{number}.png", {"exclude": True})
        journal.file(step, Mended("x", ((tmp_path / f"{number}.png", "0" * 64),)))
        journal.note(step, tmp_path / f"{number}b.png", {"stars": 3})
    last = journal.undoable()
    monkeypatch.setattr(step_file, "MOST_BYTES", (tmp_path / "mend.jsonl").stat().st_size // 2)
    again = MendJournal(tmp_path / "mend.jsonl")
    assert again.undoable() == last and (tmp_path / "mend.jsonl").stat().st_size < step_file.MOST_BYTES


def _png(folder: Path, announce: Announce) -> Mended:
    with Decoder() as decoder:
        return to_png(folder / "a.webp", 64, 48, decoder, "white", announce)


MENDINGS: dict[str, Callable[[Path, Announce], Mended]] = {
    "encoding": lambda folder, announce: to_utf8(folder / "bad.txt", "cp1252", announce),
    "convert": _png,
    "rename": lambda folder, announce: rename_apart(folder / "two.png", ENDINGS, announce),
    "beside": lambda folder, announce: keep_beside(folder / "two.png", folder / "b.jpg", "up", ENDINGS, announce),
}


@pytest.mark.parametrize("name", MENDINGS)
@pytest.mark.parametrize("back", [False, True], ids=["while it is mended", "while it is taken back"])
def test_a_kill_at_any_moment_leaves_what_can_be_taken_back(
    name: str, back: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes a folder is once the last one."""

    class Killed(BaseException):
        pass

    def dying(real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object, **options: object) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            real(*args, **options)

        return call

    moments = 0
    while True:
        folder = tmp_path / str(moments)
        picture_file(folder, "two.jpg", "zwei")
        picture_file(folder, "two.png", None)
        picture_file(folder, "b.jpg", None)
        (folder / "a.webp").write_bytes(encoded(gradient(), "WEBP"))
        (folder / "bad.txt").write_bytes("ein Café".encode("cp1252"))
        before = everything(folder)
        journal = MendJournal(folder.with_suffix(".jsonl"))
        left = moments
        with monkeypatch.context() as patch:
            if back:
                MENDINGS[name](folder, lambda mended, to=journal: to.file(0, mended) and None)
            patch.setattr(mend, "_second_name", dying(mend._second_name))
            patch.setattr(mend.os, "replace", dying(mend.os.replace))
            patch.setattr(Path, "unlink", dying(Path.unlink))
            patch.setattr(mend, "flush", dying(mend.flush))
            try:
                if back:
                    step = journal.undoable()
                    assert step is not None
                    take_back(step.files[0])
                else:
                    MENDINGS[name](folder, lambda mended, to=journal: to.file(0, mended) and None)
            except Killed:
                pass
            else:
                break
        step = MendJournal(folder.with_suffix(".jsonl")).undoable()
        if step is not None:
            take_back(step.files[0])
            take_back(step.files[0])
        after = {name: data for name, data in everything(folder).items() if not name.endswith(".part")}
        assert after == before
        moments += 1
    assert moments > 1


@pytest.mark.parametrize(
    "record",
    [
        {"did": "file", "what": "x", "made": [], "moved": [["/home/me/.ssh/id", "/data/originals/a", "0"]]},
        {"did": "file", "what": "x", "made": [["/data/a", "0"]], "moved": [["/data/b", "/etc/passwd", "0"]]},
        {"did": "file", "what": "x", "made": [["/data/../etc/a", "0"]], "moved": []},
        {"did": "file", "what": "x", "made": [["data/a", "0"]], "moved": []},
        {"did": "file", "what": "x", "made": [["/data/a\0", "0"]], "moved": []},
        {"did": "file", "what": "x", "made": [["/data/a", "0"], ["/other/b", "0"]], "moved": []},
        {"did": "file", "what": "x", "made": [["/data/a"]], "moved": []},
        {"did": "file", "what": "x", "made": [], "moved": []},
        {"did": "note", "picture": "/a.png", "before": {"path": 1}},
        {"did": "note", "picture": "/a.png", "before": {"stars": "many"}},
        {"did": "note", "picture": "/a.png", "before": {}},
        {"did": "left", "files": -1, "notes": 0},
        {"did": "else"},
    ],
    ids=str,
)
def test_lines_of_nobody_are_passed_over(record: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "mend.jsonl"
    path.write_text("".join(sealed(json.dumps({**record, "number": number})) + "\n" for number in (1, 0, 2)))
    journal = MendJournal(path)
    assert journal.undoable() is None and journal.damaged == 3


def test_an_original_that_is_gone_is_told(tmp_path: Path) -> None:
    caption = tmp_path / "a.txt"
    caption.write_bytes("ein Café".encode("cp1252"))
    mended = to_utf8(caption, "cp1252")
    (tmp_path / "originals" / "a.txt").unlink()
    with pytest.raises(DatasetError, match="The original is gone"):
        take_back(mended)
    assert caption.read_text("utf-8") == "ein Café"

"""Captions written as one step and taken back: the very bytes from before, and never over what others wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.dataset import applying
from engine.dataset.applying import Wanted, apply, redo, undo
from engine.dataset.batch_edits import Operation, edit_of
from engine.dataset.captions import read_caption
from engine.dataset.edits import CaptionChanged
from engine.dataset.journal import Journal
from engine.errors import DatasetError, DiskFull

FIRST = {
    "plain": b"a cat, b",
    "crlf": b"a cat\r\non a mat, b\r\n",
    "mixed": b"a\r\nb, a cat\rc\n\n",
    "bom": b"\xef\xbb\xbf a cat, b, a \n",
    "wide": "\ufeffb, a cat, b\r\n".encode("utf-16-le"),
    "empty": b"",
    "a line": b"\n",
    "strange": "a\u2028b, \x85é cat".encode(),
}

OPERATIONS = [
    Operation(find="cat", text="dog"), Operation(find="a", text=""), Operation(find="\n", text=" "),
    Operation(find="b", text="x\ny"), Operation(find=r"[\s\S]+", text="", regex=True),
    Operation("prefix", text="zrp,"), Operation("suffix", text=", end\n"), Operation("sort"), Operation("dedupe"),
    Operation("sentence"), Operation("rename", "b", "B2"), Operation("remove", "a"), Operation("tags"),
    Operation(find="o", text="\u2028"),
]  # fmt: skip


def laid_out(folder: Path) -> list[Path]:
    for name, data in FIRST.items():
        (folder / f"{name}.txt").write_bytes(data)
    return [folder / f"{name}.txt" for name in FIRST]


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def wanted(paths: list[Path], operation: Operation) -> list[Wanted]:
    edit = edit_of(operation)
    texts = {path: read_caption(path) for path in paths}
    return [Wanted(path, text, edit(text)) for path, text in texts.items() if edit(text) != text]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=5), st.booleans())
def test_any_batches_undone_give_the_bytes_from_before(
    tmp_path_factory: pytest.TempPathFactory, operations: list[Operation], restarted: bool
) -> None:
    folder = tmp_path_factory.mktemp("batches")
    paths = laid_out(folder)
    journal = Journal(folder.with_suffix(".undo"))
    states = [all_bytes(folder)]
    for operation in operations:
        outcome = apply(str(operation), wanted(paths, operation), journal)
        assert not outcome.refused
        if outcome.done:
            states.append(all_bytes(folder))
    if restarted:
        journal = Journal(folder.with_suffix(".undo"))
    for state in reversed(states[:-1]):
        back = undo(journal)
        assert back is not None and not back.refused and all_bytes(folder) == state
    assert undo(journal) is None
    for state in states[1:]:
        again = redo(journal)
        assert again is not None and not again.refused and all_bytes(folder) == state
    assert redo(journal) is None


def test_what_others_changed_is_left_out_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    paths = [folder / f"{name}.txt" for name in "abc"]
    for path in paths:
        path.write_text(f"a cat {path.stem}\n")
    work = wanted(paths, Operation(find="cat", text="dog"))
    paths[0].write_text("theirs")
    journal = Journal(tmp_path / "undo.jsonl")
    outcome = apply("Replace", work, journal)
    assert [path for path, _ in outcome.refused] == paths[:1]
    assert isinstance(outcome.refused[0][1], CaptionChanged)
    assert [change.path for change in outcome.done] == paths[1:]
    step = journal.undoable()
    assert step is not None and len(step.changes) == 2
    paths[1].write_text("theirs too")
    back = undo(journal)
    assert back is not None and [path for path, _ in back.refused] == [paths[1]]
    assert [path.read_text() for path in paths] == ["theirs", "theirs too", "a cat c\n"]
    assert os.listdir(folder) == ["a.txt", "b.txt", "c.txt"] or len(os.listdir(folder)) == 3
    again = redo(journal)
    assert again is not None and paths[2].read_text() == "a dog c\n" and paths[1].read_text() == "theirs too"


def test_line_ends_that_others_changed_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a cat\r\nb\nc\n")
    journal = Journal()
    apply("One line", wanted([path], Operation(find="\n", text=" ")), journal)
    assert path.read_bytes() in (b"a cat b c\n", b"a cat b c\r\n")
    path.write_bytes(b"a cat b c")
    undo(journal)
    assert path.read_bytes() == b"a cat\nb\nc"


def test_a_caption_that_was_made_goes_again(tmp_path: Path) -> None:
    path, journal = tmp_path / "a.txt", Journal()
    assert (
        len(apply("Caption", [Wanted(path, None, "a cat"), Wanted(tmp_path / "b.txt", None, "")], journal).done) == 1
    )
    assert path.read_bytes() == b"a cat\n" and os.listdir(tmp_path) == ["a.txt"]
    undo(journal)
    assert os.listdir(tmp_path) == []
    redo(journal)
    assert path.read_bytes() == b"a cat\n"
    path.write_text("theirs")
    back = undo(journal)
    assert back is not None and back.refused and path.read_text() == "theirs"


def test_only_what_belongs_to_the_dataset_is_touched(tmp_path: Path) -> None:
    path, journal = tmp_path / "a.txt", Journal()
    path.write_text("a cat")
    apply("Replace", wanted([path], Operation(find="cat", text="dog")), journal)
    back = undo(journal, within={tmp_path / "b.txt"})
    assert back is not None and back.elsewhere and path.read_text() == "a dog" and journal.undoable() is not None
    assert undo(journal, within={path}) is not None and path.read_text() == "a cat"


def test_what_cannot_be_a_caption_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"]
    for path in paths:
        path.write_text("a cat")
    journal = Journal()
    work = [
        Wanted(paths[0], "a cat", "\x1b[2J"),
        Wanted(paths[1], "a cat", "\ufeffx"),
        Wanted(paths[2], "a cat", "ok"),
    ]
    outcome = apply("Strange", work, journal)
    assert len(outcome.refused) == 2 and all(isinstance(err, DatasetError) for _, err in outcome.refused)
    assert [path.read_text() for path in paths] == ["a cat", "a cat", "ok"]


def test_it_can_be_stopped_and_a_full_disk_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "GROUP", 2)
    folder = tmp_path / "data"
    folder.mkdir()
    paths = [folder / f"{number}.txt" for number in range(7)]
    for path in paths:
        path.write_text("a cat")
    told: list[int] = []
    journal = Journal(tmp_path / "undo.jsonl")
    work = wanted(paths, Operation(find="cat", text="dog"))
    outcome = apply("Replace", work, journal, told.append, lambda: len(told) >= 2)
    assert outcome.stopped and told == [2, 4] and len(outcome.done) == 4
    undo(journal)
    assert all(path.read_text() == "a cat" for path in paths)

    replaced: list[object] = []

    def full(*names: object) -> None:
        replaced.append(names)
        if len(replaced) > 3:
            raise OSError(28, "No space left on device")
        real(*names)  # type: ignore[arg-type]

    real = os.replace
    monkeypatch.setattr(os, "replace", full)
    outcome = apply("Replace", work, journal)
    monkeypatch.undo()
    assert outcome.stopped and len(outcome.done) == 3 and isinstance(outcome.refused[-1][1], DiskFull)
    assert sorted(os.listdir(folder)) == sorted(path.name for path in paths), "nothing is left behind"
    step = journal.undoable()
    assert step is not None and len(step.changes) == 3


def test_permissions_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a cat")
    path.chmod(0o640)
    journal = Journal()
    apply("Replace", wanted([path], Operation(find="cat", text="dog")), journal)
    assert path.stat().st_mode & 0o777 == 0o640

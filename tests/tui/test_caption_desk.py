"""Captions being edited: written once, never over someone else's change, never lost."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest

import tui.caption_desk
from engine.dataset.edits import CaptionFile
from engine.errors import DiskError
from tui.caption_desk import KEPT_SHEETS, CaptionDesk
from tui.caption_sheet import shown
from tui.catalog import Row
from tui.places import SHIPPED
from tui.session import Draft, SessionState, load_session, save_session, write_session

MakeRow = Callable[..., Row]


@pytest.fixture
def session() -> SessionState:
    return SessionState()


@pytest.fixture
def desk(session: SessionState) -> Iterator[CaptionDesk]:
    desk = CaptionDesk(session)
    yield desk
    desk.close()


@pytest.fixture
def make_row(tmp_path: Path) -> MakeRow:
    def make(name: str = "a.png", caption: str | bytes | None = "a red cat\n") -> Row:
        path = tmp_path / name
        if caption is not None:
            path.with_suffix(".txt").write_bytes(caption if isinstance(caption, bytes) else caption.encode())
        return Row(path, name, path.with_suffix(".txt"))

    return make


def on_disk(row: Row) -> str:
    return row.caption_path.read_bytes().decode()


def change(row: Row, text: str) -> None:
    """Another program writes."""
    row.caption_path.write_bytes(text.encode())


def test_an_edit_is_written_and_the_draft_goes(desk: CaptionDesk, session: SessionState, make_row: MakeRow) -> None:
    row = make_row()
    sheet = desk.current = desk.open(row)
    assert (sheet.text, sheet.dirty) == ("a red cat", False)
    desk.edit(sheet, "a blue cat", (0, 6))
    assert (session.draft.path, session.draft.text) == (str(row.path), "a blue cat")
    assert (session.draft.row, session.draft.column) == (0, 6)
    assert desk.settle() == [sheet]
    assert on_disk(row) == "a blue cat\n" and not sheet.dirty and session.draft.path == ""


def test_what_was_not_edited_is_never_written(desk: CaptionDesk, make_row: MakeRow) -> None:
    rows = [
        make_row("a.png", "one\r\ntwo\r\n"),
        make_row("b.png", "one\u2028two\x85three"),
        make_row("c.png", b"\xef\xbb\xbfmarked"),
        make_row("d.png", "mixed\r\nends\nhere\r"),
    ]
    before = [(row.caption_path.read_bytes(), os.stat(row.caption_path).st_mtime_ns) for row in rows]
    for row in rows:
        sheet = desk.open(row)
        desk.edit(sheet, sheet.text)
        desk.save(sheet)
    desk.settle()
    assert before == [(row.caption_path.read_bytes(), os.stat(row.caption_path).st_mtime_ns) for row in rows]


def test_an_edit_that_is_undone_writes_nothing(desk: CaptionDesk, make_row: MakeRow) -> None:
    sheet = desk.open(make_row("a.png", None))
    desk.edit(sheet, "x")
    desk.edit(sheet, "")
    desk.settle()
    assert not sheet.base.path.exists()


def test_a_new_caption_gets_a_file(desk: CaptionDesk, make_row: MakeRow) -> None:
    row = make_row("a.png", None)
    sheet = desk.open(row)
    desk.edit(sheet, "a cat")
    desk.settle()
    assert on_disk(row) == "a cat\n"


def test_typing_goes_on_while_a_text_is_written(desk: CaptionDesk, make_row: MakeRow) -> None:
    row = make_row()
    sheet = desk.open(row)
    desk.edit(sheet, "a blue")
    desk.save(sheet)
    desk.edit(sheet, "a blue dog")
    desk.save(sheet)  # the former write is not over yet: this one waits for it
    desk.settle()
    assert on_disk(row) == "a blue dog\n" and not sheet.dirty


def test_a_file_changed_by_others_is_taken_up_while_nothing_was_typed(desk: CaptionDesk, make_row: MakeRow) -> None:
    row = make_row()
    sheet = desk.current = desk.open(row)
    assert not desk.look(sheet)
    change(row, "a green cat")
    assert desk.look(sheet) and sheet.text == "a green cat" and not sheet.dirty
    row.caption_path.unlink()
    assert desk.look(sheet) and sheet.text == ""
    change(row, "again")
    assert desk.look(sheet) and sheet.text == "again"


def test_a_change_with_the_same_size_and_time_is_seen(desk: CaptionDesk, make_row: MakeRow) -> None:
    row = make_row()
    sheet = desk.open(row)
    status = os.stat(row.caption_path)
    change(row, "a rot cat\n")
    os.utime(row.caption_path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert desk.look(sheet) and sheet.text == "a rot cat"


@pytest.mark.parametrize("noticed", ["by looking", "by writing"])
@pytest.mark.parametrize("theirs", ["theirs", "", None], ids=["other text", "emptied", "removed"])
def test_others_changes_are_never_overwritten(
    desk: CaptionDesk, session: SessionState, make_row: MakeRow, noticed: str, theirs: str | None
) -> None:
    row = make_row()
    sheet = desk.current = desk.open(row)
    desk.edit(sheet, "mine")
    if theirs is None:
        row.caption_path.unlink()
    else:
        change(row, theirs)
    if noticed == "by looking":
        assert desk.look(sheet)
    for _ in range(3):
        desk.settle()
    assert sheet.theirs is not None and sheet.text == "mine"
    assert (row.caption_path.exists() and on_disk(row)) == (False if theirs is None else theirs)
    assert session.draft.text == "mine"
    desk.keep_mine(sheet)
    desk.settle()
    assert on_disk(row).strip() == "mine" and not sheet.dirty and session.draft.path == ""


def test_theirs_can_be_taken(desk: CaptionDesk, session: SessionState, make_row: MakeRow) -> None:
    row = make_row()
    sheet = desk.current = desk.open(row)
    desk.edit(sheet, "mine")
    change(row, "theirs")
    desk.look(sheet)
    desk.take_theirs(sheet)
    desk.settle()
    assert on_disk(row) == "theirs" and sheet.text == "theirs" and session.draft.path == ""


def test_keeping_mine_goes_over_nothing_but_what_was_seen(desk: CaptionDesk, make_row: MakeRow) -> None:
    row = make_row()
    sheet = desk.open(row)
    desk.edit(sheet, "mine")
    change(row, "theirs")
    desk.look(sheet)
    change(row, "theirs again")
    desk.keep_mine(sheet)
    desk.settle()
    assert on_disk(row) == "theirs again" and sheet.theirs is not None and sheet.theirs.text == "theirs again"


def test_a_conflict_ends_when_both_agree(desk: CaptionDesk, make_row: MakeRow) -> None:
    row = make_row()
    sheet = desk.open(row)
    desk.edit(sheet, "mine")
    change(row, "theirs")
    desk.look(sheet)
    desk.edit(sheet, "theirs")
    assert sheet.theirs is None and not sheet.dirty
    desk.edit(sheet, "mine")
    change(row, "mine")
    desk.look(sheet)
    assert sheet.theirs is None and not sheet.dirty
    desk.edit(sheet, "more")
    change(row, "theirs")
    desk.look(sheet)
    change(row, "mine")
    desk.look(sheet)
    assert sheet.theirs is None and sheet.dirty
    desk.settle()
    assert on_disk(row).strip() == "more"


def test_a_full_disk_keeps_the_text(
    desk: CaptionDesk, session: SessionState, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make_row()
    sheet = desk.current = desk.open(row)
    desk.edit(sheet, "mine")

    def full(base: CaptionFile, text: str) -> CaptionFile:
        raise DiskError("The disk is full", "no space", "Free some.")

    with monkeypatch.context() as patch:
        patch.setattr(tui.caption_desk, "write_caption", full)
        desk.settle()
    assert sheet.problem is not None and sheet.problem.title == "The disk is full"
    assert sheet.dirty and session.draft.text == "mine" and on_disk(row) == "a red cat\n"
    desk.save_all()
    desk.settle()
    assert on_disk(row) == "mine\n" and sheet.problem is None


def test_a_caption_that_cannot_be_read_is_left_alone(desk: CaptionDesk, make_row: MakeRow) -> None:
    row = make_row("a.png", b"caf\xe9")
    sheet = desk.open(row)
    assert not sheet.readable and sheet.problem is not None
    desk.edit(sheet, "typed")
    desk.settle()
    assert row.caption_path.read_bytes() == b"caf\xe9"
    change(row, "café")
    assert desk.look(sheet) and sheet.readable and sheet.text == "café"
    row.caption_path.write_bytes(b"caf\xe9")
    assert desk.look(sheet) and not sheet.readable
    row.caption_path.unlink()
    assert desk.look(sheet) and sheet.readable and sheet.text == ""


def test_an_edited_text_stays_when_the_file_turns_unreadable(desk: CaptionDesk, make_row: MakeRow) -> None:
    row = make_row()
    sheet = desk.open(row)
    desk.edit(sheet, "mine")
    row.caption_path.write_bytes(b"caf\xe9")
    desk.look(sheet)
    desk.settle()
    assert sheet.readable and sheet.text == "mine" and sheet.problem is not None
    assert row.caption_path.read_bytes() == b"caf\xe9"


def test_a_draft_comes_back_and_is_written(make_row: MakeRow, tmp_path: Path) -> None:
    row = make_row()
    state = SessionState()
    first = CaptionDesk(state)
    sheet = first.current = first.open(row)
    first.edit(sheet, "typed until the host died", (0, 3))
    save_session(state, tmp_path / "session.json")

    second = CaptionDesk(load_session(tmp_path / "session.json"))
    assert second.waiting == [str(row.path)]
    sheet = second.open(row)
    assert sheet.text == "typed until the host died" and sheet.cursor == (0, 3) and sheet.dirty
    second.close()
    assert on_disk(row) == "typed until the host died\n"


def test_a_draft_on_a_changed_file_is_a_conflict_however_often_it_comes_back(make_row: MakeRow) -> None:
    row = make_row()
    state = SessionState()
    first = CaptionDesk(state)
    first.current = first.open(row)
    first.edit(first.current, "mine")
    change(row, "theirs")
    for _ in range(3):
        desk = CaptionDesk(state)
        desk.current = sheet = desk.open(row)
        desk.edit(sheet, sheet.text)
        desk.close()
        assert sheet.theirs is not None and sheet.text == "mine" and on_disk(row) == "theirs"
        assert state.draft.text == "mine"
    change(row, "a red cat\n")
    assert desk.look(sheet) and sheet.theirs is None and sheet.dirty


def test_drafts_of_other_pictures_are_kept(make_row: MakeRow, tmp_path: Path) -> None:
    a, b = make_row("a.png"), make_row("b.png")
    state = SessionState()
    desk = CaptionDesk(state)
    for row in (a, b):
        desk.current = desk.open(row)
        desk.edit(desk.current, f"mine of {row.name}")
    change(a, "theirs")
    desk.close()
    assert state.draft.path == "" and list(state.drafts) == [str(a.path)]
    save_session(state, tmp_path / "session.json")
    state = load_session(tmp_path / "session.json")
    again = CaptionDesk(state)
    again.current = again.open(b)
    again.edit(again.current, "b once more")
    assert state.drafts[str(a.path)].text == "mine of a.png" and state.draft.text == "b once more"
    again.close()
    assert on_disk(b) == "b once more\n" and again.open(a).theirs is not None


def test_histories_of_old_sheets_go_but_no_text(desk: CaptionDesk, make_row: MakeRow) -> None:
    kept = desk.open(make_row("kept.png"))
    desk.edit(kept, "mine")
    change(kept.row, "theirs")
    desk.look(kept)
    for number in range(KEPT_SHEETS + 20):
        desk.open(make_row(f"{number}.png", None))
    assert len(desk._sheets) == KEPT_SHEETS and desk.open(kept.row) is kept and kept.text == "mine"


def test_what_belongs_to_the_program_is_only_shown(desk: CaptionDesk) -> None:
    picture = next((SHIPPED / "models/pocket/demo/train").glob("*.png"))
    before = picture.with_suffix(".txt").read_bytes()
    sheet = desk.open(Row(picture, picture.name, picture.with_suffix(".txt")))
    desk.edit(sheet, "typed")
    desk.settle()
    assert sheet.text and not sheet.editable and picture.with_suffix(".txt").read_bytes() == before


def test_saved_captions_are_told(make_row: MakeRow) -> None:
    told: list[tuple[str, str]] = []
    desk = CaptionDesk(SessionState(), lambda row, text: told.append((row.name, text)))
    row = make_row()
    desk.edit(desk.open(row), "new")
    desk.close()
    assert told == [("a.png", "new")]


@pytest.mark.parametrize("text", ["", "a", "a\n", "a\n\nb", "\n", "a\u2028b\x85c"])
def test_shown_is_what_the_editor_makes_of_a_text(text: str) -> None:
    from textual.document._document import Document

    assert shown(text) == Document(text).text


class TwoWriters:
    """The user at a desk and another program at the same files, and what each of them may rely on."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.state = SessionState()
        self.desk = CaptionDesk(self.state)
        self.seen = {row: {""} for row in rows}
        """Texts of the file that the user had before him."""
        self.typed: dict[Row, str] = {}
        """What the user typed last and the file never held."""

    def act(self, what: str, row: Row, text: str) -> None:
        before = on_disk(row).strip()
        sheet = self.desk.current = self.desk.open(row)
        if not sheet.dirty:
            self.seen[row].add(sheet.text)
        if what == "type":
            self.desk.edit(sheet, text)
            self.typed[row] = text
        elif what == "others":
            change(row, text)
            before = text
        elif what == "keep" and sheet.theirs is not None:
            self.seen[row].add(sheet.theirs.text)
            self.desk.keep_mine(sheet)
        elif what == "take" and sheet.theirs is not None:
            self.desk.take_theirs(sheet)
            self.typed.pop(row, None)
        elif what == "look":
            self.desk.look(sheet)
        elif what == "save":
            self.desk.save(sheet)
        elif what == "settle":
            self.desk.settle()
        elif what == "another screen":
            self.desk.close()
            self.desk = CaptionDesk(self.state)
        self.check(row, before)

    def check(self, row: Row, before: str) -> None:
        self.desk.settle()
        now = on_disk(row).strip()
        assert now == before or before in self.seen[row], f"{before!r} was overwritten unseen"
        sheet = self.desk.open(row)
        if now == self.typed.get(row):
            del self.typed[row]
        if row in self.typed:
            assert sheet.text == self.typed[row], f"{self.typed[row]!r} is lost"
        if not sheet.dirty:
            self.seen[row].add(sheet.text)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_no_text_is_lost_and_none_overwritten_unseen(make_row: MakeRow, seed: int) -> None:
    draw = random.Random(seed)
    two = TwoWriters([make_row(f"{number}.png") for number in range(3)])
    acts = ["type", "type", "others", "keep", "take", "look", "save", "settle", "another screen"]
    for step in range(150):
        two.act(draw.choice(acts), draw.choice(two.rows), f"text {step}")
    two.desk.close()


def test_a_write_is_told_from_the_writing_thread(desk: CaptionDesk, make_row: MakeRow) -> None:
    told = threading.Event()
    desk.tell = told.set
    sheet = desk.open(make_row())
    desk.edit(sheet, "new")
    desk.save(sheet)
    assert told.wait(20) and desk.collect() == [sheet]


def test_drafts_are_kept_while_the_screen_is_up(make_row: MakeRow, tmp_path: Path) -> None:
    """What a killed host leaves behind: the draft, until its text is in its file."""
    state, place = SessionState(), tmp_path / "session.json"
    desk = CaptionDesk(state, keep=lambda table: write_session(table, place))
    sheet = desk.current = desk.open(make_row())
    desk.tend(sheet)
    desk.settle()
    assert not place.exists()
    desk.edit(sheet, "a blue cat")
    desk.tend(sheet)
    wait(desk.keeper.writes)
    assert load_session(place).draft.text == "a blue cat"
    change(sheet.row, "theirs")  # so that it cannot be written
    desk.settle()
    desk.tend(sheet)
    wait(desk.keeper.writes)
    assert load_session(place).draft.text == "a blue cat"
    desk.keep_mine(sheet)
    desk.settle()
    wait(desk.keeper.writes)
    assert on_disk(sheet.row) == "a blue cat" and load_session(place) == SessionState()
    desk.close()


@pytest.mark.parametrize("inside", [True, False])
def test_drafts_of_a_strange_folder_are_written_where_they_belong_alone(
    make_row: MakeRow, tmp_path: Path, inside: bool
) -> None:
    """A work folder may come from somebody else, with a session in it that names the user's own captions."""
    row = make_row()
    state = SessionState()
    known = CaptionDesk(SessionState())
    state.drafts[str(row.path)] = Draft(str(row.path), "a text of theirs", known.open(row).base.digest)
    known.close()
    folder = tmp_path / "work"
    folder.mkdir()
    desk = CaptionDesk(state, own=tmp_path if inside else folder)
    sheet = desk.open(row)
    desk.look(sheet)
    desk.save(sheet)
    desk.settle()
    assert on_disk(row) == ("a text of theirs\n" if inside else "a red cat\n")
    if not inside:
        assert sheet.text == "a text of theirs" and sheet.theirs is not None and sheet.theirs.text == "a red cat"
        assert state.drafts[str(row.path)].text == "a text of theirs"
        desk.keep_mine(sheet)
        desk.settle()
        assert on_disk(row) == "a text of theirs\n"
    desk.close()


def test_a_file_is_looked_at_by_the_writing_thread(desk: CaptionDesk, make_row: MakeRow) -> None:
    sheet = desk.current = desk.open(make_row())
    told = threading.Event()
    desk.tell = told.set
    change(sheet.row, "a green cat")
    desk.tend(sheet)
    assert told.wait(30) and sheet.text == "a red cat"
    assert desk.take_looks() == [sheet] and sheet.text == "a green cat" and not sheet.dirty
    desk.tend(sheet)
    assert desk._looking is not None
    wait([desk._looking])
    assert desk.take_looks() == []

"""Captions edited in any order of typing, undoing, saving, changes by others, kills and returns: nothing is lost,
nothing of others is written over unasked, and no file is ever half-written.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from concurrent.futures import wait
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.dataset.edits import open_caption
from engine.errors import DatasetError
from tests.crash.seams import Seams
from tests.reliability import figure
from tui.caption_desk import CaptionDesk
from tui.caption_sheet import Sheet, shown
from tui.catalog import Row
from tui.session import load_session, save_session, write_session

NAMES = st.sampled_from(["a", "b"])
TEXTS = st.sampled_from(["", "a cat", "a cat\non a mat", "one\ntwo\nthree", "x", "ends\n", "é\u200d\u2028?", "mine"])
READABLE = [
    b"theirs\n",
    b"one\r\ntwo\r\n",
    b"mixed\r\nends\n\rx",
    "a\u2028b".encode(),
    b"\xef\xbb\xbfa cat",
    b"",
    b"x",
]
THEIRS = st.sampled_from([*READABLE, "\ufeffwide\r\n".encode("utf-16-le"), b"caf\xe9", b"a\0b", None])
WAIT_S = 60.0


def essence(text: str) -> str:
    """A text without what the end of a file may hide: its last empty lines."""
    return shown(text).rstrip("\n")


class Killed(BaseException):
    """What stops a writing thread where a kill would."""


class CaptionEdits(RuleBasedStateMachine):
    """Two captions on one desk, whose session lies in a file."""

    counts = {"kills": 0, "steps": 0, "conflicts": 0}  # noqa: RUF012 - of all machines together

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="captions"))
        self.session_file = self.folder / "session.json"
        self.rows = {
            name: Row(self.folder / f"{name}.png", f"{name}.png", self.folder / f"{name}.txt") for name in "ab"
        }
        self.rows["a"].caption_path.write_bytes(b"one\r\ntwo\nthree")
        self.session = load_session(self.session_file)
        self.versions: dict[str, list[str]] = {"a": [], "b": []}
        """What was typed and is not known to be in the file, oldest first; the last one is the user's text."""
        self.kept: dict[str, int] = {"a": 0, "b": 0}
        """How many of the versions the session's file may have forgotten."""
        self.begin()

    def begin(self) -> None:
        """A desk on the session as it is."""
        self.desk = CaptionDesk(self.session, keep=lambda table: write_session(table, self.session_file))
        self.current = "a"
        self.sheet("a")

    def sheet(self, name: str) -> Sheet:
        sheet = self.desk.open(self.rows[name])
        self.desk.current, self.current = sheet, name
        return sheet

    def disk(self, name: str) -> bytes | None:
        path = self.rows[name].caption_path
        return path.read_bytes() if path.exists() else None

    def in_file(self, name: str) -> str | None:
        """The file's text as the editor shows it; None where it is no caption."""
        try:
            return essence(open_caption(self.rows[name].caption_path).text)
        except DatasetError:
            return None

    @rule(name=NAMES, text=TEXTS)
    def types(self, name: str, text: str) -> None:
        sheet = self.sheet(name)
        if sheet.editable and essence(text) != essence(sheet.text):
            self.desk.edit(sheet, shown(text))
            self.versions[name].append(essence(text))

    @rule(name=NAMES)
    def undoes(self, name: str) -> None:
        sheet = self.sheet(name)
        if sheet.editable and len(self.versions[name]) > 1:
            self.desk.edit(sheet, self.versions[name][-2])
            self.versions[name].append(self.versions[name][-2])

    @rule(name=NAMES, data=THEIRS)
    def others_write(self, name: str, data: bytes | None) -> None:
        path = self.rows[name].caption_path
        if data is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(data)

    @rule(name=NAMES)
    def looks(self, name: str) -> None:
        self.desk.look(self.sheet(name))

    @rule()
    def saves(self) -> None:
        """A write goes ahead only over what the sheet was begun on, and never while there is a question."""
        sheets = {name: self.desk._sheets.get(str(row.path)) for name, row in self.rows.items()}
        before = {name: self.disk(name) for name in sheets}
        begun = {name: (sheet.base.digest, sheet.theirs, sheet.text) for name, sheet in sheets.items() if sheet}
        self.desk.settle(WAIT_S)
        for name in begun:
            now = self.disk(name)
            if now == before[name]:
                continue
            digest, theirs, text = begun[name]
            assert theirs is None, "written while the user had not chosen"
            assert digest == (hashlib.sha256(before[name]).hexdigest() if before[name] is not None else "")
            assert self.in_file(name) == essence(text)

    @rule()
    def keeps(self) -> None:
        """What the screen does every second: drafts go to the session's file."""
        self.desk.tend(None)
        wait(self.desk.keeper.writes, WAIT_S)
        self.kept = {name: max(0, len(texts) - 1) for name, texts in self.versions.items()}

    @rule(name=NAMES, mine=st.booleans())
    def chooses(self, name: str, mine: bool) -> None:
        sheet = self.sheet(name)
        if sheet.theirs is None:
            return
        self.counts["conflicts"] += 1
        if mine:
            self.desk.keep_mine(sheet)
            self.desk.settle(WAIT_S)
        else:
            theirs = shown(sheet.theirs.text)
            self.desk.take_theirs(sheet)
            self.versions[name], self.kept[name] = [], 0
            assert sheet.text == theirs and not sheet.dirty

    @rule()
    def comes_back(self) -> None:
        """The host ends in order, and another takes up its session."""
        self.desk.close()
        wait(self.desk._writes, WAIT_S)
        self.desk.collect()
        save_session(self.session, self.session_file)
        self.session = load_session(self.session_file)
        self.begin()

    @rule(moment=st.integers(1, 14))
    def is_killed(self, moment: int) -> None:
        """At some write, flush or rename of the captions and the session, or right after the last of them."""
        dead = False

        def at(number: int, what: str, path: str) -> None:
            nonlocal dead
            dead = dead or number >= moment
            if dead:
                raise Killed

        self.counts["kills"] += 1
        with Seams([self.folder], at):
            self.desk.save_all()
            self.desk.keeper.keep()
            wait([*self.desk._writes, *self.desk.keeper.writes], WAIT_S)
        self.desk._pool.shutdown()
        self.session = load_session(self.session_file)
        for name, texts in self.versions.items():
            self.versions[name] = self.survived(name, texts)
            self.kept[name] = max(0, len(self.versions[name]) - 1)
        self.begin()

    def survived(self, name: str, texts: list[str]) -> list[str]:
        """The user's text after a kill: in its file, or a draft no older than what was kept last."""
        draft = self.session.drafts.get(str(self.rows[name].path))
        if self.session.draft.path == str(self.rows[name].path):
            draft = self.session.draft
        if not texts or self.in_file(name) in texts[self.kept[name] :]:
            return [essence(draft.text)] if draft is not None else []
        if draft is not None:
            assert essence(draft.text) in texts[self.kept[name] :] or self.kept[name] == 0
            return [essence(draft.text)]
        assert self.kept[name] == 0, f"{texts} was kept and is gone"
        return []

    @precondition(lambda self: any(self.versions.values()))
    @invariant()
    def the_users_text_is_somewhere(self) -> None:
        for name, texts in self.versions.items():
            if not texts:
                continue
            key = str(self.rows[name].path)
            sheet = self.desk._sheets.get(key)
            waiting = self.desk._waiting.get(key)
            held = sheet.text if sheet is not None else waiting.text if waiting is not None else self.in_file(name)
            assert held is not None and essence(held) == texts[-1], f"{name}: {held!r} instead of {texts[-1]!r}"
            if (sheet is None and waiting is None) or (sheet is not None and not sheet.dirty):
                # It reached the file: from then on it is the file's business, others may change it.
                self.versions[name], self.kept[name] = [], 0

    @invariant()
    def no_file_is_half_written(self) -> None:
        self.counts["steps"] += 1
        names = {path.name for path in self.folder.iterdir() if not path.name.endswith(".part")}
        assert names <= {"a.txt", "b.txt", "session.json"}

    def teardown(self) -> None:
        self.desk.close()
        shutil.rmtree(self.folder)


class LongCaptionEdits(CaptionEdits):
    """The same, on demand and for long."""


_HEALTH = [HealthCheck.too_slow, HealthCheck.data_too_large]
TestCaptionEdits = CaptionEdits.TestCase
TestCaptionEdits.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=_HEALTH
)


@pytest.mark.crash
class TestLongCaptionEdits(LongCaptionEdits.TestCase):  # type: ignore[misc,name-defined]
    """Thousands of steps."""

    settings = settings(max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=_HEALTH)

    def runTest(self) -> None:
        """Let the machine run and tell how far it went."""
        super().runTest()
        counts = LongCaptionEdits.counts
        figure(
            "captions", "steps of editing, with changes by others and kills, without a loss", f"{counts['steps']:,}"
        )
        figure("captions", "kills and conflicts among them", f"{counts['kills']:,} and {counts['conflicts']:,}")

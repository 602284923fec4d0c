"""What the session keeps, whatever lies where it is read from or written to."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.errors import DiskError
from tui import session
from tui.session import Draft, SessionState, load_session, save_session


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    state = SessionState(filter="cat", drafts={"/a.png": Draft("/a.png", "émile \u2028", "abc", 1, 2)}, zoomed=True)
    save_session(state, path)
    assert load_session(path) == state


UNUSABLE = {
    "torn": b"{broken",
    "no table": b"[1]",
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "large": b'{"pane": "x"}' + b" " * 5_000_000,
}


@pytest.mark.parametrize("data", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_file_that_cannot_be_used_is_put_aside(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "session.json"
    path.write_bytes(data)
    assert load_session(path) == SessionState()
    assert not path.exists() and (tmp_path / "session.json.bad").read_bytes() == data


def test_nothing_there_and_no_file_are_no_session(tmp_path: Path) -> None:
    assert load_session(tmp_path / "session.json") == SessionState()
    os.mkfifo(tmp_path / "session.json")
    assert load_session(tmp_path / "session.json") == SessionState()


def test_what_is_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest drafts stay out of a file that would be too large, and it is said."""
    monkeypatch.setattr(session, "MAX_BYTES", 20_000)
    path = tmp_path / "session.json"
    drafts = {
        f"/{name}.png": Draft(f"/{name}.png", name * size) for name, size in (("a", 9_000), ("b", 12_000), ("c", 5))
    }
    with pytest.raises(DiskError) as told:
        save_session(SessionState(filter="cat", drafts=drafts), path)
    assert "/b.png" in told.value.detail
    assert list(load_session(path).drafts) == ["/a.png", "/c.png"] and load_session(path).filter == "cat"
    with pytest.raises(DiskError):
        save_session(SessionState(filter="dog", form={"name": "x" * 30_000}), path)
    assert json.loads(path.read_text())["filter"] == "cat"

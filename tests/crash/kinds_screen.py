"""Files that the screens write and read back: how one is made, and how it is read; a part of :mod:`kinds`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engine.dataset.past import Past, open_past, write_news
from engine.dataset.spelling import add_word
from tui.judged import JUDGED_NAME, Judged, Opinion, read_judged, write_judged
from tui.session import Draft, SessionState, load_session, save_session
from tui.settings import load_settings
from tui.sweep_file import Sweep, SweepRun, read_sweep, write_manifest
from tui.terminal.place import HostInfo, read_info, write_info
from tui.terminal.place import Place as HostPlace
from tui.themes import user_themes

DETECTED = "damage was noticed"


def _unless_aside(path: Path, found: Any, nothing: Any) -> Any:
    """What was read, where the file was not set aside; else nothing may have been."""
    aside = path.with_name(path.name + ".bad")
    if not aside.exists():
        return found
    aside.unlink()
    assert found == nothing
    return DETECTED


def make_words_file(folder: Path, which: int) -> Path:
    add_word(folder / "words.txt", f"word{which}")
    add_word(folder / "words.txt", "é")
    return folder / "words.txt"


def make_past_file(folder: Path, which: int) -> Path:
    past = Past(f"a cat {which}")
    for text in ("a cat, sitting", "é", "a dog"):
        past.take(text)
        write_news(folder / "past.jsonl", past.news())
    past.undo()
    write_news(folder / "past.jsonl", past.news())
    return folder / "past.jsonl"


def read_past_file(path: Path) -> list[str]:
    past = open_past(path, "é", "é")
    texts = [past.text]
    while past.undo():
        texts.append(past.text)
    return texts


def make_session_file(folder: Path, which: int) -> Path:
    state = SessionState(pane="training", cursor=f"/a{which}.png", draft=Draft("/a.png", "a cat, é", "ab", 1, 2))
    state.drafts["/b.png"] = Draft("/b.png", "a dog")
    save_session(state, folder / "session.json")
    return folder / "session.json"


def read_session_file(path: Path) -> Any:
    return _unless_aside(path, load_session(path), SessionState())


def make_judged_file(folder: Path, which: int) -> Path:
    write_judged(folder, Judged({3: Opinion(4, "é best", "yes", wins=2, shown=3), 7 + which: Opinion(1)}, 3))
    return folder / JUDGED_NAME


def read_judged_file(path: Path) -> Any:
    return _unless_aside(path, read_judged(path.parent), Judged())


def make_sweep_file(folder: Path, which: int) -> Path:
    write_manifest(Sweep(folder, (SweepRun(name="cat-r8"), SweepRun(name=f"cat-r{16 + which}", state="finished"))))
    return folder / "sweep.toml"


def read_sweep_file(path: Path) -> Any:
    return read_sweep(path.parent).runs


def make_note_file(folder: Path, which: int) -> Path:
    write_info(HostPlace(folder / "host"), HostInfo(4242 + which, "/work", "0.1", 12.5, "/runs/cat"))
    return HostPlace(folder / "host").info


def read_note_file(path: Path) -> Any:
    return read_info(HostPlace(path.with_suffix(""))) or DETECTED


def make_settings_file(folder: Path, which: int) -> Path:
    (folder / "settings.toml").write_text(f'theme = "dark"\nmodel_folders = ["/models/{which}"]\n')
    return folder / "settings.toml"


def read_settings_file(path: Path) -> Any:
    before = os.environ.get("LORAKILN_SETTINGS")
    os.environ["LORAKILN_SETTINGS"] = str(path)
    try:
        return load_settings()
    finally:
        if before is None:
            del os.environ["LORAKILN_SETTINGS"]
        else:
            os.environ["LORAKILN_SETTINGS"] = before


def make_theme_file(folder: Path, which: int) -> Path:
    path = folder / "mine.toml"
    path.write_text(f'base = "dark"\nprimary = "#a0b0c{which}"\nbackground = "#101010"\n')
    return path


def read_themes_file(path: Path) -> Any:
    found, errors = user_themes(path.parent)
    if errors:
        raise errors[0]
    return found

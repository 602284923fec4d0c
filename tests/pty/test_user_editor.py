"""A caption in the user's own editor: the terminal is lent, and comes back whatever becomes of the editor."""

from __future__ import annotations

import os
import stat

import pytest
from children import Child, Work, assert_restored
from fake_run import write_picture

from tui.terminal.user_editor import editor_command

pytestmark = pytest.mark.pty

EDITOR = """#!/bin/sh
# Says what it has, waits for a line, and puts it behind the text.
echo "EDITING $(cat "$1") $(stty -a | grep -c ' echo ')"
read line || exit 3
[ "$line" = cancel ] && exit 1
printf '%s' "$line" >> "$1"
"""


def test_the_environment_names_the_editor() -> None:
    assert editor_command({"EDITOR": "emacs -nw", "VISUAL": "code --wait 'a b'"}) == ["code", "--wait", "a b"]
    assert editor_command({"EDITOR": "emacs -nw", "VISUAL": "'"}) == ["emacs", "-nw"]


@pytest.fixture
def editor(work: Work) -> dict[str, str]:
    """The environment that names our editor; and a picture with a caption."""
    folder = work.folder / "pictures"
    folder.mkdir()
    write_picture(folder / "alder.png", 0, 1.0)
    (folder / "alder.txt").write_text("a tree\n")
    program = work.root / "my editor"
    program.write_text(EDITOR)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"VISUAL": f"'{program}'", "LANG": "C"}


def caption(work: Work) -> str:
    return (work.folder / "pictures/alder.txt").read_text()


def editing(child: Child) -> int:
    """Open the caption in the editor; returns what was seen before."""
    child.until_shown("alder.png")
    child.press("\r")
    child.until_shown("saved")
    before = len(child.seen)
    child.press("\x1bOS")
    child.until(b"EDITING a tree", before)
    return before


@pytest.mark.parametrize("where", ["host", "foreground"])
def test_what_is_written_there_is_taken_and_saved(work: Work, editor: dict[str, str], where: str) -> None:
    if where == "host":
        child = work.attach(environment=editor)
    else:
        child = work.program("-m", "tui", "--foreground", environment=editor)
    before = editing(child)
    shown = child.seen[before:]
    assert shown.rfind(b"\x1b[?1049l") < shown.rfind(b"EDITING") and b"1\r\n" in shown  # its own screen, with echo
    child.press("in autumn\n")
    child.until(b"\x1b[?1049h", before)
    child.wait_for(lambda: caption(work) == "a tree\nin autumn\n")
    child.press("\x1c" if where == "host" else "\x11")
    assert child.wait() == 0
    assert_restored(child)
    assert not list((work.folder / ".kiln/edit").iterdir())


def test_an_editor_that_fails_changes_nothing_and_one_left_open_goes_with_the_terminal(
    work: Work, editor: dict[str, str]
) -> None:
    child = work.attach(environment=editor)
    before = editing(child)
    child.press("cancel\n")
    child.until_shown("nothing was taken")
    assert caption(work) == "a tree\n"
    before = len(child.seen)
    child.press("\x1bOS")
    child.until(b"EDITING a tree", before)
    child.press("\x03")  # the editor's alone
    child.until(b"\x1b[?1049h", before)
    before = len(child.seen)
    child.press("\x1bOS")
    child.until(b"EDITING a tree", before)
    again = work.attach(environment=editor)  # another terminal wants the screen
    again.until_shown("a tree")
    assert child.wait() == 0
    assert_restored(child)
    assert caption(work) == "a tree\n" and len(os.listdir(work.folder / ".kiln/edit")) == 1
    again.press("\x1c")
    assert again.wait() == 0

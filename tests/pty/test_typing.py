"""A host killed while the user types: what was typed up to about a second before is found again, and whole."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from children import Child, Work, wait_until
from fake_run import write_picture
from reliability import figure

pytestmark = pytest.mark.pty

ORIGINAL = "a drawing of a tree"
ALPHABET = "abcdefghijklmnopqrstuvwxyz "


def editing(work: Work) -> tuple[Child, Path]:
    """A client whose cursor stands at the end of a caption, and that caption's file."""
    folder = work.folder / "pictures"
    if not folder.exists():
        folder.mkdir()
        write_picture(folder / "alder.png", 0, 1.0)
    file = folder / "alder.txt"
    file.write_text(ORIGINAL)
    (work.folder / ".kiln/session.json").unlink(missing_ok=True)
    child = work.attach()
    child.until_shown("> alder")
    child.press("\r")
    child.until_shown(ORIGINAL)
    child.press("\x1b[F")
    return child, file


def found(work: Work, file: Path) -> str:
    """What the next screen would show: the draft if there is one, else the file."""
    session = work.folder / ".kiln/session.json"
    table = json.loads(session.read_text()) if session.exists() else {}
    drafts = [table.get("draft", {}), *table.get("drafts", {}).values()]
    texts = [draft["text"] for draft in drafts if draft.get("path", "").endswith("alder.png")]
    return max([*texts, file.read_text()], key=len)


def typed_until(child: Child, chance: random.Random, keys: int) -> list[tuple[float, str]]:
    """Type so many keys, in bursts; when each was typed."""
    typed = []
    for _ in range(keys):
        key = chance.choice(ALPHABET)
        child.press(key)
        typed.append((time.monotonic(), key))
        child.read(chance.choice((0.0, 0.0, 0.03, 0.1, 0.4)))
    return typed


def kill_while_typing(work: Work, chance: random.Random) -> tuple[int, float]:
    """Kill the host at a random keystroke; how many keys were lost, and how old the first of them was."""
    child, file = editing(work)
    typed = typed_until(child, chance, chance.randrange(2, 25))
    host, at = work.host(), time.monotonic()
    os.kill(host, signal.SIGKILL)
    child.wait()
    wait_until(lambda: not work.host_is_alive())
    whole = ORIGINAL + "".join(key for _, key in typed)
    kept = found(work, file)
    assert file.read_text() in (kept, ORIGINAL) or whole.startswith(file.read_text())
    assert whole.startswith(kept.rstrip("\n")), (whole, kept)
    lost = len(whole) - len(kept.rstrip("\n"))
    return lost, at - typed[-lost][0] if lost else 0.0


@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=[pytest.mark.crash, pytest.mark.timeout(3600)])])
def test_a_killed_host_costs_no_more_than_the_last_second_of_typing(work: Work, kills: int) -> None:
    chance = random.Random(kills)
    losses = [kill_while_typing(work, chance) for _ in range(kills)]
    longest = max(seconds for _, seconds in losses)
    late = sum(seconds > 1.0 for _, seconds in losses)
    figure("typing", "hosts killed at a random keystroke", f"{kills}")
    figure("typing", "kills after which a text was torn or foreign", f"0 of {kills}")
    figure("typing", "oldest key lost, before the kill", f"{longest:.2f} s; {late} of {kills} beyond 1 s")
    assert longest < 20  # a machine that stands still; the figure says what is usual


@pytest.mark.crash
def test_what_is_on_the_screen_for_long_is_on_the_disk(work: Work) -> None:
    """No time is asserted: the screen says what was typed, and some moment later so does the disk, unasked."""
    child, file = editing(work)
    child.press(" ZEBRA")
    child.until_shown("ZEBRA")
    child.wait_for(lambda: "ZEBRA" in found(work, file))
    os.kill(work.host(), signal.SIGKILL)
    child.wait()
    again = work.attach()
    again.until_shown("ZEBRA")


def test_a_draft_of_a_killed_host_is_not_written_over_a_changed_file(work: Work) -> None:
    while not _drafted(work):  # else the kill came after the text was in its file: once more
        child, file = editing(work)
        child.press(" ZEBRA")
        child.wait_for(lambda: "ZEBRA" in found(work, file))  # noqa: B023 - waited for at once
        os.kill(work.host(), signal.SIGKILL)
        child.wait()
    file.write_text("what another program wrote")
    again = work.attach()
    again.until_shown("what another program wrote")
    assert "ZEBRA" in again.screen()
    assert file.read_text() == "what another program wrote"


def _drafted(work: Work) -> bool:
    """Whether the session holds a text that is in no file."""
    session = work.folder / ".kiln/session.json"
    return session.exists() and "ZEBRA" in session.read_text()


def test_ctrl_c_while_typing_loses_no_character(work: Work) -> None:
    child, file = editing(work)
    for number in range(20):
        child.press(f" word{number}")
        child.press("\x03")
    wanted = ORIGINAL + "".join(f" word{number}" for number in range(20))
    child.wait_for(lambda: file.read_text().rstrip("\n") == wanted, "the caption")
    child.kill(signal.SIGINT)
    assert child.wait() == 130
    assert file.read_text().rstrip("\n") == wanted
    figure("typing", "characters lost to 20 ctrl+c and a SIGINT", "0")

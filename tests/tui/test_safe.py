"""Text from outside reaches the terminal harmless: through the gate, through every widget, and past the backstop."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from fake_run import FakeRun
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.segment import ControlType, Segment
from rich.style import Style
from textual.strip import Strip
from watching import text_of, until

from tui.app import KilnApp
from tui.safe import ascii_only, install_backstop, neutral, safe
from tui.screens.dialogs import ErrorDialog
from tui.workplace import Workplace

HOSTILE = (
    "\x1b]52;c;QQ==\x1b\\", "\x1b]0;title\x07", "\x9b2J", "\x1bc", "\x1b[6n", "a\rb", "\x00", "\x7f", "\u202egpj.png",
    "\u2066x\u2069", "a\u200bb", "\u2028", "\ud800", "\U000e0041", "a" + "\u0301" * 500, "[/nope]",
    "[@click=app.quit]x[/]", "photo [edit].png", "[link=http://x]y[/link]", "a\nb", "\ufeff",
)  # fmt: skip


def dangerous(text: str) -> list[str]:
    """Characters that a terminal may act on."""
    return [
        char
        for char in text
        if ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or 0x202A <= ord(char) <= 0x202E
        or 0x2066 <= ord(char) <= 0x2069 or 0xD800 <= ord(char) < 0xE000
    ]  # fmt: skip


@given(st.text(st.characters(), max_size=200))
@settings(max_examples=300, deadline=None)
def test_the_gate_lets_no_control_through_and_is_idempotent(text: str) -> None:
    once = safe(text).plain
    assert not dangerous(once)
    assert safe(once).plain == once
    assert neutral(once) == once


@given(st.text(st.characters(), max_size=100))
@settings(max_examples=200, deadline=None)
def test_the_backstop_lets_no_control_through(text: str) -> None:
    assert not dangerous(neutral(text))
    assert len(neutral(text)) == len(text)
    assert all(" " <= char <= "~" for char in ascii_only(neutral(text)))


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_is_shown_as_it_is(text: str) -> None:
    content = safe(text)
    assert content.spans == []
    assert not dangerous(content.plain)
    if text.isascii() and text.isprintable():
        assert content.plain == text


def rendered(strip: Strip) -> str:
    """What a strip would send to a terminal."""
    return strip.render(Console(file=io.StringIO(), force_terminal=True, color_system="truecolor"))


def test_the_backstop_catches_raw_strips_and_spares_control_segments() -> None:
    install_backstop()
    raw = Strip([Segment("x\x1b]52;c;QQ==\x1b\\y", Style(bold=True)), Segment("\x9b2J", None)])
    assert "\x1b]52" not in rendered(raw) and "\x9b" not in rendered(raw)
    assert "x\ufffd]52" in rendered(raw)
    picture = Strip([Segment("\x1bPq#0\x1b\\", None, [(ControlType.BELL,)])])
    assert rendered(picture) == "\x1bPq#0\x1b\\"
    install_backstop(ascii_terminal=True)
    try:
        wide = Strip([Segment("é漢x", Style())])
        assert "???x" in rendered(wide) and cell_len("???x") == wide.cell_length
    finally:
        install_backstop()


def test_another_terminal_gets_its_own_colours() -> None:
    """Styles outlive terminals in a host, and remember the codes of the first."""
    install_backstop()
    style = Style(color="#ffa62b", bgcolor="#111417", bold=True)
    sent = {}
    for system in ("truecolor", "256", "standard", "truecolor"):
        console = Console(file=io.StringIO(), force_terminal=True, color_system=system)  # type: ignore[arg-type]
        sent[system] = Strip([Segment("text", style)]).render(console)
    assert "38;2;255;166;43" in sent["truecolor"] and "38;5;" in sent["256"]
    assert "38;" not in sent["standard"] and "48;" not in sent["standard"] and "text" in sent["standard"]


async def test_hostile_names_prompts_and_lines_do_no_harm(tmp_path: Path) -> None:
    """Every widget of the screen, fed with all payloads at once, without an exception or a leak."""
    hostile = " ".join(HOSTILE).replace("\ud800", "")
    run = FakeRun(tmp_path, epochs=2, steps_per_epoch=6, step_s=0.004, hostile=hostile, fail_at=9)
    app = KilnApp(Workplace.around(run, tmp_path))
    async with app.run_test(size=(160, 45), notifications=True) as pilot:
        await until(pilot, lambda: assert_harmless(app) or app.workplace.view.failure is not None)
        app.notify(hostile)
        # The words stand in a pane before the dialog opens, and keys pressed in between would be the dialog's.
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog) and "24.1 GB wanted" in text_of(app))
        assert_harmless(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.workbench)
        await pilot.press("l", "z")
        await until(pilot, lambda: "no caption" in text_of(app))
        assert_harmless(app)
    assert run.join(5)
    assert app.crash == ""


def lines_of(app: KilnApp) -> list[Strip]:
    """The strips on the screen."""
    return app.screen._compositor.render_strips()


def assert_harmless(app: KilnApp) -> None:
    """No line holds a character that a terminal acts on, before the backstop."""
    for strip in lines_of(app):
        assert not dangerous(strip.text)
        assert not any(segment.style is None for segment in strip)

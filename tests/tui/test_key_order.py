"""Keys that arrive at once go where they would have gone one by one."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest
from textual.app import ComposeResult
from textual.binding import Binding
from textual.events import Key, Paste
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from tui import key_order
from tui.key_order import KeysInOrder


class Question(ModalScreen[None]):
    """Takes y for an answer."""

    BINDINGS: ClassVar = [Binding("y", "answer", "Yes")]

    def compose(self) -> ComposeResult:
        yield Label("Sure?")

    def action_answer(self) -> None:
        self.app.said.append("yes")  # type: ignore[attr-defined]
        self.dismiss()


class BurstApp(KeysInOrder):
    """A text field that a key leads to, by way of a message, and letters that do other things."""

    AUTO_FOCUS = None
    BINDINGS: ClassVar = [
        Binding("slash", "find", "Find"),
        Binding("l", "laid_out", "Find when laid out"),
        Binding("r", "say('r')", "Other"),
        Binding("d", "ask", "Ask"),
        Binding("f2", "remove", "Remove"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def compose(self) -> ComposeResult:
        yield Input(id="words", select_on_focus=False)
        yield Input(id="other")

    def action_find(self) -> None:
        self.query_one("#words").focus()

    def action_laid_out(self) -> None:
        field = self.query_one("#other")
        field.display = not field.display
        self.call_after_refresh(self.query_one("#words").focus)

    def action_say(self, word: str) -> None:
        self.said.append(word)

    async def action_ask(self) -> None:
        await self.push_screen(Question())

    async def action_remove(self) -> None:
        await self.query_one("#other").remove()

    def on_input_submitted(self) -> None:
        self.set_focus(None)


def burst(app: BurstApp, keys: str) -> None:
    """All keys in the queue before the first is looked at."""
    for char in keys:
        name = {"/": "slash", "\n": "enter"}.get(char, char)
        app.post_message(Key(name, None if char == "\n" else char))


async def settled(app: BurstApp, pilot: Pilot[str]) -> None:
    for _ in range(500):
        await pilot.pause(0.01)
        if not app._held and not app._busy_since:
            await pilot.pause()
            return
    raise AssertionError("keys are held for ever")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are held as long as it takes: a stalled machine would let them go, as it should, and these tests fail."""
    monkeypatch.setattr(key_order, "PATIENCE_S", 30.0)


@pytest.mark.usefixtures("patient")
async def test_letters_after_a_change_of_focus_reach_the_field() -> None:
    app = BurstApp()
    async with app.run_test() as pilot:
        burst(app, "r/rdrr\nrdyr")
        await settled(app, pilot)
        assert app.query_one("#words", Input).value == "rdrr"
        assert app.said == ["r", "r", "yes", "r"]


@pytest.mark.usefixtures("patient")
async def test_a_long_burst_of_text_arrives_whole() -> None:
    app = BurstApp()
    async with app.run_test() as pilot:
        burst(app, "/" + "r" * 2000)
        await settled(app, pilot)
        assert app.query_one("#words", Input).value == "r" * 2000 and app.said == []


@pytest.mark.usefixtures("patient")
async def test_a_focus_that_waits_for_the_layout_is_waited_for() -> None:
    app = BurstApp()
    async with app.run_test() as pilot:
        burst(app, "lrlr\nlr")
        await settled(app, pilot)
        assert app.query_one("#words", Input).value == "rlrr" and app.said == []


@pytest.mark.usefixtures("patient")
async def test_what_is_pasted_keeps_its_place() -> None:
    app = BurstApp()
    async with app.run_test() as pilot:
        burst(app, "/a")
        app.post_message(Paste("bc"))
        burst(app, "d\nr")
        await settled(app, pilot)
        assert app.query_one("#words", Input).value == "abcd" and app.said == ["r"]


async def test_a_widget_that_goes_with_its_key_holds_nothing_up() -> None:
    app = BurstApp()
    async with app.run_test() as pilot:
        app.query_one("#other").focus()
        await pilot.pause()
        app.post_message(Key("f2", None))
        burst(app, "rr")
        await settled(app, pilot)
        assert not app.query("#other")
        assert app.said == ["r", "r"] or app.query_one("#words", Input).value == "rr"


async def test_a_message_that_never_comes_back_holds_keys_for_a_moment_only() -> None:
    app = BurstApp()
    async with app.run_test() as pilot:
        app.on_worked_off = lambda event: asyncio.sleep(0)  # type: ignore[method-assign]
        burst(app, "rr")
        await settled(app, pilot)
        assert app.said == ["r", "r"] and key_order.PATIENCE_S < 1

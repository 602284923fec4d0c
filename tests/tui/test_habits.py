"""What the application is used to: ctrl+c, jumping, notices, toasts, colourless and slow terminals, filters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import textual.screen
from habit_app import SmallApp
from rich.segment import ControlType, Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import OptionList, TextArea

from engine.errors import ConfigError, DatasetError, EngineError
from engine.events import RunFailed
from tui.error_text import what_to_do
from tui.fitted import QUICK_HZ, SLOW_HZ
from tui.safe import install_backstop
from tui.screens.jump import JumpScreen, targets
from tui.screens.pick import Offer, PickDialog
from tui.settings import Settings
from tui.terminal.traits import Traits
from tui.widgets.notice import Notice


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What an application sets for its process."""
    before = textual.screen.UPDATE_PERIOD
    yield
    textual.screen.UPDATE_PERIOD = before  # type: ignore[misc]
    install_backstop()


async def test_ctrl_c_copies_a_selection_and_else_explains() -> None:
    app = SmallApp()
    async with app.run_test(size=(100, 30)) as pilot:
        editor = app.plain.query_one(TextArea)
        editor.focus()
        editor.select_all()
        await pilot.press("ctrl+c")
        assert app.clipboard == "words in the editor" and not app.interrupts
        editor.move_cursor((0, 0))
        await pilot.press("ctrl+c")
        await pilot.pause()
        assert app.interrupts == [False] and app.is_running and "ctrl+q leaves" in app.text
        await pilot.press("ctrl+c")
        assert app.interrupts == [False, True]


async def test_a_notice_is_shown_in_one_line_and_the_newest_wins() -> None:
    app = SmallApp()
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        app.say("Saving [b]after[/b] \x1b]0;x\x07 this step")
        await pilot.pause()
        assert "Saving [b]after[/b] \\x1b]0;x\\x07 this step" in app.text.splitlines()[-1]
        app.say("Pausing", seconds=0.05)
        await pilot.pause()
        assert "Saving" not in app.text
        while "Pausing" in app.text:
            await pilot.pause(0.02)
        assert not app.plain.query_one(Notice).display and not app._notifications
        await pilot.press("ctrl+o")
        app.say("over a dialog too")
        await pilot.pause()
        assert app.plain.query_one(Notice).display


async def test_toasts_tell_their_kind_in_words_and_never_take_markup() -> None:
    app = SmallApp()
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        app.notify("[/nope] \x1b[2J [@click=app.leave]x[/]", severity="error", title="[/t]\x1b")
        app.warn(ConfigError("bad [/x]", "line 3", "Mend it."))
        await pilot.pause()
        first, second = (note.message for note in app._notifications)
        assert first == "Error: [/nope] \\x1b[2J [@click=app.leave]x[/]"
        assert second == "Warning: bad [/x]: line 3 Mend it."
        assert "[/nope]" in app.text and "\x1b" not in app.text


async def test_jump_keys_go_to_every_part_in_sight() -> None:
    app = SmallApp()
    async with app.run_test(size=(100, 30)) as pilot:
        found = targets(app.screen)
        assert [letter for letter, _ in found] == ["a", "s", "d"]
        for letter, widget in found:
            await pilot.press("ctrl+o")
            await pilot.pause()
            assert isinstance(app.screen, JumpScreen)
            assert all(f" {name} " in app.text for name, _ in found)
            await pilot.press(letter)
            await pilot.pause()
            assert app.focused is widget
        await pilot.press("ctrl+o", "escape")
        assert app.screen is app.plain and app.focused is found[-1][1]
        await pilot.press("ctrl+o", "5")
        assert app.screen is app.plain
        await pilot.press("a", "ctrl+o")
        place = app.plain.query_one(TextArea).region
        await pilot.click(offset=(place.x + 5, place.y + 2))
        await pilot.pause()
        assert isinstance(app.focused, TextArea), "a click goes there too"


async def test_palette_gives_a_command_from_within_a_text_field() -> None:
    app = SmallApp()
    async with app.run_test(size=(100, 30)) as pilot:
        app.plain.query_one(TextArea).focus()
        await pilot.press("ctrl+p")
        await pilot.press(*"pause or")
        while "Pause: Pause or resume" not in app.text:
            await pilot.pause(0.02)
        await pilot.press("enter")
        await pilot.pause()
        assert app.plain.done == ["pause"]
        assert app.plain.query_one(TextArea).text == "words in the editor"


async def test_a_colon_opens_the_palette_and_escape_closes_it() -> None:
    app = SmallApp()
    async with app.run_test(size=(100, 30)) as pilot:
        app.plain.query_one(OptionList).focus()
        await pilot.press("colon")
        while "Pause or resume" not in app.text:
            await pilot.pause(0.02)
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is app.plain
        await pilot.press("ctrl+l", "s")
        assert app.plain.done == ["stop"]


def test_a_slow_link_gets_fewer_frames_and_nothing_moves() -> None:
    quick, slow = SmallApp(), SmallApp(Traits(ssh=True), Settings(animation=True))
    assert textual.screen.UPDATE_PERIOD == 1 / SLOW_HZ and QUICK_HZ > SLOW_HZ
    assert slow.animation_level == "none" and slow.redraw_s > quick.redraw_s
    assert SmallApp(Traits(), Settings(animation=True)).animation_level == "basic"
    assert SmallApp().animation_level == "none"
    SmallApp(Traits(ssh=True), Settings(refresh_hz=5))
    assert textual.screen.UPDATE_PERIOD == 1 / 5


@pytest.mark.parametrize(
    ("traits", "wish", "plain"),
    [
        (Traits(), "auto", False), (Traits(utf8=False), "auto", True), (Traits(term="linux"), "auto", True),
        (Traits(), "on", True), (Traits(utf8=False), "off", False),
    ],
    ids=range(5),
)  # fmt: skip
def test_ascii_where_the_terminal_needs_it_or_the_user_wants_it(traits: Traits, wish: Any, plain: bool) -> None:
    app = SmallApp(traits, Settings(ascii=wish))
    assert app.ascii_terminal is plain and app.has_class("-ascii") is plain


async def test_every_dialog_is_plain_ascii_where_asked() -> None:
    app = SmallApp(Traits(utf8=False))
    async with app.run_test(size=(100, 30)) as pilot:
        app.plain.query_one(OptionList).focus()
        await pilot.press("question_mark")
        await pilot.pause()
        drawn = "".join(strip.render(app.console) for strip in app.screen._compositor.render_strips())
        assert drawn.isascii() and "Pause or resume" in drawn and "?" * 3 not in drawn


async def test_the_mouse_is_left_to_the_terminal_on_request() -> None:
    assert SmallApp()._build_driver(True, False, True, (80, 24))._mouse is True
    assert SmallApp(settings=Settings(mouse=False))._build_driver(True, False, True, (80, 24))._mouse is False


class Careless(Widget):
    """Draws a segment without a style, and a picture's escape sequence."""

    picture = "\x1b_Gpicture\x1b\\"

    def render_line(self, y: int) -> Strip:
        """One line of each."""
        control = Segment(self.picture, None, [(ControlType.BELL,)])
        return Strip([Segment("no style", None), Segment("styled", Style(bold=True)), control], 14)


@pytest.mark.parametrize("no_color", [False, True], ids=["colours", "NO_COLOR"])
async def test_filters_spare_pictures_and_segments_without_style(
    no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    app = SmallApp()
    async with app.run_test(size=(100, 30)) as pilot:
        widget = Careless()
        widget.styles.height = 1
        await app.plain.mount(widget)
        await pilot.pause()
        region = widget.region
        assert region.size == Size(100, 1)
        strip = app.screen._compositor.render_strips()[region.y]
        assert "no style" in strip.text
        pictures = [segment for segment in strip if segment.text == Careless.picture]
        assert len(pictures) == 1 and pictures[0].control
        if no_color:
            colours = [part for segment in strip if segment.style for part in (segment.style.color,) if part]
            assert all(len(set(part.triplet or (0,))) == 1 for part in colours), "grey only"


KINDS = [kind for kind in EngineError.__subclasses__() if "__init__" not in vars(kind)]
"""Those that are made from three texts, as their base is."""


@pytest.mark.parametrize("error", [*KINDS, EngineError], ids=lambda kind: kind.__name__)
def test_every_error_says_what_to_do(error: type[EngineError]) -> None:
    assert what_to_do(error("It is wrong", "in line 3", "")).endswith((".", ")."))
    assert what_to_do(error("It is wrong", "in line 3", "Mend it.")) == "Mend it."


def test_a_failed_run_says_what_to_do() -> None:
    assert "resumed" in what_to_do(RunFailed("It failed", "somehow", "", ""))


async def test_an_errors_text_can_be_copied() -> None:
    app = SmallApp()
    async with app.run_test(size=(100, 30)) as pilot:
        app.show_error(DatasetError("No pictures", "/data is empty", "Put some there."), heading="The run failed")
        await pilot.pause()
        assert "The run failed: No pictures" in app.text and "Try: Put some there." in app.text
        await pilot.press("y")
        assert app.clipboard == "The run failed: No pictures\n/data is empty\nPut some there."
        await pilot.press("ctrl+c")
        assert app.interrupts == [False], "ctrl+c explains over a dialog too"
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is app.plain


async def test_the_chosen_line_of_a_list_has_a_sign() -> None:
    """Colour alone would not do; of an offer with a remark the first line has it."""
    offers = [Offer("a", "one thing", "what it means"), Offer("b", "another")]
    app = SmallApp()
    async with app.run_test(size=(100, 30)) as pilot:
        app.push_screen(PickDialog("Choose", offers))
        await pilot.pause()
        for marked, words in (("> one thing", "  another"), ("> another", "  one thing")):
            assert marked in app.text and words in app.text and "> what" not in app.text
            await pilot.press("down")
            await pilot.pause()


async def test_the_palette_has_one_line_a_command_and_marks_the_chosen_one() -> None:
    app = SmallApp()
    async with app.run_test(size=(100, 30)) as pilot:
        app.plain.query_one(OptionList).focus()
        await pilot.press("colon")
        while "> Start" not in app.text:
            await pilot.pause(0.02)
        line = next(line for line in app.text.splitlines() if "> Start" in line)
        assert "Start a run" in line and "(enter)" in line
        await pilot.press("down")
        await pilot.pause()
        assert "> Pause" in app.text and app.text.count("> ") == 1

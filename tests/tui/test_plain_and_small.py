"""What would be lost without colour, without Unicode or without room: marks, fields, the way to hidden panes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.events import Resize
from textual.geometry import Size
from textual.pilot import Pilot
from textual.widgets import Input
from watching import until

from tui.app import KilnApp
from tui.screens.jump import targets
from tui.screens.setup import SetupScreen
from tui.screens.workbench import Workbench
from tui.terminal.traits import Traits
from tui.workplace import Workplace


def lines_of(app: KilnApp) -> list[str]:
    """The screen's lines."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


async def at_pane(pilot: Pilot[Any], app: KilnApp, pane: str) -> None:
    """Wait for the workbench's panes, and for the focus in one of them."""

    def there() -> bool:
        bench, focused = app.workbench, app.focused
        ready = bench is not None and bench.feed is not None and focused is not None
        return ready and any(node.id == f"slot-{pane}" for node in focused.ancestors_with_self)

    await until(pilot, there)
    await pilot.pause()


async def test_fields_show_their_text_in_ascii(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    app = KilnApp(place, Traits(utf8=False))
    async with app.run_test(size=(80, 24)) as pilot:
        await at_pane(pilot, app, "dataset")
        app.push_screen(SetupScreen(place))
        await until(pilot, lambda: isinstance(app.screen, SetupScreen) and bool(app.screen.query("#field-name")))
        field = app.screen.query_one("#field-name", Input)
        field.value = "my-glorb"
        field.focus()
        await until(pilot, lambda: any("my-glorb" in line for line in lines_of(app)))
        assert field.size.height == 1, "one line, all of it text"


async def test_in_ascii_only_the_pane_in_focus_has_a_whole_frame(tmp_path: Path) -> None:
    app = KilnApp(Workplace(tmp_path), Traits(utf8=False))
    async with app.run_test(size=(160, 45)) as pilot:
        await at_pane(pilot, app, "dataset")
        for key, pane in (("1", "dataset"), ("3", "training"), ("5", "log")):
            await pilot.press(key)
            await at_pane(pilot, app, pane)
            region = app.screen.query_one(f"#{pane}").region
            left = [line[region.x] for line in lines_of(app)[region.y + 1 : region.bottom - 1]]
            assert set(left) == {"|"}
            others = [child.region for slot in app.screen.query("Slot") for child in slot.children]
            frames = [lines_of(app)[other.y + 1][other.x] == "|" for other in others]
            assert frames.count(True) == 1


@pytest.mark.parametrize("size", [(160, 45), (100, 30), (80, 24)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_jumping_reaches_panes_that_are_hidden(tmp_path: Path, size: tuple[int, int]) -> None:
    app = KilnApp(Workplace(tmp_path), Traits())
    async with app.run_test(size=size) as pilot:
        await at_pane(pilot, app, "dataset")
        bench = app.workbench
        assert isinstance(bench, Workbench)
        for letter, pane in (("g", "log"), ("f", "samples"), ("a", "dataset"), ("d", "training")):
            await pilot.press("ctrl+o")
            await until(pilot, lambda: app.screen is not bench)
            await pilot.pause()
            assert f" {letter} " in " ".join(lines_of(app)), "in the frame or in the line at the bottom"
            assert " Dataset" in " ".join(lines_of(app)), "no title is covered"
            await pilot.press(letter)
            await at_pane(pilot, app, pane)
            assert app.screen is bench and app.workplace.session.pane == pane


async def test_jump_letters_stand_at_what_is_in_sight_only(tmp_path: Path) -> None:
    """Fields that are scrolled out of the form have a region too: their letters lay over other lines."""
    app = KilnApp(Workplace(tmp_path), Traits())
    async with app.run_test(size=(80, 24)) as pilot:
        await at_pane(pilot, app, "dataset")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, SetupScreen) and bool(app.screen.query("#field-name")))
        await pilot.pause()
        form = app.screen.query_one("#form").region
        found = [widget for _, widget in targets(app.screen)]
        assert 3 < len(found) < len(app.screen.focus_chain)
        assert all(form.y <= widget.region.y < form.bottom for widget in found)


@pytest.mark.timeout(60)
async def test_a_terminal_that_changes_its_size_twice_at_once_is_laid_out_for_the_last(tmp_path: Path) -> None:
    app = KilnApp(Workplace(tmp_path), Traits())
    async with app.run_test(size=(80, 24)) as pilot:
        await at_pane(pilot, app, "dataset")
        bench, last = app.screen, Size(200, 60)
        laid_out: list[tuple[int, int]] = []
        assert isinstance(bench, Workbench)
        lay_out = bench.lay_out

        def noted(width: int, height: int) -> None:
            laid_out.append((width, height))
            lay_out(width, height)
            bench.call_later(bench.refresh)  # any message: Textual joins sizes that follow each other in the queue

        bench.lay_out = noted  # type: ignore[method-assign]
        app._size = last  # the second has come before the screen hears of the first
        for size in (Size(100, 30), last):
            bench.post_message(Resize(size, size))
            bench.call_later(bench.refresh)
        await until(pilot, lambda: bench.size == last)
        await pilot.pause()
        assert set(laid_out) == {last} and len(laid_out) < 5

"""Many captions at once on the screen: preview, ticks, changing, undo; words and tags; the journal over a restart."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from pocket import pocket_config
from test_workbench_editing import dataset, editing, showing
from textual.pilot import Pilot
from textual.widgets import Input
from watching import text_of, until

from engine.config_file import save_config
from engine.dataset import applying
from engine.dataset.applying import Wanted
from tui.app import KilnApp
from tui.screens.dialogs import ErrorDialog
from tui.screens.replace import ReplaceScreen
from tui.screens.words import WordsScreen
from tui.widgets.change_list import ChangeList
from tui.widgets.fields import Choice
from tui.widgets.wizard import Act
from tui.widgets.word_table import WordTable
from tui.workplace import Workplace

SIZES = [(160, 45), (80, 24)]
HOSTILE = "a cat \x85\u202e\u200b[red]x[/red] \\x1b[2J"


def place_of(tmp_path: Path) -> Workplace:
    """A work folder with five captions; one of them is hostile."""
    save_config(pocket_config(tmp_path), tmp_path / "test.toml")
    for number in range(5):
        text = HOSTILE if number == 4 else f"a cat, number {number}, on a mat"
        (tmp_path / "data" / f"0{number}.txt").write_text(text + "\n", encoding="utf-8")
    return Workplace(tmp_path)


def captions(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((folder / "data").glob("*.txt"))]


async def form(pilot: Pilot[Any], app: KilnApp) -> ReplaceScreen:
    """Open the form from the table."""
    await pilot.press("1")
    await until(pilot, lambda: app.focused is dataset(app).table)
    await pilot.press("f")
    await until(pilot, lambda: isinstance(app.screen, ReplaceScreen))
    assert isinstance(app.screen, ReplaceScreen)
    return app.screen


async def seen(pilot: Pilot[Any], screen: ReplaceScreen, count: int) -> None:
    await until(pilot, lambda: not screen.looking and len(screen.query_one(ChangeList).items) == count)


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_captions_are_replaced_but_for_one_and_taken_back_after_a_restart(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    place = place_of(tmp_path)
    before = captions(tmp_path)
    async with showing(place, size) as (pilot, app):
        screen = await form(pilot, app)
        await pilot.press(*"cat", "down", *"dog")
        await seen(pilot, screen, 5)
        shown = text_of(app)
        assert "[-cat-]{+dog+}" in shown and "Change 5 of 5 captions (all)" in shown
        assert "\u202e" not in shown and "[red]x[/red]" in shown
        await pilot.press("enter", "down", "space")
        assert "4 of 5" in text_of(app) and "[ ] 01.png" in text_of(app)
        await pilot.press("f5")
        await until(pilot, lambda: app.screen is app.workbench)
        after = captions(tmp_path)
        assert [text.replace("dog", "cat") for text in after] == before and after[1] == before[1]
        assert sum("dog" in text for text in after) == 4
        await until(pilot, lambda: "dog" in (place.catalog.rows[0].caption or ""))
        assert [row.edited for row in place.catalog.rows] == [True, False, True, True, True]
        await until(pilot, lambda: "dog" in editing(app).editor.text)
    await asyncio.to_thread(place.close)
    again = Workplace(tmp_path)
    async with showing(again, size) as (pilot, app):
        await pilot.press("1")
        await until(pilot, lambda: app.focused is dataset(app).table)
        (tmp_path / "data" / "02.txt").write_text("theirs")
        await pilot.press("ctrl+z")
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        assert "02.txt" in text_of(app) and "1 caption was left" in text_of(app)
        await pilot.press("escape")
        expected = list(before)
        expected[2] = "theirs"
        assert captions(tmp_path) == expected
        await pilot.press("ctrl+z")
        await until(pilot, lambda: "undoes in a text" in text_of(app))
        await pilot.press("ctrl+y")
        await until(pilot, lambda: captions(tmp_path)[0] == after[0])


async def test_taking_back_tells_how_far_it_is_and_esc_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(tmp_path)
    before = captions(tmp_path)
    held = threading.Semaphore(2)
    write = applying._write_group

    def one_by_one(*args: Any) -> None:
        held.acquire()
        write(*args)

    async with showing(place, (80, 24)) as (pilot, app):
        wanted = [Wanted(row.caption_path, row.caption, "a dog") for row in place.catalog.rows]
        await asyncio.to_thread(applying.apply, "Replace", wanted, place.batches.journal)
        monkeypatch.setattr(applying, "GROUP", 1)
        monkeypatch.setattr(applying, "_write_group", one_by_one)
        await pilot.press("1")
        await until(pilot, lambda: app.focused is dataset(app).table)
        await pilot.press("slash", *"img", "enter", "ctrl+z")  # esc stops even where the filter would take it
        await until(pilot, lambda: "2 of 5 captions taken back; esc stops" in text_of(app))
        await pilot.press("escape")
        held.release(3)
        await until(pilot, lambda: "Undone: Replace in 3 captions, stopped before the rest" in text_of(app))
        assert captions(tmp_path)[2:] == [*before[2:3], "a dog\n", "a dog\n"] and place.session.filter == "img"
        await pilot.press("ctrl+z")
        await until(pilot, lambda: "Undone: Replace in 5 captions" in text_of(app))
        assert captions(tmp_path) == before
        held.release(5)
        await pilot.press("ctrl+y")
        await until(pilot, lambda: "Done again: Replace in 5 captions" in text_of(app))
        await pilot.press("escape")
        assert place.session.filter == "", "esc is the filter's again"


async def test_the_form_follows_the_operation_and_tells_what_cannot_be_read(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    async with showing(place, (80, 24)) as (pilot, app):
        screen = await form(pilot, app)
        await pilot.press(*"(a")
        screen.query_one("#field-how", Choice).take("regex")
        await until(pilot, lambda: not screen.looking and "column 3" in text_of(app))
        await pilot.press("f5")
        assert app.screen is screen and captions(tmp_path)[0].startswith("a cat")
        await pilot.press("f4", "down", "enter")
        await until(pilot, lambda: screen.query_one("#field-kind", Choice).value == "remove")
        screen.query_one("#field-find", Input).value = "mat"
        await seen(pilot, screen, 4)
        assert not screen.query_one("#line-text").display and "With" not in text_of(app)
        screen.query_one("#field-kind", Choice).take("suffix")
        screen.query_one("#field-text", Input).value = ", on film"
        await seen(pilot, screen, 5)
        assert await pilot.click(Act)
        await until(pilot, lambda: app.screen is app.workbench)
        assert all(text.endswith(", on film\n") for text in captions(tmp_path))


async def test_only_marked_or_found_pictures_are_changed(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    async with showing(place, (80, 24)) as (pilot, app):
        await pilot.press("1", "m", "m")
        screen = await form(pilot, app)
        await pilot.press(*"cat")
        await seen(pilot, screen, 2)
        assert "Change 2 of 2 captions (marked)" in text_of(app)
        screen.query_one("#field-scope", Choice).take("all")
        await seen(pilot, screen, 5)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.workbench)
        assert captions(tmp_path)[0].startswith("a cat")


async def test_words_are_counted_shown_and_renamed(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    async with showing(place, (80, 24)) as (pilot, app):
        await pilot.press("1", "t")
        await until(pilot, lambda: isinstance(app.screen, WordsScreen) and not app.screen.looking)
        screen = app.screen
        table = screen.query_one(WordTable)
        assert table.found[0].words == "cat" and "every one" in text_of(app) and "In every caption" in text_of(app)
        await pilot.press("slash", *"mat", "enter")
        await until(pilot, lambda: [each.words for each in table.found] == ["mat"])
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ReplaceScreen) and not app.screen.looking)
        assert app.screen.query_one("#field-find", Input).value == "mat"
        await pilot.press("escape", "t")
        await until(pilot, lambda: isinstance(app.screen, WordsScreen) and not app.screen.looking)
        await pilot.press("slash", *"numb", "enter")
        await until(pilot, lambda: app.screen.query_one(WordTable).found[0].words == "number")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.workbench and len(dataset(app).listing.rows) == 4)
        assert place.session.filter == 'caption:"number"'

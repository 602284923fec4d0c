"""Pictures of everything that lies over a screen: dialogs, palette, jump letters, lists, notices."""

from __future__ import annotations

from typing import Any

import pytest
from still import IDS, SMALL, WIDE, Album, album, app_at, press, still_world, until
from textual.pilot import Pilot

from engine.errors import DatasetError
from tui.app import KilnApp
from tui.screens.conflict import ConflictDialog

__all__ = ["album", "still_world"]

TERMINALS = [(WIDE, True), (SMALL, True), (SMALL, False)]
NAMES: dict[str, Any] = {"ids": ["160x45", "80x24", "ascii"]}


async def opened(pilot: Pilot[Any], app: KilnApp, album: Album, name: str, keys: str) -> None:
    """Take a picture of what ``keys`` open, and lead out of it."""
    below = app.screen
    await press(pilot, app, keys)
    assert app.screen is not below, name
    await closed(pilot, app, album, name)


async def closed(pilot: Pilot[Any], app: KilnApp, album: Album, name: str) -> None:
    """Take a picture of what lies over the screen, and lead out of it."""
    await album.take(pilot, name)
    await press(pilot, app, "escape")


@pytest.mark.parametrize(("size", "utf8"), TERMINALS, **NAMES)
async def test_over_a_run(album: Album, size: tuple[int, int], utf8: bool) -> None:
    app = app_at("training", utf8=utf8)
    async with app.run_test(size=size, notifications=True) as pilot:
        await press(pilot, app, "1 3")
        for name, keys in {
            "stop": "s", "epoch": "s a", "leave": "q", "palette": "colon", "palette-words": "colon s t o p",
            "jump": "ctrl+o", "help-trouble": "question_mark 2", "help-curve": "question_mark 3",
            "help-terminal": "question_mark 4",
        }.items():  # fmt: skip
            await opened(pilot, app, album, name, keys)
        app.show_error(
            DatasetError("No pictures", "/home/me/glorb/image is empty", "Put some there."), heading="Start"
        )
        await until(pilot, lambda: app.screen is not app.workbench)
        await closed(pilot, app, album, "error")
        app.push_screen(ConflictDialog("00.png", "a zorple on a meadow", "a zorple at the left"))
        await until(pilot, lambda: app.screen is not app.workbench)
        await closed(pilot, app, album, "conflict")
        app.say("Saving after this step", 60)
        await album.take(pilot, "notice")
        app.warn(DatasetError("Two captions", "00.txt and 00.caption", "Remove one."))
        await album.take(pilot, "toast")
        app.clear_notifications()
        app.say("")
        await press(pilot, app, "2")
        await opened(pilot, app, album, "help-caption", "f1")


@pytest.mark.parametrize(("size", "utf8"), TERMINALS, **NAMES)
async def test_before_a_run(album: Album, size: tuple[int, int], utf8: bool) -> None:
    app = app_at("stopped", utf8=utf8)
    async with app.run_test(size=size) as pilot:
        await press(pilot, app, "1 3")
        await opened(pilot, app, album, "start", "enter")
        await press(pilot, app, "ctrl+n")
        await opened(pilot, app, album, "list", "f4")
        await opened(pilot, app, album, "folders", "f6")
        await opened(pilot, app, album, "setup-help", "f1")
        await opened(pilot, app, album, "setup-jump", "ctrl+o")


@pytest.mark.parametrize("size", [SMALL], **IDS)
async def test_leaving_without_a_host(album: Album, size: tuple[int, int]) -> None:
    app = app_at("training", detachable=False)
    async with app.run_test(size=size) as pilot:
        await press(pilot, app, "1 3")
        await opened(pilot, app, album, "leave", "q")

"""Pictures of the wizard's pages on machines that are made up: no GPU, a small one, two unequal ones, a large one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from made_up import LARGE, NO_GPU, SHARED, UNEQUAL, MadeUp
from pocket import pictures
from still import IDS, SMALL, WIDE, Album, album, press, showing, small_config, still_world

from tui.app import KilnApp
from tui.screens.wizard_plan import Planning
from tui.setup.form import SetupForm
from tui.wizard.pages import PAGES
from tui.wizard.planner import Place
from tui.workplace import Workplace

__all__ = ["album", "still_world"]

FIT = "pagedown " * 4


@pytest.fixture(autouse=True)
def _ten_in_the_evening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planning, "now", datetime(2026, 11, 29, 22, 0))


def app_on(places: tuple[Place, ...], monkeypatch: pytest.MonkeyPatch, utf8: bool = True) -> KilnApp:
    """The application in a folder with pictures and model files, with a wizard that finds ``places``."""
    monkeypatch.setattr("tui.wizard.profiles.Profiles", lambda: MadeUp(places))
    place = Workplace(Path.cwd())
    place.config = small_config()
    pictures(Path("image"), 16)
    place.session.wizard = {"page": "lora"}
    form = SetupForm(place.folder, place.session.form)
    form.choose_base("files")
    stems = {"transformer": "flux", "autoencoder": "ae", "clip_l": "clip", "t5": "t5"}
    form.values |= {slot: f"model/{stem}-pocket.safetensors" for slot, stem in stems.items()}
    form.values |= {"folder": "image", "trigger": "zorple"}
    return showing(place, utf8=utf8)


@pytest.mark.parametrize("size", [WIDE, SMALL], **IDS)
async def test_pages(album: Album, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    app = app_on(UNEQUAL, monkeypatch)
    async with app.run_test(size=size) as pilot:
        await press(pilot, app, "1 3 w right down right")
        for page in PAGES:
            await album.take(pilot, page.id)
            await press(pilot, app, "pagedown")
        if size == SMALL:
            await press(pilot, app, "f2")
            await album.take(pilot, "plan")
            await press(pilot, app, "f2 pageup enter")
            await album.take(pilot, "places")


@pytest.mark.parametrize("size", [WIDE, SMALL], **IDS)
@pytest.mark.parametrize("places", [NO_GPU, SHARED, LARGE], ids=["no-gpu", "8-gb", "80-gb"])
async def test_fit(
    album: Album, monkeypatch: pytest.MonkeyPatch, places: tuple[Place, ...], size: tuple[int, int]
) -> None:
    app = app_on(places, monkeypatch)
    async with app.run_test(size=size) as pilot:
        await press(pilot, app, f"1 3 w {FIT}")
        await album.take(pilot, "fit")
        if places is SHARED:
            await press(pilot, app, "tab tab tab tab tab tab 0")
            await album.take(pilot, "over")


async def test_in_ascii(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_on(SHARED, monkeypatch, utf8=False)
    async with app.run_test(size=SMALL) as pilot:
        await press(pilot, app, f"1 3 w {FIT} tab tab tab tab tab tab")
        await album.take(pilot, "fit")

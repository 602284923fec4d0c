"""Captioning by machine on the screen: the form, the job while one works, the review, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input
from tiny_pictures import add
from watching import text_of, until

from engine.captioners import making
from engine.captioners.drafts import Draft, save_draft, size_of
from engine.captioners.request import CaptionRequest
from engine.errors import RunError
from tui.app import KilnApp
from tui.captioning import captioning_of
from tui.screens.dialogs import ChoiceDialog
from tui.screens.machine import MachineDialog
from tui.screens.review import ReviewScreen
from tui.session import SessionState
from tui.terminal.traits import Traits
from tui.workplace import Workplace

HOSTILE = "[red]\x1b]52;c;QQ==\x07\u202e{bold}"


class Fake:
    """Answers when it may."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def caption(self, pictures: Sequence[Any], stop: Callable[[], bool]) -> list[str]:
        while not self.may.wait(0.01):
            if stop():
                return ["too late"] * len(pictures)
        return ["a black cat on a mat"] * len(pictures)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(making, "_load", lambda found, request: made)
    monkeypatch.setattr(making, "_suggested", lambda: 2)  # else torch is asked for a GPU
    return made


def model(folder: Path) -> Path:
    """A tagger's folder, as far as it is looked at."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "selected_tags.csv").write_text("name,category\na,0\n")
    return folder


def data(folder: Path) -> Path:
    add(folder / "data", "a.png", "a cat")
    add(folder / "data", "b.png", "a red cup")
    add(folder / "data", "c.png", None)
    return folder / "data"


@asynccontextmanager
async def showing(
    folder: Path, size: tuple[int, int] = (80, 24), detachable: bool = False
) -> AsyncIterator[tuple[Pilot[Any], KilnApp]]:
    place = Workplace(folder, session=SessionState())
    place.open_dataset(data(folder))
    app = KilnApp(place, Traits(), detachable=detachable)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None)
        bench = app.workbench
        assert bench is not None
        await until(pilot, lambda: len(bench._dataset.listing.rows) == 3 and place.catalog.state == "ready")
        yield pilot, app
    assert app.crash == ""


def draft(picture: Path, text: str, by: str = "joy (LLaVA)") -> None:
    save_draft(picture, Draft(text, by, "Describe the picture.", 1.0, size_of(picture)))


async def test_captions_are_made_while_one_works_and_reviewed(tmp_path: Path, fake: Fake) -> None:
    """The form says what is missing, then starts; the status line counts; the review writes and undoes."""
    wd = model(tmp_path / "wd")
    async with showing(tmp_path) as (pilot, app):
        await pilot.press("A")
        await until(pilot, lambda: isinstance(app.screen, MachineDialog))
        await pilot.press("f5")
        await until(pilot, lambda: "Which model?" in text_of(app))
        app.screen.query_one("#field-model", Input).value = str(wd)
        await until(pilot, lambda: "wd (tagger)" in text_of(app) and "Tags from" in text_of(app))
        await pilot.press("f5")
        await until(pilot, lambda: app.screen is app.workbench and "captioning 0/3" in text_of(app))
        await pilot.press("A")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("c")
        fake.may.set()
        await until(pilot, lambda: "3 pictures captioned; V reviews them" in text_of(app))
        await pilot.press("V")
        await until(pilot, lambda: isinstance(app.screen, ReviewScreen) and "Review 1/3" in text_of(app))
        assert "[+  → black]" in text_of(app) or "black" in text_of(app)
        await pilot.press("space", "enter")
        a, b, c = (tmp_path / "data" / f"{name}.txt" for name in "abc")
        await until(pilot, lambda: a.read_text() != "a cat" and "Review 1/2" in text_of(app))
        assert a.read_text() == "a cat on a mat"
        await pilot.press("x", "a")
        await until(pilot, lambda: "Nothing waits" in text_of(app))
        assert b.read_text() == "a red cup" and c.read_text() == "a black cat on a mat\n"
        await pilot.press("u", "u", "u")
        await until(pilot, lambda: "Review 1/3" in text_of(app) and not c.exists())
        assert a.read_text() == "a cat"
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.workbench)


async def test_all_of_a_kind_are_taken_at_once_and_hostile_text_is_text(tmp_path: Path) -> None:
    async with showing(tmp_path, (120, 40)) as (pilot, app):
        for name in "abc":
            draft(tmp_path / "data" / f"{name}.png", "a [b]cat[/b]")
        place = app.workplace
        add(tmp_path / "data", f"{HOSTILE}.png", "[i]a caption")
        draft(tmp_path / "data" / f"{HOSTILE}.png", "[i]a caption[/i] more")
        place.catalog.refresh()
        bench = app.workbench
        assert bench is not None
        await until(pilot, lambda: len(bench._dataset.listing.rows) == 4 and place.catalog.state == "ready")
        await pilot.press("V")
        await until(pilot, lambda: "Review 1/4" in text_of(app) and "[i]a caption" in text_of(app))
        shown = text_of(app)
        assert "\x1b" not in shown and "\u202e" not in shown and "[red]\\x1b]52" in shown
        await pilot.press("A")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        assert "Take all for pictures without a caption (1)" in text_of(app)
        await pilot.press("a")
        await until(pilot, lambda: "4 taken" in text_of(app))
        assert (tmp_path / "data" / "c.txt").read_text() == "a [b]cat[/b]\n"


async def test_leaving_while_captions_are_made_is_asked_about(tmp_path: Path, fake: Fake) -> None:
    """Detaching leaves the job to the host; leaving stops it."""
    wd = model(tmp_path / "wd")
    async with showing(tmp_path, detachable=True) as (pilot, app):
        place = app.workplace
        captioning_of(place).start(CaptionRequest(wd, batch_size=1), place.catalog.rows)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        assert "Detach: captioning goes on" in text_of(app)
        await pilot.press("s")
    assert app.return_value == "leave"
    place.close()
    assert (job := captioning_of(place).job) is not None and job.state == "stopped"


def test_no_captions_are_made_while_a_run_is_live_and_no_run_begins_meanwhile(tmp_path: Path, fake: Fake) -> None:
    from fake_run import FakeRun
    from pocket import pocket_config

    wd, place = model(tmp_path / "wd"), Workplace(tmp_path, session=SessionState())
    with pytest.raises(RunError, match="Nothing to caption"):
        captioning_of(place).start(CaptionRequest(wd), [])
    place.open_dataset(data(tmp_path))
    while place.catalog.state == "scanning":
        pass
    captioning_of(place).start(CaptionRequest(wd, batch_size=2), place.catalog.rows)
    with pytest.raises(RunError, match="captioned already"):
        captioning_of(place).start(CaptionRequest(wd), place.catalog.rows)
    with pytest.raises(RunError, match="being captioned"):
        place.begin(pocket_config(tmp_path))
    run = FakeRun(tmp_path / "runs", epochs=1, steps_per_epoch=2, step_s=0.01)
    place.take(run)
    place.begin_pending()  # handed over by a command: captions give way
    assert (job := captioning_of(place).job) is not None and job.state == "stopped"
    with pytest.raises(RunError, match="A run is live"):
        captioning_of(place).start(CaptionRequest(wd), place.catalog.rows)
    run.join(20)
    place.close()

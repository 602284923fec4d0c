"""The runs screen and the comparison, on runs of the pocket model that are really there."""

from __future__ import annotations

import fcntl
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pocket import finish, pictures, pocket_config
from test_comparing import make, measured
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Static
from watching import text_of, until

from engine.config import RunConfig
from engine.config_file import load_config, save_config
from engine.events import EventLog, RunDone, RunFailed
from engine.files import RunFolder
from engine.run import Run
from tui.app import KilnApp
from tui.run_shelf import read_cards, read_comparison, run_folders
from tui.screens.compare import CompareScreen, rows_of
from tui.screens.runs import RunsScreen
from tui.screens.setup import SetupScreen
from tui.workplace import Workplace


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a finished run in each of two places."""
    work = tmp_path_factory.mktemp("shelf")
    for number, place in enumerate(("runs", "model"), start=1):
        training = {"epochs": 2 * number, "accumulation": 1}
        finish(Run(pocket_config(work, name=f"cat{number}", runs_dir=work / place, training=training)))
    return work


@pytest.fixture
def work(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of those runs, and one that was cut off before its first step."""
    monkeypatch.setattr("tui.setup.models.known_roots", list)
    folder = tmp_path / "work"
    for place in ("runs", "model"):
        shutil.copytree(shelf / place, folder / place)
    pictures(folder / "data", 3)
    cut = folder / "runs" / "dog"
    cut.mkdir()
    save_config(pocket_config(folder, name="dog", runs_dir=folder / "runs"), RunFolder(cut).config)
    monkeypatch.chdir(folder)
    return folder


async def runs_of(pilot: Pilot[Any]) -> RunsScreen:
    """Open the screen from the workbench and wait until all is read."""
    await pilot.pause()
    await pilot.press("r")
    await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
    screen = pilot.app.screen
    assert isinstance(screen, RunsScreen)
    await until(pilot, lambda: not screen.reading)
    return screen


async def go_to(pilot: Pilot[Any], screen: RunsScreen, name: str) -> None:
    """Move the cursor to a run by keys."""
    await pilot.press("g")
    for _ in screen.cards:
        if screen.card is not None and screen.card.summary.name == name:
            return
        await pilot.press("j")
    raise AssertionError(f"no run {name}")


def test_runs_of_several_places_are_found_once_the_newest_first(work: Path) -> None:
    (work / "link").symlink_to(work / "runs")
    (work / "runs" / "empty").mkdir()
    places = [work / "runs", work / "model", work / "link", work / "nowhere"]
    assert [folder.name for folder in run_folders(places)] == ["cat2", "cat1", "dog"]


def test_a_run_that_is_over_is_read_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, known = run_folders([work / "runs"]), {}
    first = list(read_cards(folders, known))
    monkeypatch.setattr("tui.run_shelf.read_view", lambda folder: pytest.fail("read again"))
    again = list(read_cards([folder for folder in folders if folder.name != "dog"], known))
    assert again == [card for card in first if card.summary.name != "dog"]
    card = again[0]
    assert card.summary.state == "finished"
    assert len(card.steps) == len(card.losses) == card.summary.steps == 10
    assert card.steps[0] == 1 and card.steps[-1] == 10
    assert [path.name for path, size in card.files if size > 1000][-1] == "cat1.safetensors"


def test_events_that_cannot_be_read_make_a_line_not_an_end(work: Path) -> None:
    events = RunFolder(work / "runs" / "cat1").events
    events.unlink()
    events.mkdir()
    cards = {card.summary.name: card.summary.state for card in read_cards(run_folders([work / "runs"]), {})}
    assert cards["cat1"] == "unreadable"


@pytest.mark.parametrize("size", [(160, 45), (80, 24)], ids=["160x45", "80x24"])
async def test_every_run_is_listed_with_state_and_files(work: Path, size: tuple[int, int]) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=size) as pilot:
        screen = await runs_of(pilot)
        text = text_of(app)
        assert all(name in text for name in ("cat1", "cat2", "dog", "finished"))
        await go_to(pilot, screen, "cat2")
        await pilot.pause()
        assert "cat2.safetensors" in text_of(app)
        assert "20/20" in text_of(app)
        line = next(line for line in text_of(app).splitlines() if "20/20" in line)
        assert re.search(r"finished {2,5}cat2 {1,12}4 {2,5}20/20", line), "no column is wider than it needs to be"
        assert "begun" in text_of(app)


async def test_words_filter_the_runs_and_esc_leads_out(work: Path) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await runs_of(pilot)
        await pilot.press("slash", *"model q")
        await pilot.pause()
        assert "No run has these words" in text_of(app)
        await pilot.press("backspace", "backspace", "enter")
        await pilot.pause()
        assert screen.card is not None and screen.card.summary.name == "cat2"
        assert "1 of 3" in text_of(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "1 of 3" not in text_of(app) and app.screen is screen
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not screen)


async def test_a_run_is_opened_in_the_workbench(work: Path) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await runs_of(pilot)
        await go_to(pilot, screen, "cat1")
        await pilot.press("enter")
        await until(pilot, lambda: app.workplace.view.name == "cat1" and app.screen is not screen)
        assert app.workplace.view.state == "finished"
        assert app.workplace.session.pane == "training"


async def test_a_run_that_broke_off_goes_on_and_a_finished_one_does_not(work: Path) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await runs_of(pilot)
        await go_to(pilot, screen, "cat1")
        await pilot.press("r")
        await until(pilot, lambda: "The run is finished" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        await go_to(pilot, screen, "dog")
        await pilot.press("r")
        await until(pilot, lambda: app.workplace.view.state == "finished")
        assert app.screen is not screen
    assert (work / "runs" / "dog" / "dog.safetensors").is_file()


async def test_what_changed_is_shown_before_a_run_goes_on(work: Path) -> None:
    folder = RunFolder(work / "runs" / "cat1")
    values = load_config(folder.config).model_dump()
    values["training"]["epochs"] = 3
    save_config(RunConfig.model_validate(values), folder.config)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await runs_of(pilot)
        await go_to(pilot, screen, "cat1")
        await pilot.press("r")
        await until(pilot, lambda: "training.epochs: 2 -> 3" in text_of(app))
        assert "only how long" in text_of(app) and "enter goes on" in text_of(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        assert app.workplace.run is None or not app.workplace.live
        await pilot.press("r")
        await until(pilot, lambda: "training.epochs: 2 -> 3" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.workplace.view.state == "finished" and app.workplace.view.epoch == 3)
        assert app.workplace.view.resumed_step == 10 and app.screen is not screen


@pytest.mark.parametrize("state", ["stopped", "failed", "interrupted"])
async def test_one_key_resumes_a_run_however_it_ended(state: str, work: Path) -> None:
    folder = RunFolder(work / "runs" / "cat1")
    lines = [line for line in folder.events.read_text(encoding="utf-8").splitlines() if '"RunDone"' not in line]
    folder.events.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    ending = {"stopped": [RunDone("stopped", 10, 2, "", 1.0)], "failed": [RunFailed("It broke", "", "", "")]}
    log = EventLog(folder.events)
    for event in ending.get(state, []):
        log.append(event)
    log.close()
    place = Workplace(work)
    place.session.offered = str(folder.root)  # the workbench would ask for the one that broke off
    app = KilnApp(place)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await runs_of(pilot)
        await go_to(pilot, screen, "cat1")
        assert screen.card is not None and screen.card.summary.state == state
        assert screen.card.summary.resumes_after == 10
        await pilot.press("r")
        await until(pilot, lambda: app.workplace.view.name == "cat1" and app.workplace.view.state == "finished")


async def test_a_run_is_duplicated_in_the_form(work: Path) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await runs_of(pilot)
        await go_to(pilot, screen, "cat1")
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, SetupScreen))
        form = app.screen
        assert isinstance(form, SetupScreen)
        old = load_config(RunFolder(work / "runs" / "cat1").config)
        assert form.checked.config is not None
        assert form.checked.config.lora == old.lora and form.checked.config.seed == old.seed
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)


async def test_two_runs_are_compared(work: Path) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await runs_of(pilot)
        await pilot.press("c")
        await pilot.pause()
        assert "Mark a run" in text_of(app)
        await go_to(pilot, screen, "cat1")
        await pilot.press("space")
        await go_to(pilot, screen, "cat2")
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await until(pilot, lambda: "step" in text_of(app) and "training.epochs" in text_of(app))
        assert "1 cat1" in text_of(app) and "2 cat2" in text_of(app)

        def colours() -> set[object]:
            plot = app.screen.query_one("#curves", Static).content
            return {span.style for span in plot.spans} if isinstance(plot, Content) else set()

        before = colours()
        await pilot.press("f8")
        await until(pilot, lambda: colours() != before)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)


def test_only_what_differs_is_told(work: Path) -> None:
    folders = [work / "runs" / "cat1", work / "model" / "cat2"]
    rows = {row[0]: row[1:] for row in rows_of(read_comparison(folders))}
    assert rows["training.epochs"] == ("2", "4")
    assert "lora.rank" not in rows and "name" not in rows and "settings" not in rows and "rank" not in rows
    assert rows_of(read_comparison([folders[0], folders[0]]))[-1] == ("settings", "no setting differs")
    assert rows["state"] == ("finished", "finished")


@pytest.mark.parametrize("size", [(160, 45), (80, 24)], ids=["160x45", "80x24"])
async def test_six_runs_are_compared_by_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    for number in range(7):
        course = [loss - 0.01 * number for loss in (0.5, 0.42, 0.38, 0.36, 0.35, 0.36, 0.38)]
        found = [measured(epoch, loss if epoch else 0.5) for epoch, loss in enumerate(course)]
        make(tmp_path / "runs" / f"cat-r{number}", found, lora__rank=number + 1)
    monkeypatch.chdir(tmp_path)
    app = KilnApp(Workplace(tmp_path))
    async with app.run_test(size=size) as pilot:
        await runs_of(pilot)
        await pilot.press("g", *["space"] * 7, "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen) and "Held-out loss over ep" in text_of(app))
        screen = app.screen
        assert isinstance(screen, CompareScreen) and screen.found is not None
        assert len(screen.found.runs) == 6, "of seven marks the oldest is gone"
        assert [run.rank for run in screen.found.runs] == [1, 2, 3, 4, 5, 6]
        await until(pilot, lambda: "6 cat-r" in text_of(app) and "rank" in text_of(app))
        for title in ("Held-out loss over steps", "Smoothed training loss", "Held-out loss over epochs"):
            await pilot.press("m")
            await until(pilot, lambda title=title: title in text_of(app))
        await pilot.press("end")
        await until(pilot, lambda: "lora.rank" in text_of(app))


async def test_a_folder_without_runs_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = KilnApp(Workplace(tmp_path))
    async with app.run_test(size=(80, 24)) as pilot:
        await runs_of(pilot)
        assert "No runs yet" in text_of(app)
        await pilot.press("d", "c", "space", "enter", "y", "G", "pagedown")
        await pilot.pause()
        assert isinstance(app.screen, RunsScreen)


@pytest.mark.parametrize("size", [(100, 30), (80, 24)], ids=["100x30", "80x24"])
async def test_a_run_of_another_process_is_shown_and_not_steered(work: Path, size: tuple[int, int]) -> None:
    folder = RunFolder(work / "runs" / "cat1")
    with open(folder.events, encoding="utf-8") as file:
        lines = file.readlines()
    begun = next(at for at, line in enumerate(lines) if '"StepDone"' in line)
    folder.events.write_text("".join(lines[: begun + 1]), encoding="utf-8")
    with open(folder.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("4242", file=lock, flush=True)
        app = KilnApp(Workplace(work))
        async with app.run_test(size=size) as pilot:
            screen = await runs_of(pilot)
            await go_to(pilot, screen, "cat1")
            assert "by the process 4242" in text_of(app)
            await pilot.press("r")
            await until(pilot, lambda: "Another process trains" in text_of(app))
            await pilot.press("escape", "enter")
            await until(pilot, lambda: "TRAINING ELSEWHERE (process 4242)" in text_of(app))
            with open(folder.events, "a", encoding="utf-8") as file:
                file.writelines(lines[begun + 1 : begun + 3])
            await until(pilot, lambda: app.workplace.view.seq == begun + 3)
            for key in ("space", "s", "S"):
                await pilot.press(key)
                await until(pilot, lambda: dialog(app))
                assert "the process 4242" in text_of(app)
                await pilot.press("escape")
                await until(pilot, lambda: not dialog(app))
            assert app.workplace.view.state == "training"


def dialog(app: KilnApp) -> bool:
    """Whether the error stands on the screen."""
    return "Another process trains" in text_of(app)

"""The wizard on the screen, by keys and mouse: there and back, overriding, pilot and start; machines are made up."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from made_up import LARGE, NO_GPU, SHARED, UNEQUAL, MadeUp
from pocket import FILES, pictures
from textual.pilot import Pilot
from watching import text_of, until

from tui.app import KilnApp
from tui.screens.dialogs import ChoiceDialog
from tui.screens.pick import PickDialog
from tui.screens.setup import SetupScreen
from tui.screens.wizard import WizardScreen
from tui.widgets.fields import Choice, FieldRow
from tui.widgets.memory_bar import MemoryBar
from tui.widgets.wizard import FitValue, name_of
from tui.wizard.pages import PAGES
from tui.wizard.planner import Place
from tui.workplace import Workplace

WIDE, SMALL = (160, 45), (80, 24)
PAGE = {page.id: number for number, page in enumerate(PAGES)}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder with pictures and model files that pass for FLUX.1's."""
    monkeypatch.setattr("tui.setup.models.known_roots", list)
    folder = tmp_path / "mycat"
    pictures(folder / "image", 16)
    (folder / "models").mkdir()
    for file in FILES.glob("*.safetensors"):
        (folder / "models" / file.name).symlink_to(file)
    monkeypatch.chdir(folder)
    return folder


def made_up(monkeypatch: pytest.MonkeyPatch, places: tuple[Place, ...]) -> MadeUp:
    """Have every wizard ask a made-up planner."""
    planner = MadeUp(places)
    monkeypatch.setattr("tui.wizard.profiles.Profiles", lambda: planner)
    return planner


async def opened(pilot: Pilot[Any], *keys: str) -> WizardScreen:
    """Press ``keys`` and wait for the wizard, with everything looked at and planned."""
    await pilot.pause()
    await pilot.press(*keys)
    await until(pilot, lambda: isinstance(pilot.app.screen, WizardScreen))
    screen = pilot.app.screen
    assert isinstance(screen, WizardScreen)
    await until(pilot, lambda: screen.finds is not None and not screen.busy and len(screen.places) > 0)
    await until(pilot, lambda: not screen.busy)
    return screen


async def press(pilot: Pilot[Any], screen: WizardScreen, *keys: str) -> None:
    """Press ``keys`` and wait until what they changed is planned."""
    await pilot.press(*keys)
    await pilot.pause()
    await until(pilot, lambda: not screen.busy)


async def turn(pilot: Pilot[Any], screen: WizardScreen, page: str) -> None:
    """Turn to a page by keys."""
    while screen.number != PAGE[page]:
        await press(pilot, screen, "pagedown" if screen.number < PAGE[page] else "pageup")


async def go(pilot: Pilot[Any], screen: WizardScreen, page: str) -> None:
    """Go to a page at once."""
    screen.show_page(PAGE[page])
    await pilot.pause()
    await until(pilot, lambda: not screen.busy)


def value(screen: WizardScreen, key: str) -> FitValue:
    """The control of a setting that was chosen."""
    return screen.query_one(f"#field-{name_of(key)}", FitValue)


async def test_from_the_first_question_to_a_run_by_keys(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planner = made_up(monkeypatch, UNEQUAL)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=SMALL) as pilot:
        screen = await opened(pilot, "w")
        assert "Is it the right thing here?" in " ".join(text_of(app).split())
        await press(pilot, screen, "right")
        assert screen.answers["want"] == "character" and "what LoRAs do best" in text_of(app)
        await press(pilot, screen, "down", "right")
        assert "probably the wrong thing" in text_of(app)  # which keeps nobody from going on
        await turn(pilot, screen, "goal")
        assert screen.form.values["preset"] == "character"
        assert (screen.form.values["repeats"], screen.form.values["epochs"]) == ("5", "20")
        assert "1600 steps" in text_of(app)
        await turn(pilot, screen, "fit")
        assert (
            "Fits on RTX 4090: at most 14.5 of 22.8 GB (training)" in text_of(app)
            and screen.form.values["base"] == "files"
        )
        await turn(pilot, screen, "review")
        assert "1600 steps" in text_of(app) and "Start the run" in text_of(app)
        begun: list[str] = []
        monkeypatch.setattr(app.workplace, "begin", lambda config: begun.append(config.name) or config)
        await pilot.press("f9")
        await until(pilot, lambda: begun == ["mycat-pilot"] and app.screen is not screen)
        assert app.workplace.config is not None and app.workplace.config.name == "mycat"
        screen = await opened(pilot, "w")
        assert screen.number == PAGE["review"]
        await pilot.press("f5")
        await until(pilot, lambda: begun == ["mycat-pilot", "mycat"] and app.screen is not screen)
        assert app.workplace.session.pane == "training"
    written = tomllib.loads((work / "mycat.toml").read_text())
    assert written["memory"]["precision"] == "int8" and written["training"]["device"] == "cuda:1"
    assert planner.asked[-1][0] == {}


async def test_back_and_forth_quitting_and_returning_lose_nothing(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up(monkeypatch, UNEQUAL)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=SMALL) as pilot:
        screen = await opened(pilot, "w")
        await press(pilot, screen, "right", "right")
        await turn(pilot, screen, "dataset")
        screen.control("trigger").focus()
        await press(pilot, screen, *"sks")
        await turn(pilot, screen, "fit")
        value(screen, "memory.blocks_to_swap").focus()
        await press(pilot, screen, *"12")
        await turn(pilot, screen, "model")
        await turn(pilot, screen, "fit")
        assert value(screen, "memory.blocks_to_swap").value == "12"
        app.workplace.save_session()
        app.leave("leave")
    again = KilnApp(Workplace(work))
    async with again.run_test(size=WIDE) as pilot:
        screen = await opened(pilot)
        assert screen.number == PAGE["fit"] and screen.answers["want"] == "style"
        assert screen.form.values["trigger"] == "sks" and screen.form.values["preset"] == "style"
        held = value(screen, "memory.blocks_to_swap")
        assert (held.value, held.fixed) == ("12", True)
        await press(pilot, screen, "ctrl+n")
        assert screen.number == 0 and not value(screen, "memory.blocks_to_swap").fixed
        assert screen.form.values["trigger"] == "" and screen.answers["want"] == ""


async def test_a_value_is_overridden_the_rest_is_solved_around_it_and_it_is_given_back(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = made_up(monkeypatch, UNEQUAL)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=WIDE) as pilot:
        screen = await opened(pilot, "w")
        await go(pilot, screen, "fit")
        bars = screen.query_one("#bars", MemoryBar).bars
        precision = value(screen, "memory.precision")
        precision.focus()
        await pilot.pause()
        assert "Instead, with all else chosen around it:" in text_of(app)
        await press(pilot, screen, "left", "left")
        assert precision.value == "auto" and precision.fixed
        assert planner.asked[-1][0] == {"memory.precision": "auto"}
        assert int(value(screen, "memory.blocks_to_swap").value) > 0
        assert screen.query_one("#bars", MemoryBar).bars != bars
        assert "* yours" in text_of(app) and "--set memory.precision=auto" in text_of(app)
        assert screen.focused is precision
        await press(pilot, screen, "delete")
        assert (precision.value, precision.fixed) == ("int8", False)
        assert value(screen, "memory.blocks_to_swap").value == "0"
        assert screen.query_one("#bars", MemoryBar).bars == bars
        value(screen, "training.batch_size").focus()
        await press(pilot, screen, "right")
        assert screen.form.values["batch"] == "2" and "batch_size = 2" in screen.checked.text
        precision.focus()
        await press(pilot, screen, "right", "ctrl+g")
        assert screen.form.values["batch"] == "1" and planner.asked[-1][0] == {}
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PickDialog))
        await until(pilot, lambda: "does not fit" in text_of(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: precision.value == "nf4" and not screen.busy)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PickDialog))
        await pilot.press("end", "enter")
        await until(pilot, lambda: precision.value == "int8" and not screen.busy)


async def test_wishes_and_another_card_plan_anew(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planner = made_up(monkeypatch, UNEQUAL)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=WIDE) as pilot:
        screen = await opened(pilot, "w")
        await go(pilot, screen, "fit")
        place = screen.control("place")
        assert isinstance(place, Choice) and place.label == "RTX 4090"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PickDialog))
        await until(pilot, lambda: "takes four times as long" in text_of(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: place.value == "cuda:0" and not screen.busy)
        assert "Draws the desktop" in screen.query_one("#row-place", FieldRow).told
        assert 'device = "cuda:0"' in screen.checked.text
        assert int(value(screen, "memory.blocks_to_swap").value) > 10
        screen.control("leave").focus()
        await press(pilot, screen, *"2x")
        assert "number of GB" in screen.query_one("#row-leave", FieldRow).told and "1 to mend" in text_of(app)
        await press(pilot, screen, "backspace")
        assert planner.asked[-1][1].leave_gb == 2.0
        screen.control("done").focus()
        await press(pilot, screen, *"8h")
        assert planner.asked[-1][1].done_in_s == 8 * 3600


async def test_what_is_changed_meanwhile_is_planned_when_the_answer_is_there(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = made_up(monkeypatch, LARGE)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=WIDE) as pilot:
        screen = await opened(pilot, "w")
        await go(pilot, screen, "goal")
        before, count = screen.fit, len(planner.asked)
        planner.gate.clear()
        screen.control("rank").focus()
        await pilot.press("end", "backspace", "backspace", "3", "2")
        await pilot.pause()
        assert screen.planning and screen.fit is before
        planner.gate.set()
        await until(pilot, lambda: not screen.busy)
        assert screen.fit is not None and screen.fit.settings.rank == 32
        assert len(planner.asked) - count <= 3


async def test_without_a_card_it_is_said_plainly(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch, NO_GPU)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=SMALL) as pilot:
        screen = await opened(pilot, "w")
        await go(pilot, screen, "fit")
        text = " ".join(text_of(app).split())
        assert "There is no GPU here: the processor trains, 1170 s for each picture." in text
        assert screen.form.values["optimizer"] == "adamw"


async def test_what_does_not_fit_is_asked_about_before_it_begins(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch, SHARED)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=WIDE) as pilot:
        screen = await opened(pilot, "w")
        await go(pilot, screen, "fit")
        value(screen, "memory.blocks_to_swap").focus()
        await press(pilot, screen, "0")
        assert screen.fit is not None and not screen.fit.fits
        assert "At 768 px it fits." in text_of(app) and "!!!" in text_of(app)
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        assert "It will not fit" in text_of(app)
        await pilot.press("b")
        await until(pilot, lambda: app.screen is screen)
        assert app.workplace.run is None and not list(work.glob("*.toml"))


async def test_it_is_planned_before_the_model_is_downloaded(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (work / "models").glob("t5*"):
        file.unlink()
    made_up(monkeypatch, LARGE)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=SMALL) as pilot:
        screen = await opened(pilot, "w")
        base = screen.control("base")
        assert isinstance(base, Choice)
        base.take("files")
        await press(pilot, screen)
        await until(pilot, lambda: screen.to_mend == ["t5"] and not screen.busy)
        await go(pilot, screen, "fit")
        assert "published files: T5-XXL is missing" in " ".join(text_of(app).split())
        assert "1 to mend" in text_of(app) and screen.fit is not None
        await pilot.press("f5")
        await until(pilot, lambda: app.focused is screen.control("t5"))


async def test_something_wrong_is_gone_to_on_its_page(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch, LARGE)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=SMALL) as pilot:
        screen = await opened(pilot, "w")
        await go(pilot, screen, "goal")
        screen.control("rate").focus()
        await press(pilot, screen, "x")
        assert screen.fit is None
        await go(pilot, screen, "review")
        assert "known once goal is right" in text_of(app)
        await pilot.press("f5")
        await until(pilot, lambda: app.focused is screen.control("rate"))
        assert screen.number == PAGE["goal"]


async def test_what_the_planner_refuses_can_be_taken_back(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch, UNEQUAL)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=WIDE) as pilot:
        screen = await opened(pilot, "w")
        await go(pilot, screen, "fit")
        precision = value(screen, "memory.precision")
        precision.focus()
        await press(pilot, screen, "right")
        nf4 = screen.control("nf4")
        assert isinstance(nf4, Choice) and precision.value == "nf4"
        nf4.take("no")
        await press(pilot, screen)
        assert "nf4 is not allowed" in text_of(app) and screen.fit is None
        assert (precision.value, precision.fixed) == ("nf4", True)
        precision.focus()
        await press(pilot, screen, "delete")
        assert (precision.value, precision.fixed) == ("int8", False) and screen.fit is not None
        screen.form.values["batch"] = "x"
        screen.refill()
        await press(pilot, screen)
        assert "1 to mend" in text_of(app) and "known once a setting that has no field" in text_of(app)


async def test_the_form_is_a_key_away_and_shows_the_same_values(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch, UNEQUAL)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=WIDE) as pilot:
        screen = await opened(pilot, "w")
        await go(pilot, screen, "fit")
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, SetupScreen))
        form = app.screen
        assert isinstance(form, SetupScreen)
        await until(pilot, lambda: form.finds is not None and not form.busy)
        assert app.workplace.session.screen == "setup"
        assert 'precision = "int8"' in form.checked.text and form.form.values["epochs"] == "20"
        form.control("batch").focus()
        await pilot.press("end", "backspace", "4")
        await until(pilot, lambda: not form.busy)
        screen = await opened(pilot, "f3")
        assert screen.number == PAGE["fit"]
        batch = value(screen, "training.batch_size")
        assert (batch.value, batch.fixed) == ("4", True)


async def test_tabs_and_buttons_take_the_mouse(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch, LARGE)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=SMALL) as pilot:
        screen = await opened(pilot, "w")
        await pilot.click("#tabs", offset=(25, 0))
        await until(pilot, lambda: screen.number == PAGE["dataset"])
        await pilot.click("#act-next-dataset")
        await until(pilot, lambda: screen.number == PAGE["goal"])
        await pilot.press("f2")
        await until(pilot, lambda: "kiln plan mycat.toml" in text_of(app) or "host memory" in text_of(app))
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is screen
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not screen)


@pytest.mark.slow
async def test_a_pilot_runs_apart_and_the_review_says_what_it_showed(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole pilot on the pocket model, then back at the review."""
    made_up(monkeypatch, NO_GPU)
    monkeypatch.setattr("tui.wizard.pilot.LEAST", 2)
    monkeypatch.setattr("tui.wizard.pilot.MOST", 2)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=WIDE) as pilot:
        screen = await opened(pilot, "w")
        await go(pilot, screen, "model")
        base = screen.control("base")
        assert isinstance(base, Choice)
        base.take("pocket")
        await press(pilot, screen)
        screen.form.values["prompts"] = ""
        screen.refill()
        await go(pilot, screen, "review")
        await pilot.press("f9")
        place = app.workplace
        await until(pilot, lambda: place.run is not None and app.screen is not screen)
        assert place.config is not None and place.config.name == "mycat" and place.config_path == work / "mycat.toml"
        await until(pilot, lambda: place.view.state == "finished")
        assert place.run is not None and place.run.folder is not None
        assert place.run.folder.root == work / "runs" / "pilots" / "mycat-pilot"
        assert place.view.step == 2
        await until(pilot, lambda: "w goes back to the review" in text_of(app))
        screen = await opened(pilot, "w")
        assert screen.number == PAGE["review"]
        await until(pilot, lambda: "mycat-pilot: finished, 2 steps" in text_of(app))
        begun: list[str] = []
        monkeypatch.setattr(place, "begin", lambda config: begun.append(config.name) or config)
        await pilot.press("f5")
        await until(pilot, lambda: begun == ["mycat"])

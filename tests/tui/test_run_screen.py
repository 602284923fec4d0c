"""The run screen under Pilot: keys become commands, dialogs ask, panes move, the end and a failure are clear."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeRun
from textual.pilot import Pilot

from engine.commands import (
    CancelStop,
    Pause,
    Resume,
    SampleNow,
    SaveNow,
    StopAfterEpoch,
    StopAtEpoch,
    StopNow,
)
from engine.events import EventLog, RunFailed, SampleSaved, StateChanged
from engine.files import create_run_folder
from tui.app import KilnApp
from tui.keymap import ALL_KEYS, RUN_KEYS
from tui.safe import ascii_only
from tui.screens.dialogs import EpochDialog, ErrorDialog, HelpDialog
from tui.screens.panes import layout_for
from tui.screens.run import RunScreen
from tui.widgets.cells import CellWidget
from tui.widgets.log import LogPane
from tui.widgets.plot import LossPlot
from tui.widgets.samples import SamplesPane
from tui.widgets.stages import Result

Play = Callable[[Pilot[Any], KilnApp, FakeRun], Awaitable[None]]


async def play(tmp_path: Path, script: Play, size: tuple[int, int] = (100, 30), **options: Any) -> KilnApp:
    """Run ``script`` on a fake run that has made steps, and end it afterwards."""
    app_options = {key: options.pop(key) for key in ("ascii_terminal", "keymap") if key in options}
    run = FakeRun(tmp_path, **({"epochs": 6, "steps_per_epoch": 100_000, "step_s": 0.01} | options))
    app = KilnApp(run, **app_options)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.bridge.view.step > 3)
        try:
            await script(pilot, app, run)
        finally:
            run.submit(StopNow())
    assert app.crash == ""
    return app


async def until(pilot: Pilot[Any], condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Let the app go on until ``condition`` holds."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return
        await asyncio.sleep(0.03)
    raise AssertionError("waited in vain")


def text_of(app: KilnApp) -> str:
    """The text on the screen."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def run_screen(app: KilnApp) -> RunScreen:
    """The run screen under whatever dialog."""
    return next(screen for screen in app.screen_stack if isinstance(screen, RunScreen))


async def test_every_key_sends_its_command(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("space")
        await until(pilot, lambda: app.bridge.view.state == "paused")
        assert "PAUSED" in text_of(app)
        await pilot.press("space")
        await until(pilot, lambda: app.bridge.view.state == "training")
        await pilot.press("P")
        await until(pilot, lambda: app.bridge.view.state == "released")
        await pilot.press("P")
        await until(pilot, lambda: app.bridge.view.state == "training")
        await pilot.press("S", "x")
        await pilot.press("s", "e")
        await until(pilot, lambda: app.screen is run_screen(app))
        await pilot.press("s", "n")
        await until(pilot, lambda: len(run.commands) == 8)
        assert run.commands == [
            Pause(), Resume(), Pause(release=True), Resume(), SaveNow(), SampleNow(), StopAfterEpoch(), StopNow(),
        ]  # fmt: skip

    await play(tmp_path, script)


async def test_stop_at_an_epoch_and_cancel_the_plan(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("s")
        await until(pilot, lambda: "Stop the run" in text_of(app))
        assert "Cancel the planned" not in text_of(app)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, EpochDialog))
        await pilot.press("backspace", "9", "enter")
        assert run.commands == []  # there are 6 epochs only: the field stays for correction
        await pilot.press("backspace", "5", "enter")
        await until(pilot, lambda: app.bridge.view.stop_epoch == 5)
        await until(pilot, lambda: "stops after epoch 5" in text_of(app))
        await pilot.press("s")
        await until(pilot, lambda: "Cancel the planned" in text_of(app))
        await pilot.press("c")
        await until(pilot, lambda: app.bridge.view.stop_epoch == 0)
        await pilot.press("s", "escape")
        assert run.commands == [StopAtEpoch(5), CancelStop()]

    await play(tmp_path, script)


async def test_leaving_a_live_run_asks(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("q", "c", "q", "escape", "ctrl+q", "w")
        assert run.commands == [] and run.alive
        assert run_screen(app).leave_when_ended
        run_screen(app).leave_when_ended = False
        await pilot.press("q", "s")
        await until(pilot, lambda: not run.alive)
        assert run.commands == [StopNow()]
        await until(pilot, lambda: not app.is_running)

    await play(tmp_path, script)


async def test_ctrl_c_explains_then_opens_the_stop_menu(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "The run goes on" in text_of(app))
        app._interrupted_at = time.monotonic()
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "Stop the run" in text_of(app))
        await pilot.press("escape")
        assert run.commands == []

    await play(tmp_path, script)


async def test_the_end_is_clear_and_q_leaves_at_once(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=2, steps_per_epoch=5, step_s=0.002)
    app = KilnApp(run)
    async with app.run_test(size=(160, 45), notifications=True) as pilot:
        await until(pilot, lambda: not run.alive and app.bridge.view.done is not None)
        await until(pilot, lambda: "0.3812 → 0.3110" in text_of(app))
        shown = text_of(app)
        assert "Finished: epoch 2, step 10" in shown
        assert "glorb/glorb.safetensors" in shown.replace("\n", "") or "glorb.safetensors" in shown
        assert "✓ FINISHED" in shown
        assert "Pause" not in shown  # no commands for a run that is over
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "Draw the whole screen again" in text_of(app))
        assert "Pause or resume" not in text_of(app)  # nor in the palette
        await pilot.press("escape", "s", "x", "q")
        assert run.commands == []
    assert app.crash == ""
    assert not app.is_running


async def test_a_failure_is_a_dialog_with_detail_and_hint(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=2, steps_per_epoch=5, step_s=0.002, fail_at=4)
    app = KilnApp(run)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        await pilot.pause(0.1)
        shown = text_of(app)
        assert "The GPU's memory is full" in shown and "24.1 GB wanted, 23.6 free" in shown
        assert "Lower resolution or rank." in shown and "log.txt" in shown
        await pilot.press("escape")
        await until(pilot, lambda: "FAILED" in text_of(app))
        await pilot.press("q")
    assert not app.is_running


async def test_a_resumed_run_is_steered_while_it_prepares_and_may_fail_again(tmp_path: Path) -> None:
    folder = create_run_folder(tmp_path, "glorb")
    earlier = EventLog(folder.events)
    for event in (StateChanged("training"), RunFailed("no memory", "", "", ""), StateChanged("failed")):
        earlier.append(event)
    earlier.close()
    run = FakeRun(tmp_path)
    run.folder = folder
    fail = threading.Event()

    def resume() -> None:
        run.events.open_file(folder.events)
        run._enter("preparing")
        fail.wait(30)
        run._fail()

    run._prepare = resume  # type: ignore[method-assign]
    run._train = lambda: None  # type: ignore[method-assign]
    app = KilnApp(run)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.bridge.view.state == "preparing" and app.bridge.view.seq > 3)
        await pilot.pause(0.6)
        assert app.screen is run_screen(app)  # no dialog for the failure of last time
        await pilot.press("x", "q", "s")
        await until(pilot, lambda: run.commands == [SampleNow(), StopNow()])
        run_screen(app).leave_when_ended = False
        fail.set()
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))


async def test_pictures_come_from_the_runs_own_folder(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        pane = app.screen.query_one(SamplesPane)
        run.events.append(SampleSaved(str(tmp_path / "private.png"), 9, 1, 0, "p", 1))
        await until(pilot, lambda: app.bridge.view.samples[-1].step == 9)
        assert run.folder is not None
        assert {Path(path).parent for path, *_ in pane._wanted()} == {run.folder.samples}
        await until(pilot, lambda: "cannot be shown" in text_of(app))

    await play(tmp_path, script)


async def test_an_engine_that_vanishes_is_told(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=2, steps_per_epoch=5, step_s=0.002)
    run._train = lambda: None  # type: ignore[method-assign]
    app = KilnApp(run)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        await pilot.pause(0.1)
        assert "ended without a word" in text_of(app)


async def test_panes_zoom_and_log(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        screen = run_screen(app)
        for number, name in enumerate(("loss", "figures", "samples", "log"), start=1):
            await pilot.press(str(number))
            assert screen.focused is screen.query_one(f"#{name}") and screen.current == name
        await pilot.press("tab")
        assert screen.current == "loss"
        await pilot.press("z")
        await pilot.pause(0.1)
        assert screen.query_one("#loss").size.width > 90
        assert not screen.query_one("#log").display
        await pilot.press("escape", "l")
        await pilot.pause(0.1)
        assert screen.current == "log" and screen.query_one("#loss").display
        await pilot.press("l")
        assert screen.current == "loss"

    await play(tmp_path, script)


async def test_smoothing_and_range(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        screen = run_screen(app)
        plot = screen.query_one(LossPlot)
        seen = []
        for _ in range(4):
            await pilot.press("m")
            seen.append(plot.smoothing)
        assert seen == [1, 2, None, 0]
        await pilot.press("[", "[", "]")
        assert plot.window == 1 and "last 1/2" in text_of(app)
        await pilot.press("]", "]")
        assert plot.window == 0

    await play(tmp_path, script)


async def test_walking_through_samples(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        pane = app.screen.query_one(SamplesPane)
        await until(pilot, lambda: len(app.bridge.view.samples) >= 6)
        await pilot.press("3", "space")
        await until(pilot, lambda: app.bridge.view.state == "paused")
        samples = app.bridge.view.samples
        assert pane.current == samples[-1]
        await pilot.press("left")
        assert pane.current == samples[-2]
        await pilot.press("up")
        assert pane.current == samples[-4]
        await pilot.press("down", "right")
        assert pane.current == samples[-1] and pane.chosen is None
        await pilot.press("left", "end")
        assert pane.chosen is None
        await until(pilot, lambda: any(block in text_of(app) for block in "▘▝▀▖▌▞▛▗▚▐▜▄"))
        await pilot.press("enter")
        await until(pilot, lambda: pane.size.width > 90)

    await play(tmp_path, script, epochs=100_000, steps_per_epoch=6)


async def test_the_log_stays_where_the_reader_is(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        pane = app.screen.query_one(LogPane)
        await until(pilot, lambda: len(app.bridge.view.log) > 30)
        await pilot.press("4", "pageup", "k", "up")
        await until(pilot, lambda: pane.back > 12)
        top = text_of(app).splitlines()[-8][10:60]
        lines = app.bridge.view.log_total
        await until(pilot, lambda: app.bridge.view.log_total > lines + 3)
        await pilot.pause(0.3)
        assert text_of(app).splitlines()[-8][10:60] == top
        await pilot.press("end")
        assert pane.back == 0

    await play(tmp_path, script, epochs=100_000, steps_per_epoch=4)


async def test_help_and_palette(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("question_mark")
        await pilot.pause(0.1)
        assert isinstance(app.screen, HelpDialog)
        assert "Pause and give the GPU's memory back" in text_of(app)
        await pilot.press("escape", "ctrl+p")
        await until(pilot, lambda: "Draw the sample pictures now" in text_of(app))
        await pilot.press(*"save")
        await until(pilot, lambda: "Save the LoRA and" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: SaveNow() in run.commands)
        await pilot.press("ctrl+l")

    await play(tmp_path, script)


async def test_keys_can_be_changed_by_id(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("x", "f9")
        await until(pilot, lambda: run.commands == [SampleNow()])

    await play(tmp_path, script, keymap={"run.sample": "f9"})


def test_bindings_have_ids_of_their_own() -> None:
    ids = [key.id for key in ALL_KEYS]
    assert len(ids) == len(set(ids))
    assert all(key.help and key.label for key in RUN_KEYS)


@pytest.mark.parametrize(
    ("size", "layout"),
    [
        ((160, 45), "wide"), ((100, 30), "medium"), ((80, 24), "single"), ((59, 40), "tiny"), ((200, 17), "tiny"),
        ((200, 24), "single"),
    ],
)  # fmt: skip
def test_layouts(size: tuple[int, int], layout: str) -> None:
    assert layout_for(*size) == layout


async def test_small_terminals_show_one_pane_tiny_ones_one_line(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        shown = text_of(app)
        assert "1 Loss" in shown and "4 Log" not in shown
        await pilot.press("2")
        await pilot.pause(0.2)
        assert "learning rate" in text_of(app) and "model" in text_of(app)
        await pilot.press("4")
        await pilot.pause(0.2)
        assert "4 Log" in text_of(app) and "1 Loss" not in text_of(app)
        await pilot.resize_terminal(50, 10)
        await pilot.pause(0.2)
        shown = text_of(app)
        assert "TRAINING" in shown and "step" in shown and "4 Log" not in shown
        await pilot.resize_terminal(160, 45)
        await pilot.pause(0.3)
        assert "1 Loss" in text_of(app) and "4 Log" in text_of(app)

    await play(tmp_path, script, size=(80, 24))


def beyond(app: KilnApp) -> list[str]:
    """Characters on the screen that an ASCII terminal would get a question mark for."""
    return sorted({char for char in text_of(app) if char != "?" and ascii_only(char) == "?"})


async def test_ascii_terminals_get_ascii_only(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await until(pilot, lambda: len(app.bridge.view.samples) >= 2)
        await pilot.pause(0.7)
        assert beyond(app) == []
        assert "* TRAINING" in text_of(app)
        for keys in (["s"], ["s", "a"], ["q"], ["question_mark"], ["space"]):
            await pilot.press(*keys)
            await pilot.pause(0.2)
            assert beyond(app) == [], keys
            await pilot.press(*["escape"] * (keys != ["space"]))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "Draw the sample pictures now" in text_of(app))
        assert beyond(app) == []

    await play(tmp_path, script, ascii_terminal=True)


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "ansi-light"])
async def test_themes_repaint_everything(tmp_path: Path, theme: str) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("space")
        await until(pilot, lambda: app.bridge.view.held)
        await pilot.pause(0.8)
        plot = app.screen.query_one(LossPlot)
        before, paints = plot.render_line(0), plot.paints
        plot.refresh()
        await pilot.pause(0.3)
        assert plot.paints == paints  # kept while nothing changes
        app.theme = theme
        await pilot.pause(0.3)
        assert plot.render_line(0) != before
        for widget in app.screen.query(CellWidget):
            for row in range(widget.size.height):
                assert all(segment.style is not None for segment in widget.render_line(row))

    await play(tmp_path, script)


async def test_no_color_terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        assert app.no_color
        await until(pilot, lambda: len(app.bridge.view.samples) >= 2)
        await pilot.press("3", "z", "s", "escape", "question_mark", "escape")
        await pilot.pause(0.3)

    await play(tmp_path, script)
    os.environ.pop("NO_COLOR", None)


async def test_result_needs_no_step(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=1, steps_per_epoch=2, step_s=0.002)
    run.submit(StopNow())
    app = KilnApp(run)
    async with app.run_test(size=(160, 45), notifications=True) as pilot:
        await until(pilot, lambda: app.bridge.view.done is not None)
        await until(pilot, lambda: "Stopped and saved" in text_of(app))
        assert app.screen.query_one(Result).display

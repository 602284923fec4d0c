"""The workbench under Pilot: keys become commands, dialogs ask, panes move, the end and a failure are clear."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeRun
from rich.console import Console
from textual.pilot import Pilot
from watching import text_of, until

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
from tui.keys.run import RUN_KEYS
from tui.keys.tables import ALL_KEYS
from tui.safe import ascii_only
from tui.screens.dialogs import EpochDialog, ErrorDialog
from tui.screens.help import HelpScreen
from tui.screens.panes import PANES, TITLES, layout_for, pane_of
from tui.screens.workbench import Workbench
from tui.settings import Settings
from tui.terminal.traits import Traits
from tui.widgets.cells import CellWidget
from tui.widgets.log import LogPane
from tui.widgets.plot import LossPlot, RatePlot
from tui.widgets.samples import SamplesPane
from tui.widgets.stages import Result
from tui.workplace import Workplace

Play = Callable[[Pilot[Any], KilnApp, FakeRun], Awaitable[None]]


async def play(tmp_path: Path, script: Play, size: tuple[int, int] = (100, 30), **options: Any) -> KilnApp:
    """Run ``script`` on a fake run that has made steps, and end it afterwards."""
    traits = Traits(utf8=not options.pop("ascii_terminal", False))
    settings = Settings(keymap=options.pop("keymap", {}))
    run = FakeRun(tmp_path, **({"epochs": 6, "steps_per_epoch": 100_000, "step_s": 0.01} | options))
    place = Workplace.around(run, tmp_path, settings)
    place.session.pane = "training"
    app = KilnApp(place, traits)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.workplace.view.step > 3)
        try:
            await script(pilot, app, run)
        finally:
            run.submit(StopNow())
    assert app.crash == ""
    return app


def bench(app: KilnApp) -> Workbench:
    """The workbench under whatever dialog."""
    assert app.workbench is not None
    return app.workbench


async def test_every_key_sends_its_command(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("space")
        await until(pilot, lambda: app.workplace.view.state == "paused")
        assert "PAUSED" in text_of(app)
        await pilot.press("space")
        await until(pilot, lambda: app.workplace.view.state == "training")
        await pilot.press("P")
        await until(pilot, lambda: app.workplace.view.state == "released")
        await pilot.press("P")
        await until(pilot, lambda: app.workplace.view.state == "training")
        await pilot.press("S", "x")
        await pilot.press("s", "e")
        await until(pilot, lambda: app.screen is bench(app))
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
        await until(pilot, lambda: app.workplace.view.stop_epoch == 5)
        await until(pilot, lambda: "stops after epoch 5" in text_of(app))
        await pilot.press("s")
        await until(pilot, lambda: "Cancel the planned" in text_of(app))
        await pilot.press("c")
        await until(pilot, lambda: app.workplace.view.stop_epoch == 0)
        await pilot.press("s", "escape")
        assert run.commands == [StopAtEpoch(5), CancelStop()]

    await play(tmp_path, script)


async def test_leaving_a_live_run_asks(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("q", "c", "q", "escape", "ctrl+q", "w")
        assert run.commands == [] and run.alive
        assert bench(app).leave_when_ended
        bench(app).leave_when_ended = False
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
    app = KilnApp(Workplace.around(run, tmp_path))
    async with app.run_test(size=(160, 45), notifications=True) as pilot:
        await until(pilot, lambda: not run.alive and app.workplace.view.done is not None)
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
    app = KilnApp(Workplace.around(run, tmp_path))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog) and "Traceback:" in text_of(app))
        shown = text_of(app)
        assert "The GPU's memory is full" in shown and "24.1 GB wanted, 23.6 free" in shown
        assert "Lower resolution or rank." in shown and "Traceback:" in shown
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
    app = KilnApp(Workplace.around(run, tmp_path))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.workplace.view.state == "preparing" and app.workplace.view.seq > 3)
        await until(pilot, lambda: "PREPARING" in text_of(app))
        assert app.screen is bench(app)  # no dialog for the failure of last time
        await pilot.press("x", "q", "s")
        await until(pilot, lambda: run.commands == [SampleNow(), StopNow()])
        bench(app).leave_when_ended = False
        fail.set()
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))


async def test_pictures_come_from_the_runs_own_folder(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        pane = app.screen.query_one(SamplesPane)
        run.events.append(SampleSaved(str(tmp_path / "private.png"), 9, 1, 0, "p", 1))
        await until(pilot, lambda: app.workplace.view.samples[-1].step == 9)
        assert run.folder is not None
        assert {Path(path).parent for path, *_ in pane._wanted()} == {run.folder.samples}
        await until(pilot, lambda: "cannot be shown" in text_of(app))

    await play(tmp_path, script)


async def test_an_engine_that_vanishes_is_told(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=2, steps_per_epoch=5, step_s=0.002)
    run._train = lambda: None  # type: ignore[method-assign]
    app = KilnApp(Workplace.around(run, tmp_path))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog) and "ended without a word" in text_of(app))


async def test_panes_zoom_and_log(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        screen = bench(app)
        for number, name in enumerate(PANES, start=1):
            if not screen.query_one(f"#slot-{name}").children:
                continue
            await pilot.press(str(number))
            await until(pilot, lambda name=name: screen.focused is not None and pane_of(screen.focused) == name)
            assert screen.current == name == app.workplace.session.pane
            await pilot.press("escape")
        await pilot.press("3", "z")
        await until(pilot, lambda: screen.query_one("#training").size.width > 90)
        assert not screen.query_one("#slot-log").display and app.workplace.session.zoomed
        assert screen.query_one(RatePlot).size.width > 20
        await pilot.press("escape", "l")
        await until(pilot, lambda: screen.query_one("#slot-log").size.height > 3)
        assert screen.current == "log" and screen.query_one("#slot-training").display
        await pilot.press("l")
        assert screen.current == "training"

    await play(tmp_path, script)


async def test_smoothing_and_range(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        screen = bench(app)
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
        await until(pilot, lambda: len(app.workplace.view.samples) >= 6)
        await pilot.press("4", "space")
        await until(pilot, lambda: app.workplace.view.state == "paused")
        samples = app.workplace.view.samples
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
        await until(pilot, lambda: len(app.workplace.view.log) > 30)
        await pilot.press("5", "pageup", "k", "up")
        await until(pilot, lambda: pane.back > 12)
        top = pane.render_line(0).text
        lines = app.workplace.view.log_total
        await until(pilot, lambda: app.workplace.view.log_total > lines + 3)
        await pilot.pause(0.3)
        assert pane.render_line(0).text == top
        await pilot.press("end")
        assert pane.back == 0

    await play(tmp_path, script, epochs=100_000, steps_per_epoch=4)


async def test_help_and_palette(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("question_mark")
        await until(pilot, lambda: "Pause and give the GPU's memory back" in text_of(app))
        assert isinstance(app.screen, HelpScreen)
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
        await until(pilot, lambda: "3 Training" in text_of(app) and "model" in text_of(app))
        assert "5 Log" not in text_of(app) and "1 Dataset" not in text_of(app)
        await pilot.press("z")
        await until(pilot, lambda: "learning rate" in text_of(app) and "memory, GiB" in text_of(app))
        await pilot.press("z", "5")
        await until(pilot, lambda: "5 Log" in text_of(app) and "3 Training" not in text_of(app))
        await pilot.resize_terminal(50, 10)
        await until(
            pilot, lambda: "TRAINING" in text_of(app) and "step" in text_of(app) and "5 Log" not in text_of(app)
        )
        await pilot.resize_terminal(160, 45)
        await until(pilot, lambda: all(f"{n} {title}" in text_of(app) for n, title in enumerate(TITLES, start=1)))

    await play(tmp_path, script, size=(80, 24))


def beyond(app: KilnApp) -> list[str]:
    """Characters on the screen that an ASCII terminal would get a question mark for."""
    return sorted({char for char in text_of(app) if char != "?" and ascii_only(char) == "?"})


async def test_ascii_terminals_get_ascii_only(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await until(pilot, lambda: len(app.workplace.view.samples) >= 2)
        await until(pilot, lambda: "* TRAINING" in text_of(app))
        assert beyond(app) == []
        for keys in (["s"], ["s", "a"], ["q"], ["question_mark"], ["space"]):
            await pilot.press(*keys)
            await pilot.pause()
            assert beyond(app) == [], keys
            await pilot.press(*["escape"] * (keys != ["space"]))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "Draw the sample pictures now" in text_of(app))
        assert beyond(app) == []

    await play(tmp_path, script, ascii_terminal=True)


@pytest.mark.parametrize("theme", ["light", "high-contrast", "16-colours"])
async def test_themes_repaint_everything(tmp_path: Path, theme: str) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await pilot.press("space")
        await until(pilot, lambda: "PAUSED" in text_of(app))
        plot = app.screen.query_one(LossPlot)
        before = plot.render_lines(plot.size.region)
        paints = plot.paints
        assert plot.render_lines(plot.size.region) == before and plot.paints == paints  # kept while nothing changes
        app.theme = theme
        await until(pilot, lambda: plot.render_lines(plot.size.region)[0] != before[0])
        for widget in app.screen.query(CellWidget):
            for row in range(widget.size.height):
                assert all(segment.style is not None for segment in widget.render_line(row))

    await play(tmp_path, script)


def colours(app: KilnApp) -> set[str]:
    """The colours other than greys in what is written for the screen, as codes."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
    written = "".join(strip.render(console) for strip in app.screen._compositor.render_strips())
    codes = ";".join(re.findall(r"\x1b\[([\d;]*)m", written))
    found = re.findall(r"[34]8;2;\d+;\d+;\d+|[34]8;5;\d+|\b(?:[349][0-7]|10[0-7])\b", codes)
    return {code for code in found if ";2;" not in code or len(set(code.split(";")[2:])) > 1}


async def test_no_color_terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No colours but greys are written, and every state can still be read."""
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await until(pilot, lambda: len(app.workplace.view.samples) >= 2 and "TRAINING" in text_of(app))
        assert app.no_color and colours(app) == set()
        for keys in (["4"], ["z"], ["escape"], ["s"], ["escape"], ["question_mark"], ["escape"], ["1"], ["l"], ["l"]):
            await pilot.press(*keys)
            await pilot.pause()
            assert colours(app) == set(), keys
        await pilot.press("space")
        await until(pilot, lambda: "PAUSED" in text_of(app))
        assert colours(app) == set()

    await play(tmp_path, script)


async def test_the_same_screen_has_colours_elsewhere(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        await until(pilot, lambda: len(colours(app)) > 3)

    await play(tmp_path, script)


async def test_result_needs_no_step(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=1, steps_per_epoch=2, step_s=0.002)
    run.submit(StopNow())
    app = KilnApp(Workplace.around(run, tmp_path))
    async with app.run_test(size=(160, 45), notifications=True) as pilot:
        await until(pilot, lambda: app.workplace.view.done is not None)
        await until(pilot, lambda: "Stopped and saved" in text_of(app))
        assert app.screen.query_one(Result).display


async def test_the_pane_that_was_asked_for_last_is_the_current_one(tmp_path: Path) -> None:
    """A key pressed while the screen still goes to the pane that it begins with is not undone by arriving there."""

    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        screen = bench(app)
        for before in ("dataset", "training"):
            screen.go_to(before)
            screen._arrive(before)  # the focus is given; that it was is told later
            screen.go_to("samples")
            await until(pilot, lambda: app.focused is not None and pane_of(app.focused) == "samples")
            assert screen.current == "samples"

    await play(tmp_path, script, size=(80, 24))


async def test_a_pane_that_hides_late_does_not_take_the_focus_away(tmp_path: Path) -> None:
    async def script(pilot: Pilot[Any], app: KilnApp, run: FakeRun) -> None:
        screen = bench(app)
        screen.go_to("samples")
        await until(pilot, lambda: app.focused is not None and pane_of(app.focused) == "samples")
        # What Textual does for a widget with the focus that was hidden, some time after.
        app.call_later(screen.set_focus, None)
        await pilot.pause()
        assert app.focused is not None and pane_of(app.focused) == "samples"
        app.app_focus = False
        await pilot.pause()
        assert app.focused is None
        app.app_focus = True
        await until(pilot, lambda: app.focused is not None and pane_of(app.focused) == "samples")

    await play(tmp_path, script, size=(80, 24))

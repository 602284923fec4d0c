"""Runs without a screen: progress, report, event lines, signals; on a run that is played, not trained."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.commands import Command, StopNow
from engine.events import (
    CheckpointSaved,
    Entry,
    EpochDone,
    Event,
    EventLog,
    Log,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    StateChanged,
    StepDone,
    entry_from_json,
)  # fmt: skip
from engine.files import RunFolder, create_run_folder
from engine.training.outlook import Outlook
from tui.__main__ import main
from tui.exit_codes import exit_code
from tui.headless import run_headless
from tui.job import run_job
from tui.progress import Progress as Bar
from tui.progress import bar, plain_line, status_line
from tui.report import decimated, loss_plot, report, whole_ticks
from tui.view import LogLine, RunView, fold

CONFIG = """\
name = "cat"
[model]
transformer = "flux.safetensors"
autoencoder = "ae.safetensors"
clip_l = "clip.safetensors"
t5 = "t5.safetensors"
[[dataset.folders]]
path = "pictures"
"""


def step(number: int, epoch: int = 1, loss: float = 0.5) -> StepDone:
    return StepDone(number, epoch, loss, 1e-4, 1.0, 0.1, 0.01, 0.08, 0.01)


def played(steps: int = 8) -> list[Event]:
    """The events of a run that finishes."""
    events: list[Event] = [
        StateChanged("preparing"),
        RunStarted("cat", "/runs/cat", "flux1", "dev", 2, steps, 4),
        Progress("cache latents", 2, 4),
        StateChanged("training"),
        *[step(number, 1 + (number > steps // 2), 1.0 / number) for number in range(1, steps + 1)],
        EpochDone(2, steps, 0.25),
        CheckpointSaved("/runs/cat/cat.safetensors", steps, 2, "final", 290_000),
        Log("warning", "low \x1b[2J disk"),
        RunDone("finished", steps, 2, "/runs/cat/cat.safetensors", 12.0),
        StateChanged("finished"),
    ]
    return events


class PlayedRun:
    """Plays events from a thread of its own; with ``until_stopped`` it waits for StopNow before its last two."""

    def __init__(self, events: list[Event], until_stopped: bool = False) -> None:
        self.events = EventLog()
        self.folder: RunFolder | None = None
        self.commands: list[Command] = []
        self._played = events
        self._stop = threading.Event()
        if not until_stopped:
            self._stop.set()
        self._thread = threading.Thread(target=self._play)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def submit(self, command: Command) -> None:
        self.commands.append(command)
        self._stop.set()

    def join(self, timeout_s: float | None = None) -> bool:
        self._thread.join(timeout_s)
        return not self.alive

    def _play(self) -> None:
        for event in self._played[:-2]:
            self.events.append(event)
        self._stop.wait(10)
        for event in self._played[-2:]:
            self.events.append(event)


def view_of_events(events: list[Event]) -> RunView:
    view = RunView()
    for number, event in enumerate(events, 1):
        fold(view, Entry(number, 1000.0 + number, event))
    return view


def test_a_finished_run_reports_and_returns_0(capfd: pytest.CaptureFixture[str]) -> None:
    run = PlayedRun(played())
    run.folder = RunFolder(Path("/elsewhere/cat"))
    assert run_headless(run) == 0
    out, err = capfd.readouterr()
    assert "Run cat finished at step 8 of 8" in out
    assert "/elsewhere/cat/cat.safetensors (290 kB)" in out  # by its name in the run's own folder
    assert "warning: low \\x1b[2J disk" in err
    assert "\x1b" not in out + err


def test_json_is_every_event_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    noisy = PlayedRun(played())
    original = noisy._play

    def play_noisily() -> None:
        print("a banner of some library")
        os.write(1, b"and one from C\n")
        original()

    noisy._thread = threading.Thread(target=play_noisily)
    assert run_headless(noisy, json_lines=True) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [entry_from_json(line).event for line in lines] == played()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_failed_run_tells_why_on_stderr_and_returns_1(capfd: pytest.CaptureFixture[str]) -> None:
    failure = RunFailed("The disk is full", "writing x failed\x1b[2J", "Free some space.", "Traceback ...")
    assert run_headless(PlayedRun([StateChanged("preparing"), failure, StateChanged("failed")])) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "error: The disk is full\n  writing x failed\\x1b[2J\n  Free some space.\n" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_asks_the_run_to_stop(number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    events = [*played()[:-4], RunDone("stopped", 8, 2, "", 1.0), StateChanged("stopped")]
    run = PlayedRun(events, until_stopped=True)
    run.folder = RunFolder(Path("/runs/cat"))
    before = signal.getsignal(number)

    def send() -> None:
        while run.events.seq < len(events) - 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    assert run_headless(run) == code
    assert run.commands == [StopNow()]
    assert signal.getsignal(number) is before
    assert "Go on with: kiln resume /runs/cat" in capfd.readouterr().out


def test_exit_codes() -> None:
    assert exit_code("finished", 143) == 0
    assert exit_code("stopped") == 3
    assert exit_code("stopped", 130) == 130
    assert exit_code("failed", 130) == 1
    assert exit_code(None) == 1


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_the_bar_redraws_in_place_and_logs_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    stream = Terminal()
    shown = Bar(stream)
    view = view_of_events(played()[:8])
    shown.update(view)
    shown.update(view)
    shown.line(LogLine(0.0, "error", "bad \x1b[2J"))
    shown.close()
    text = stream.getvalue()
    assert text.count("training") == 1
    assert "step 4/8" in text
    assert "error: bad \\x1b[2J\n" in text
    assert text.replace("\r\x1b[2K", "").count("\x1b") == 0


def test_the_status_line_fits_any_width() -> None:
    for count in range(len(played())):
        view = view_of_events(played()[:count])
        for width in (10, 30, 60, 100):
            assert len(status_line(view, width)) <= width
            assert status_line(view, width, unicode=False).isascii()
    assert "cache latents 2/4" in status_line(view_of_events(played()[:3]), 80)
    assert "ETA" in status_line(view_of_events(played()[:8]), 100)


def test_plain_lines_come_at_a_distance() -> None:
    now = [0.0]
    stream = io.StringIO()
    shown = Bar(stream, clock=lambda: now[0])
    for count in range(5, 12):
        now[0] += 4.0
        shown.update(view_of_events(played()[:count]))
    assert len(stream.getvalue().splitlines()) == 2
    assert plain_line(RunView()) == ""


def test_bars_are_as_wide_as_asked() -> None:
    assert [len(bar(part, 20)) for part in (-1.0, 0.0, 0.5, 1.0, 9.0)] == [20] * 5
    assert bar(0.5, 4, unicode=False) == "[##--]"


def resumable(tmp_path: Path) -> RunFolder:
    """The folder of a run that was stopped after 8 steps."""
    folder = create_run_folder(tmp_path, "cat")
    folder.config.write_text(CONFIG)
    log = EventLog(folder.events)
    for event in (*played()[:-2], RunDone("stopped", 8, 2, "", 12.0), StateChanged("stopped")):
        log.append(event)
    log.close()
    return folder


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_resume_that_fails_before_its_event_file_is_open_is_told(
    more: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another process was quicker: it began between the look at the run and its start.
    monkeypatch.setattr("tui.resuming.look_before", lambda folder: Outlook())
    folder = resumable(tmp_path)
    before = folder.events.read_bytes()
    with open(folder.lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(["resume", str(folder.root), *more]) == 1
    out, err = capfd.readouterr()
    assert "This run is being trained already" in err
    assert [json.loads(line)["type"] for line in out.splitlines()] == (["RunFailed", "StateChanged"] if more else [])
    assert folder.events.read_bytes() == before


def test_a_resumed_run_is_followed_from_where_it_stood(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = resumable(tmp_path)
    run = PlayedRun([RunStarted("cat", "", "flux1", "dev", 2, 10, 4, 8), step(9), step(10)])
    run.folder = folder
    played_on, since, seen = run._play, run.events.since, threading.Event()

    def followed(seq: int) -> list[Entry]:
        entries = since(seq)
        if entries:
            seen.set()
        return entries

    run.events.since = followed  # type: ignore[method-assign]

    def play() -> None:
        run.events.append(Log("warning", "said before the file is open"))
        assert seen.wait(30)
        run.events.open_file(folder.events)
        run.events.append(StateChanged("preparing"))
        played_on()
        run.events.append(RunDone("finished", 10, 2, "", 1.0))

    run._thread = threading.Thread(target=play)
    assert run_headless(run) == 0
    out, err = capfd.readouterr()
    assert "Run cat finished at step 10 of 10" in out
    assert f"LoRA    {folder.root}/cat.safetensors" in out and f"Folder  {folder.root}" in out
    assert err.count("said before the file is open") == 1 and "epoch 2 done" not in err


def test_the_report_survives_a_run_that_never_began() -> None:
    assert "at step 0" in report(RunView())


def test_plots_have_the_size_asked_for() -> None:
    losses = [1 / (1 + index) for index in range(5000)]
    for unicode in (True, False):
        lines = loss_plot({"a": losses, "b\u2028": losses[::-1]}, 70, 12, unicode).split("\n")
        assert len(lines) <= 12 and all(len(line) <= 70 for line in lines)
    assert loss_plot({"a": losses}, unicode=False).isascii()


def test_decimation_keeps_the_mean() -> None:
    steps, means = decimated(list(range(1000)), 100)
    assert len(steps) == len(means) == 100
    assert sum(means) / 100 == pytest.approx(499.5)
    assert decimated([1.0, 2.0]) == ([1.0, 2.0], [1.0, 2.0])


def test_a_job_shows_progress_and_returns_its_code(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def job(events: EventLog, should_stop: object) -> bool:
        events.append(Progress("cache latents", 1, 2))
        return True

    assert run_job(job, False) == 0
    assert run_job(lambda events, should_stop: False, False) == 3

    def signalled(events: EventLog, should_stop: object) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    assert run_job(signalled, False) == 143


def test_a_job_ends_when_its_reader_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys, time; from engine.events import SampleSaved; from tui.__main__ import main;"
        "from tui import commands; import tui.commands.models as models; from tui.job import run_job\n"
        "def job(events, should_stop):\n"
        "    for number in range(400):\n"
        "        if should_stop(): return False\n"
        "        events.append(SampleSaved(f'{number}.png', 0, 0, number, 'p', 1)); time.sleep(0.05)\n"
        "    return True\n"
        "models.run = lambda args: run_job(job, False)\n"
        "sys.exit(main(['models']))"
    )
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.readline() == b"0.png\n"
    child.stdout.close()
    assert child.wait(60) == 141
    assert b"Traceback" not in child.stderr.read()
    child.stderr.close()


def test_a_run_goes_on_when_nobody_reads_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    shown = Bar(Gone())
    shown.line(LogLine(0.0, "info", "lost"))
    shown.update(view_of_events(played()))
    shown.close()


@pytest.mark.parametrize(
    ("last", "most", "ticks"),
    [(390, 5, [100, 200, 300]), (7, 8, [1, 2, 3, 4, 5, 6, 7]), (48.5, 5, [10, 20, 30, 40]), (0, 6, []),
     (2000, 4, [500, 1000, 1500, 2000])],
    ids=range(5),
)  # fmt: skip
def test_ticks_are_whole_steps(last: float, most: int, ticks: list[int]) -> None:
    assert whole_ticks(last, most) == ticks

"""Who asks twice wants it at once; what stops a process otherwise leaves the terminal sane and the run alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from children import Child, Work, assert_restored, has_echo, wait_until

pytestmark = pytest.mark.pty

STOPS = pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.crash)],
    ids=["term", "int"],
)

_STUBBORN = (
    "import sys, time\nfrom pathlib import Path\nimport engine.commands\nfrom fake_run import FakeRun\n"
    "class Stubborn(FakeRun):\n"
    "    def submit(self, command):\n"
    "        Path('asked').touch()\n"  # and nothing else: this run never stops
)
"""A run that hears the wish to stop and does not obey, as one deep in a computation."""

_HEADLESS = (
    _STUBBORN + "from tui.headless import run_headless\nsys.exit(run_headless(Stubborn(Path('runs'), epochs=6000)))"
)
_FOREGROUND = (
    _STUBBORN
    + "from tui.foreground import run_foreground\nsys.exit(run_foreground(Stubborn(Path('runs'), epochs=6000)))"
)


def twice(work: Work, child: Child, number: int) -> int:
    """The exit code of ``child`` after two signals; the first was heard before the second came."""
    child.kill(number)
    child.wait_for((work.folder / "asked").exists)
    child.kill(number)
    return child.wait()


@STOPS
def test_a_second_signal_ends_a_run_without_a_screen_at_once(work: Work, number: int, code: int) -> None:
    child = work.program("-c", _HEADLESS)
    child.wait_for(lambda: work.runs.exists() and "StepDone" in work.events())
    assert twice(work, child, number) == code
    assert has_echo(child)
    assert '"RunDone"' not in work.events()


@STOPS
def test_a_second_signal_ends_the_foreground_at_once_and_restores(work: Work, number: int, code: int) -> None:
    child = work.program("-c", _FOREGROUND)
    child.until(b"TRAINING")
    assert twice(work, child, number) == code
    assert_restored(child)


@pytest.mark.crash
def test_a_second_signal_ends_a_run_that_goes_on_unseen(work: Work) -> None:
    child = work.program("-c", _FOREGROUND)
    child.until(b"TRAINING")
    child.hang_up()
    wait_until((work.folder / "asked").exists)  # it is to stop at its next saved point, and will not
    (work.folder / "asked").unlink()
    assert twice(work, child, signal.SIGTERM) == 143


@pytest.mark.crash
def test_a_lost_terminal_while_a_run_is_saved_does_not_end_it(work: Work) -> None:
    child = work.program("-c", _FOREGROUND)
    child.until(b"TRAINING")
    child.kill(signal.SIGTERM)
    child.until(b"Saving and stopping")
    child.hang_up()
    before = work.step()
    wait_until(lambda: work.step() > before + 5)
    child.kill(signal.SIGTERM)
    assert child.wait() == 143


def test_a_second_signal_ends_the_host_at_once_and_the_client_restores(work: Work, tmp_path: Path) -> None:
    (tmp_path / "stubborn_host.py").write_text(
        _STUBBORN + "from tui.terminal.process import main\n"
        "sys.exit(main(make_run=lambda order: Stubborn(Path('runs'), epochs=6000) if order else None))\n"
    )
    client = (
        "import sys\nfrom tui.__main__ import _tell_errors\nfrom tui.terminal.attach import attach\n"
        "sys.exit(_tell_errors(lambda: attach({'command': 'fake'}, entry='stubborn_host')))"
    )
    here = Path(__file__).resolve().parents[2]
    paths = (here, here / "tests", here / "tests/tui", here / "tests/pty", tmp_path)
    child = work.program("-c", client, environment={"PYTHONPATH": os.pathsep.join(map(str, paths))})
    child.until(b"TRAINING")
    child.wait_for(lambda: work.info().get("run") == str(work.run()))  # the way back is read from it
    host = work.host()
    os.kill(host, signal.SIGTERM)
    child.wait_for((work.folder / "asked").exists)
    os.kill(host, signal.SIGTERM)
    child.wait()
    assert_restored(child)
    wait_until(lambda: not work.host_is_alive())
    assert b"ended without a word" in child.seen and b"kiln resume" in child.seen


def test_quit_ends_the_foreground_at_once_and_restores(work: Work) -> None:
    child = work.fake()
    child.until(b"TRAINING")
    child.kill(signal.SIGQUIT)
    assert child.wait() == 131
    assert_restored(child)


def test_a_stop_from_outside_does_not_stop_the_foreground(work: Work) -> None:
    child = work.fake()
    child.until(b"TRAINING")
    child.kill(signal.SIGTSTP)
    before = work.step()
    child.wait_for(lambda: work.step() > before + 3)
    child.kill(signal.SIGTERM)
    assert child.wait() == 143
    assert_restored(child)


@pytest.mark.crash
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGPIPE], ids=["quit", "pipe"])
def test_other_signals_to_the_client_leave_the_run_alone(work: Work, number: int) -> None:
    child = work.attach(work.fake_order())
    child.until(b"TRAINING")
    child.kill(number)
    if number == signal.SIGQUIT:
        assert child.wait() == 131
        assert_restored(child)
    before = work.step()
    wait_until(lambda: work.step() > before + 3)
    if number == signal.SIGPIPE:
        child.press("\x1c")
        assert child.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.crash)])
def test_a_signal_before_the_first_frame_of_the_foreground(work: Work, number: int) -> None:
    child = work.fake(answers=False)
    child.until(b"\x1b[c")  # the terminal is asked: raw already, and no screen yet
    child.kill(number)
    assert child.wait() == 128 + number
    assert has_echo(child)
    assert not work.runs.exists()


def test_a_reader_that_leaves_does_not_end_the_run(work: Work) -> None:
    code = (
        "import os, subprocess, sys\n"
        "words = [sys.executable, '-c', sys.argv[1]]\n"
        "trainer = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)\n"
        "trainer.stdout.close()\n"
        "sys.exit(trainer.wait())\n"
    )
    run = (
        "import sys\nfrom pathlib import Path\nfrom fake_run import FakeRun\nfrom tui.__main__ import main\n"
        "from tui.terminal import orders\norders.run_for = lambda order: FakeRun(Path('runs'), epochs=2)\n"
        "sys.exit(main(['train', 'any.toml']))"
    )
    child = work.program("-c", code, run)
    assert child.wait() == 141, child.seen
    assert '"reason": "finished"' in work.events()

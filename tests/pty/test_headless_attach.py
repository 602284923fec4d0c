"""Runs without a screen that can be looked at: beside a progress bar, after a hangup, begun in the background."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from children import Child, Work, assert_restored, wait_until
from pocket import pocket_config

from engine.config_file import save_config

pytestmark = pytest.mark.pty

_HEADLESS = (
    "import sys\nfrom pathlib import Path\nfrom engine.commands import Pause\n"
    "from fake_run import FakeRun\nfrom tui.headless import run_headless\n"
    "run = FakeRun(Path(sys.argv[1]), step_s=0.05, epochs=int(sys.argv[2]))\n"
    "if 'paused' in sys.argv: run.submit(Pause())\n"
    "sys.exit(run_headless(run))"
)


def headless(work: Work, epochs: int = 6000, *words: str) -> Child:
    """A fake run with a progress bar, training."""
    child = work.program("-c", _HEADLESS, str(work.runs), str(epochs), *words)
    child.wait_for(lambda: work.runs.exists() and "StepDone" in work.events())
    return child


def test_a_run_without_a_screen_can_be_looked_at_and_steered(work: Work) -> None:
    trainer = headless(work)
    viewer = work.program("-m", "tui", "attach", size=(100, 30))
    viewer.until(b"TRAINING")
    viewer.press("3")
    viewer.press(" ")
    viewer.until(b"PAUSED")
    viewer.press(" ")
    viewer.press("\x1c")
    assert viewer.wait() == 0
    assert_restored(viewer)
    assert b"goes on without a terminal" in viewer.seen
    before = work.step()
    trainer.wait_for(lambda: work.step() > before)
    again = work.program("-m", "tui", "attach")
    again.until(b"TRAINING")
    trainer.kill(signal.SIGINT)
    assert trainer.wait() == 130
    assert again.wait() == 0  # it only watched
    assert_restored(again)
    assert b"stopped at step" in again.seen
    assert not work.host_is_alive() and not work.info()


def test_its_end_sends_the_viewers_away_and_has_its_own_exit_code(work: Work) -> None:
    trainer = headless(work, 2, "paused")  # or it may be over before the viewer has come
    viewer = work.program("-m", "tui", "attach")
    viewer.until(b"PAUSED")
    viewer.press(" ")
    assert trainer.wait() == 0
    assert viewer.wait() == 0
    assert_restored(viewer)
    assert b"finished at step 32 of 32" in viewer.seen


def test_a_lost_terminal_does_not_end_it(work: Work) -> None:
    trainer = headless(work)
    trainer.hang_up()
    before = work.step()
    wait_until(lambda: work.step() > before + 5)
    viewer = work.program("-m", "tui", "attach")
    viewer.until(b"TRAINING")
    trainer.kill(signal.SIGTERM)
    assert trainer.wait() == 143
    viewer.wait()
    assert_restored(viewer)
    assert '"reason": "stopped"' in work.events()


def test_two_runs_in_one_folder_share_no_socket_and_do_not_mind(work: Work) -> None:
    first = headless(work)
    second = work.program("-c", _HEADLESS, str(work.runs), "1")
    assert second.wait() == 0
    assert b"another lorakiln works in this folder" in second.seen
    first.kill(signal.SIGINT)
    assert first.wait() == 130
    assert b"another lorakiln" not in first.seen


@pytest.mark.parametrize("ui", ["--detach", pytest.param("--ui", marks=pytest.mark.slow)])
def test_a_configuration_begun_by_command_trains_in_the_host(work: Work, tmp_path: Path, ui: str) -> None:
    save_config(
        pocket_config(tmp_path, training={"epochs": 20_000}, saving={"every_epochs": 0}), tmp_path / "run.toml"
    )
    child = work.program("-m", "tui", "train", str(tmp_path / "run.toml"), ui)
    if ui == "--ui":
        child.until(b"TRAINING")
        child.press("\x1c")
    assert child.wait() == 0
    assert b"goes on without a terminal" in child.seen and b"kiln attach" in child.seen
    listed = work.program("-m", "tui", "attach", "--list")
    assert listed.wait() == 0
    assert str(work.folder).encode() in listed.seen
    elsewhere = work.program("-c", f"import os, sys; os.chdir({str(work.root)!r})\n" + _ATTACH)
    assert elsewhere.wait() == 2
    assert b"No workstation runs in this folder" in elsewhere.seen and str(work.folder).encode() in elsewhere.seen
    viewer = work.program("-m", "tui", "attach", str(work.folder))
    viewer.until(b"TRAINING")
    viewer.press("q")
    viewer.until(b"Leave lorakiln")
    viewer.press("s")
    assert viewer.wait() == 0
    assert b"Run test stopped at step" in viewer.seen


_ATTACH = "from tui.__main__ import main\nsys.exit(main(['attach']))"

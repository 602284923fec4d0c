"""Hosts that die and screens that break: said in words that help, with the terminal sane and the run found again."""

from __future__ import annotations

import os
import signal

import pytest
from children import Child, Work, assert_restored, wait_until
from fake_run import SECRET
from pocket import pocket_config
from reliability import figure

from engine.config_file import save_config

pytestmark = pytest.mark.pty

DEATHS = {"kill": signal.SIGKILL, "abort": signal.SIGABRT, "segfault": signal.SIGSEGV, "bus": signal.SIGBUS}


def training(work: Work, **options: str) -> Child:
    """A client whose fake run trains, known to its host's note."""
    child = work.attach(work.fake_order(**options))
    child.until(b"TRAINING")
    child.wait_for(lambda: work.info().get("run") == str(work.run()))
    return child


@pytest.mark.parametrize(
    "way", ["abort", *(pytest.param(way, marks=pytest.mark.crash) for way in ("segfault", "bus"))]
)
def test_a_host_that_crashes_is_told_with_its_log_and_the_way_back(work: Work, way: str) -> None:
    child = training(work, noise="yes")
    child.wait_for(lambda: "written by C" in work.log())
    os.kill(work.host(), DEATHS[way])
    assert child.wait() == 1
    assert_restored(child)
    last = child.seen[child.seen.rindex(b"ended without a word") :]
    assert b"written by C" in last and b"host.log" in last and b"\x1b" not in last
    assert f"kiln resume {work.run()}".encode() in last
    figure("terminal", f"host ended by {way}: terminal sane, log and way back told", "yes")


@pytest.mark.parametrize(
    "where", ["worker", *(pytest.param(where, marks=pytest.mark.crash) for where in ("handler", "compose"))]
)
def test_an_error_anywhere_in_the_screen_is_told_without_secrets(work: Work, where: str) -> None:
    child = work.attach(work.fake_order(crash=where))
    assert child.wait() == 1
    assert_restored(child)
    assert b"a crash for the test" in child.seen and b"Traceback" in child.seen
    assert SECRET.encode() not in child.seen and SECRET not in work.log()
    before = work.step()
    wait_until(lambda: work.step() > before + 3)


@pytest.mark.crash
def test_a_run_that_fails_is_shown_and_its_command_fails(work: Work) -> None:
    child = work.attach(work.fake_order(fail_at="5"))
    child.until_shown("The GPU's memory is full")
    child.press("\r")
    child.until(b"FAILED")
    child.press("q")
    assert child.wait() == 1
    assert_restored(child)


def test_a_run_that_broke_off_is_offered_and_one_key_goes_on_with_it(work: Work) -> None:
    save_config(
        pocket_config(work.folder, training={"epochs": 4000, "state_every_steps": 2}, saving={"every_epochs": 0}),
        work.folder / "test.toml",
    )
    first = work.program("-m", "tui", "train", "test.toml", "--ui")
    first.wait_for(lambda: work.runs.exists() and work.step() > 5)
    first.wait_for(lambda: bool(work.info().get("run")))
    os.kill(work.host(), signal.SIGKILL)
    assert first.wait() == 1
    broke = work.step()
    again = work.program("-m", "tui")
    again.until_shown("The run broke off")
    assert "Go on with test from what was saved last" in again.screen()
    again.press("r")
    again.wait_for(lambda: work.step() > broke + 3)
    again.until(b"TRAINING")
    again.press("\x1c")
    assert again.wait() == 0
    assert_restored(again)
    resumed = [line for line in work.events().splitlines() if '"RunStarted"' in line]
    assert len(resumed) == 2 and '"resumed_step": 0' not in resumed[1]

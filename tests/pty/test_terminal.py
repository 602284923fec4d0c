"""The screen in its own process's terminal: it paints, obeys keys and signals, and always gives the terminal back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from children import ALT_SCREEN_OFF, Child, Work, assert_restored, wait_until
from pocket import pocket_config

from engine.config_file import save_config

pytestmark = pytest.mark.pty


def test_keys_and_leaving(work: Work) -> None:
    child = work.fake()
    child.until(b"TRAINING")
    child.press("3")
    child.press(" ")
    child.until(b"PAUSED")
    at = len(child.seen)
    child.resize(80, 24)
    child.until(b"3 Training", at)
    child.press("q")
    child.until(b"Leave lorakiln")
    child.press("s")
    assert child.wait() == 3  # stopped on request
    assert_restored(child)
    assert list(work.run().glob("*.safetensors"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_stop_and_restore(work: Work, number: int, code: int) -> None:
    child = work.fake()
    child.until(b"TRAINING")
    child.kill(number)
    assert child.wait() == code
    assert_restored(child)
    assert list(work.run().glob("*.safetensors"))
    assert '"RunDone"' in work.events()


def test_a_lost_terminal_ends_the_screen_and_the_run_goes_on_to_its_next_saved_point(work: Work) -> None:
    child = work.fake()
    child.until(b"TRAINING")
    child.hang_up()
    assert child.wait() == 129
    assert '"kind": "epoch"' in work.events() and '"reason": "stopped"' in work.events()


def test_a_hangup_signal_alone_does_the_same_and_restores(work: Work) -> None:
    child = work.fake()
    child.until(b"TRAINING")
    child.kill(signal.SIGHUP)
    assert child.wait() == 129
    assert_restored(child)


def test_a_paused_run_that_loses_its_terminal_is_saved_at_once(work: Work) -> None:
    child = work.fake()
    child.until(b"TRAINING")
    child.press("3")
    child.press(" ")
    child.until(b"PAUSED")
    child.hang_up()
    assert child.wait() == 129
    assert '"reason": "stopped"' in work.events()


def test_noise_from_c_goes_to_the_log(work: Work) -> None:
    child = work.fake("--noise")
    child.until(b"TRAINING")
    log = work.run() / "log.txt"

    def told() -> bool:
        text = log.read_text() if log.exists() else ""
        return "printed by Python" in text and "written by C" in text

    child.wait_for(told, "noise in the log")
    child.kill(signal.SIGTERM)
    assert child.wait() == 143
    # While the screen stood; a run that is still being saved after it may say something in the shell.
    screen = child.seen[: child.seen.rfind(ALT_SCREEN_OFF)]
    assert b"written by C" not in screen and b"printed by Python" not in screen


def test_an_error_of_the_screen_restores_and_is_told(work: Work) -> None:
    child = work.fake("--crash", "paint")
    assert child.wait() == 1
    assert_restored(child)
    assert b"a crash for the test" in child.seen and b"Traceback" in child.seen
    assert list(work.run().glob("*.safetensors"))  # the run was saved


def test_a_locale_without_unicode_gets_ascii(work: Work) -> None:
    child = work.fake(environment={"LC_ALL": "C"})
    child.until(b"* TRAINING")
    child.read(0.6)
    child.kill(signal.SIGTERM)
    assert child.wait() == 143
    assert child.seen.isascii()


def test_a_configuration_is_trained_full_screen_to_its_end(tmp_path: Path, work: Work) -> None:
    save_config(pocket_config(tmp_path, training={"steps": 1}), tmp_path / "run.toml")
    child = work.program("-m", "tui", "train", str(tmp_path / "run.toml"), "--ui", "--foreground")
    child.until(b"FINISHED")
    child.press("q")
    assert child.wait() == 0
    assert_restored(child)
    assert b"Run test finished at step 1 of 1." in child.seen
    assert (tmp_path / "runs/test/test.safetensors").is_file()


@pytest.mark.parametrize("foreground", [False, True], ids=["host", "foreground"])
def test_a_dumb_terminal_is_refused_with_a_hint(work: Work, foreground: bool) -> None:
    child = work.program("-m", "tui", *(["--foreground"] if foreground else []), environment={"TERM": "dumb"})
    assert child.wait() == 2
    assert b"TERM is 'dumb'" in child.seen and b"\x1b" not in child.seen
    assert not work.host_is_alive()


def test_keys_typed_before_the_screen_is_there_are_not_lost(work: Work) -> None:
    child = work.fake(answers=False)
    child.until(b"\x1b[c")
    os.write(child.master, b"?")
    child.until(b"Keys")


def test_answers_that_come_late_are_no_keys(work: Work) -> None:
    child: Child = work.fake(answers=False)
    child.until(b"TRAINING")
    at = len(child.seen)
    os.write(child.master, b"\x1b[?62;4;22c\x1b[6;20;10t")
    child.press("3")
    child.until(b"3 Training", at)
    wait_until(lambda: work.step() > 5)
    child.kill(signal.SIGTERM)
    assert child.wait() == 143

"""Host and clients in real pseudo-terminals: leaving, losing, sharing and coming back to a workstation."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from children import Child, Work, assert_restored, has_echo, wait_until
from fake_run import write_picture

pytestmark = pytest.mark.pty

NAMES = ("alder", "birch", "cedar", "dogwood", "elder", "fir")


@pytest.fixture
def pictures(work: Work) -> Path:
    """Six pictures with captions where the workbench finds them."""
    folder = work.folder / "pictures"
    folder.mkdir()
    for index, name in enumerate(NAMES):
        write_picture(folder / f"{name}.png", index % 2, 1.0)
        (folder / f"{name}.txt").write_text(f"a drawing of a tree called {name}")
    return folder


def training(work: Work, **settings: str) -> Child:
    """A client whose fake run trains."""
    child = work.attach(work.fake_order(**settings))
    child.until(b"TRAINING")
    return child


def goes_on(work: Work) -> None:
    """The run makes steps."""
    before = work.step()
    wait_until(lambda: work.step() > before + 3)


def test_the_detach_key_leaves_the_run_and_gives_the_terminal_back(work: Work) -> None:
    child = training(work)
    child.press("\x1c")
    assert child.wait() == 0
    assert_restored(child)
    assert b"goes on without a terminal" in child.seen and f"kill {work.host()}".encode() in child.seen
    goes_on(work)
    again = work.attach(size=(80, 24))
    again.until(b"TRAINING")
    again.press("q")
    again.until(b"Leave lorakiln")
    again.press("s")
    assert again.wait() == 0  # it only watched
    assert_restored(again)
    assert b"stopped at step" in again.seen and b"kiln resume" in again.seen
    assert '"reason": "stopped"' in work.events()
    wait_until(lambda: not work.host_is_alive())


def test_leaving_with_the_command_that_began_the_run_has_its_exit_code(work: Work) -> None:
    child = training(work)
    child.press("q")
    child.until(b"Leave lorakiln")
    child.press("s")
    assert child.wait() == 3
    assert_restored(child)
    assert b"stopped at step" in child.seen


def test_a_dropped_connection_costs_nothing_and_all_is_found_again(work: Work, pictures: Path) -> None:
    child = work.attach()
    child.until(b"fir")
    child.press("/")
    child.press("tree")
    child.press("\r")
    child.press("jj")
    child.until_shown("> cedar")
    child.hang_up()
    assert child.wait() == 129
    again = work.attach(size=(80, 24))
    again.until_shown("> cedar")
    assert "tree" in again.screen()
    again.press("4")
    again.until(b"4 Samples")
    again.kill(signal.SIGKILL)
    third = work.attach(size=(160, 45))
    third.until(b"4 Samples")
    third.press("q")
    assert third.wait() == 0
    wait_until(lambda: not work.host_is_alive())
    # A new host reads where the user was.
    fourth = work.attach(size=(100, 30))
    fourth.until(b"4 Samples")
    fourth.press("1")
    fourth.until_shown("> cedar")


def test_a_draft_outlives_a_killed_client(work: Work, pictures: Path) -> None:
    child = work.attach()
    child.until(b"fir")
    child.press("\r")
    child.until_shown("called alder")
    child.press("\x1b[1;5H" + "ZEBRA ")
    child.until_shown("ZEBRA")
    child.kill(signal.SIGKILL)
    child.wait()
    again = work.attach(size=(80, 24))
    again.until_shown("ZEBRA")


def test_a_terminal_that_is_not_read_holds_up_nothing(work: Work) -> None:
    child = training(work, step_s="0.02")
    for _ in range(40):  # whole screens, far more than a pseudo-terminal keeps
        child.press("z")
    before = work.step()
    wait_until(lambda: work.step() > before + 150)
    at = len(child.seen)
    child.until(b"TRAINING", at)
    child.press("\x1c")
    assert child.wait() == 0
    assert_restored(child)


def test_a_new_size_is_drawn(work: Work) -> None:
    child = training(work)
    at = len(child.seen)
    child.resize(160, 45)
    child.until(b"5 Log", at)
    at = len(child.seen)
    child.resize(50, 12)
    child.until(b"TRAINING", at)
    child.press("\x1c")
    assert child.wait() == 0


def test_a_second_client_takes_over_politely(work: Work) -> None:
    first = training(work)
    second = work.attach(size=(80, 24))
    second.until(b"TRAINING")
    assert first.wait() == 0
    assert_restored(first)
    assert b"goes on on another terminal" in first.seen
    goes_on(work)


def test_two_at_once_start_one_host(work: Work) -> None:
    children = [work.attach(work.fake_order()), work.attach(), work.attach()]
    wait_until(lambda: any(_ended(child) for child in children))
    wait_until(lambda: sum(_ended(child) for child in children) == 2)
    (last,) = [child for child in children if not _ended(child)]
    last.until(b"TRAINING")
    assert {child.wait() for child in children if child is not last} == {0}
    assert len(list(work.runs.iterdir())) == 1


def _ended(child: Child) -> bool:
    child.read(0.05)
    return not child.pid or os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"])
def test_a_signal_to_the_host_saves_stops_and_restores(work: Work, number: int, code: int) -> None:
    child = training(work)
    os.kill(work.host(), number)
    assert child.wait() == code
    assert_restored(child)
    assert '"reason": "stopped"' in work.events() and list(work.run().glob("*.safetensors"))
    wait_until(lambda: not work.host_is_alive())


def test_a_signal_to_a_host_that_nobody_watches(work: Work) -> None:
    training(work).kill(signal.SIGKILL)
    os.kill(work.host(), signal.SIGTERM)
    wait_until(lambda: not work.host_is_alive())
    assert '"reason": "stopped"' in work.events()


def test_a_hangup_means_nothing_to_the_host(work: Work) -> None:
    child = training(work)
    os.kill(work.host(), signal.SIGHUP)
    goes_on(work)
    child.press("\x1c")
    assert child.wait() == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGTSTP, 148)],
    ids=["term", "int", "hup", "tstp"],
)
def test_a_signal_to_the_client_detaches(work: Work, number: int, code: int) -> None:
    child = training(work)
    child.kill(number)
    assert child.wait() == code
    assert_restored(child)
    goes_on(work)


def test_the_host_restores_the_terminal_of_a_killed_client(work: Work) -> None:
    child = training(work)
    child.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.wait_for(lambda: has_echo(child) and b"\x1b[?1049l" in child.seen)
    assert_restored(child)
    goes_on(work)


def test_the_client_restores_the_terminal_of_a_killed_host(work: Work) -> None:
    child = training(work)
    child.wait_for(lambda: work.info()["run"] == str(work.run()))
    os.kill(work.host(), signal.SIGKILL)
    assert child.wait() == 1
    assert_restored(child)
    assert b"ended without a word" in child.seen
    assert f"kiln resume {work.run()}".encode() in child.seen


def test_noise_from_c_goes_to_the_hosts_log(work: Work) -> None:
    child = training(work, noise="yes")
    child.wait_for(lambda: "written by C" in work.log() and "printed by Python" in work.log())
    os.kill(work.host(), signal.SIGKILL)
    assert child.wait() == 1
    last = child.seen[child.seen.rindex(b"ended without a word") :]
    assert b"written by C" not in child.seen[: -len(last)] and b"printed by Python" not in child.seen[: -len(last)]
    assert b"\\x1b[2Jwritten by C" in last and b"\x1b" not in last  # told, and harmless


def test_an_error_of_the_screen_is_told_and_the_run_goes_on(work: Work) -> None:
    child = work.attach(work.fake_order(crash="yes"))
    assert child.wait() == 1
    assert_restored(child)
    assert b"a crash for the test" in child.seen and b"Traceback" in child.seen
    goes_on(work)


def test_a_second_run_is_refused_and_the_first_is_not_disturbed(work: Work) -> None:
    first = training(work)
    second = work.attach(work.fake_order())
    assert second.wait() == 2
    assert has_echo(second) and b"1049h" not in second.seen
    assert b"A run is live here already" in second.seen
    goes_on(work)
    first.press("\x1c")
    assert first.wait() == 0


def test_a_wrong_configuration_is_told_before_the_screen_and_leaves_no_host(work: Work) -> None:
    child = work.program("-m", "tui", "train", "none.toml", "--ui")
    assert child.wait() == 2
    assert b"The configuration cannot be read" in child.seen and b"1049h" not in child.seen
    assert has_echo(child)
    wait_until(lambda: not work.host_is_alive())


def test_a_host_with_nothing_to_do_ends_after_a_while(work: Work) -> None:
    child = work.attach(environment={"LORAKILN_HOST_IDLE_S": "0.2"})
    child.until(b"1 Dataset")
    child.press("\x1c")
    assert child.wait() == 0
    wait_until(lambda: not work.host_is_alive())


def test_keys_typed_while_the_host_starts_are_not_lost(work: Work) -> None:
    child = work.attach(answers=False)
    child.until(b"\x1b[c")
    child.press("?")
    child.until(b"Keys")

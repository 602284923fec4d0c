"""What happens to terminals, laptops and links while a run goes on: it does not notice, the next screen is right."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from children import Child, Work, assert_restored, has_echo, wait_until
from reliability import figure

from tui.bridge import view_of
from tui.terminal.wire import Hello

pytestmark = pytest.mark.pty

CRASH = pytest.mark.crash
STEP_S = 0.02


def training(work: Work, **settings: object) -> Child:
    """A client whose fake run trains."""
    child = work.attach(work.fake_order(STEP_S), **settings)
    child.until(b"TRAINING")
    return child


def stall(child: Child) -> None:
    """Have the screen write more than a terminal that nobody reads can take."""
    for _ in range(40):
        child.press("z")


def assert_whole(work: Work) -> list[int]:
    """Every step was told once, in order; returns them."""
    steps = list(view_of(work.run() / "events.jsonl").courses.step)
    assert steps == list(range(1, len(steps) + 1))
    return steps


def goes_on(work: Work, steps: int = 10) -> None:
    """The run makes steps."""
    before = work.step()
    wait_until(lambda: work.step() > before + steps)


def leave(child: Child) -> None:
    """Detach; the terminal must be as it was."""
    child.press("\x1c")
    assert child.wait() == 0
    assert_restored(child)


@pytest.mark.parametrize("way", ["drop", pytest.param("kill", marks=CRASH), pytest.param("hup", marks=CRASH)])
def test_a_connection_that_dies_while_its_terminal_takes_nothing(work: Work, way: str) -> None:
    child = training(work)
    stall(child)
    goes_on(work)
    if way == "kill":
        child.kill(signal.SIGKILL)
    elif way == "hup":
        child.kill(signal.SIGHUP)
    child.hang_up()
    goes_on(work)
    again = work.attach(size=(90, 30))
    again.until(b"TRAINING")
    leave(again)
    assert_whole(work)


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=CRASH)])
def test_a_stalled_link_costs_the_run_no_step(work: Work, seconds: int) -> None:
    child = training(work)
    rate = _rate(work, seconds)
    stall(child)
    stalled = _rate(work, seconds)
    at = len(child.seen)
    child.until(b"TRAINING", at)
    leave(child)
    assert_whole(work)
    figure("terminal", f"steps a second, link read / unread for {seconds} s", f"{rate:.1f} / {stalled:.1f}")
    assert stalled > 0


def _rate(work: Work, seconds: float) -> float:
    before, began = work.step(), time.monotonic()
    time.sleep(seconds)
    return (work.step() - before) / (time.monotonic() - began)


@CRASH
@pytest.mark.parametrize("seconds", [30])
def test_a_closed_laptop(work: Work, seconds: int) -> None:
    """The client stands still and wakes: the run went on meanwhile, and the screen is right again."""
    child = training(work)
    child.kill(signal.SIGSTOP)
    time.sleep(seconds)
    goes_on(work)
    child.kill(signal.SIGCONT)
    child.resize(100, 30)
    at = len(child.seen)
    child.press("3")
    child.until(b"3 Training", at)
    leave(child)
    assert_whole(work)


@pytest.mark.parametrize("seconds", [2, pytest.param(70, marks=CRASH)])
def test_a_machine_that_sleeps(work: Work, seconds: int) -> None:
    """The host stands still and wakes: no step is told twice, and what is estimated knows nothing of the sleep."""
    child = training(work)
    goes_on(work)
    os.kill(work.host(), signal.SIGSTOP)
    last = work.step()
    time.sleep(seconds)
    os.kill(work.host(), signal.SIGCONT)
    wait_until(lambda: work.step() > last + 10)
    at = len(child.seen)
    child.press("3")
    child.until(b"3 Training", at)
    leave(child)
    assert_whole(work)
    view = view_of(work.run() / "events.jsonl")
    # The fake run's steps tell 0.42 s each; a mean that the sleep is in would be seconds more.
    assert view.step_s is not None and view.eta_s is not None and view.step_s < 1
    assert view.eta_s < 1.2 * (view.goal_step - view.step)


TERMINALS: dict[str, dict[str, str]] = {
    "plain": {"LC_ALL": "C", "TERM": "vt220", "COLORTERM": ""},
    "no-colour": {"NO_COLOR": "1"},
    "console": {"TERM": "linux"},
    "screen": {"TERM": "screen-256color", "STY": "1.pts-0"},
    "true": {"TERM": "xterm-kitty", "COLORTERM": "truecolor"},
}


@CRASH
def test_another_kind_of_terminal_at_every_attach(work: Work) -> None:
    leave(training(work, environment={"COLORTERM": "truecolor"}))
    for name, environment in TERMINALS.items():
        child = work.attach(environment=environment, size=(100, 30))
        child.until(b"TRAINING")
        child.press("3")
        child.until_shown("3 Training")
        drawn = child.seen
        if name in ("plain", "console"):
            assert drawn.decode("utf-8").isascii(), name
        else:
            assert "━".encode() in drawn or "╌".encode() in drawn or "●".encode() in drawn, name
        if name == "no-colour":
            assert not _hues(drawn)
        leave(child)
    assert_whole(work)


def _hues(drawn: bytes) -> set[str]:
    """Colours set that are no shade of grey."""
    found = re.findall(rb"[34]8;2;(\d+);(\d+);(\d+)", drawn)
    return {f"{r} {g} {b}" for r, g, b in (map(int, rgb) for rgb in found) if max(r, g, b) - min(r, g, b) > 2}


@pytest.mark.parametrize("times", [150, pytest.param(1000, marks=CRASH)])
def test_a_storm_of_sizes(work: Work, times: int) -> None:
    child = training(work)
    for number in range(times):
        child.resize(20 + number * 37 % 480, 5 + number * 11 % 195)
        if number % 5 == 0:
            child.read_some()
    child.resize(20, 5)
    at = len(child.seen)
    child.until(b"\x1b[", at)
    child.resize(500, 200)
    at = len(child.seen)
    child.until(b"5 Log", at)
    child.resize(80, 24)
    at = len(child.seen)
    child.press("3")
    child.until(b"3 Training", at)
    leave(child)
    assert_whole(work)
    figure("terminal", "sizes in a storm that the screen came through", f"{times} of {times}")


@CRASH
@pytest.mark.parametrize("size", [(20, 5), (500, 200), (1, 1)])
def test_a_terminal_of_an_extreme_size(work: Work, size: tuple[int, int]) -> None:
    child = work.attach(work.fake_order(STEP_S), size=size)
    child.until(b"\x1b[?1049h")
    wait_until(lambda: work.step() > 3)
    child.read(0.3)
    leave(child)
    goes_on(work)


NOBODY = 65534


def as_nobody(work: Work, do: Callable[[], int]) -> tuple[int, str]:
    """The exit code and the words of ``do`` in a child that is another user, with a home of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    home = work.root.parent / f"{work.root.name}-nobody"
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, NOBODY, NOBODY)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            sys.stdout = sys.stderr = open(1, "w", encoding="utf-8")  # noqa: SIM115 - not pytest's
            os.environ |= {"XDG_STATE_HOME": str(home), "TMPDIR": str(home), "HOME": str(home), "TERM": "xterm"}
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            code = do()
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as file:
        words = file.read()
    _, status = os.waitpid(pid, 0)
    for path in (*sorted(home.rglob("*"), reverse=True), home):
        path.rmdir() if path.is_dir() else path.unlink()
    return os.waitstatus_to_exitcode(status), words


def test_another_user_is_refused_in_clear_words(work: Work) -> None:
    child = training(work)
    (path,) = (work.root / "lorakiln/hosts").glob("*.sock")
    for place in (work.root, work.root / "lorakiln", work.folder):
        place.chmod(0o755)

    def knock() -> int:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(30)
        try:
            link.connect(str(path))
        except PermissionError:
            return 77
        answer = b""
        try:
            with contextlib.suppress(BrokenPipeError):  # it refused before it was said hello to
                link.sendall(json.dumps({"kind": "hello"} | Hello().to_message()).encode() + b"\n")
            while part := link.recv(65_536):
                answer += part
        except ConnectionResetError:  # our hello was not read any more
            pass
        sys.stdout.write(answer.decode())
        return 0

    code, _ = as_nobody(work, knock)
    assert code == 77  # the folder of the sockets is closed to others
    path.parent.chmod(0o755)
    path.chmod(0o666)
    code, words = as_nobody(work, knock)  # and a socket laid open all the same takes no orders
    assert code == 0 and "belongs to another user" in words and "attached" not in words
    goes_on(work)
    leave(child)


def test_another_user_who_wants_to_attach_is_told_whose_workstation_it_is(work: Work) -> None:
    leave(training(work))
    for place in (work.root, work.folder):
        place.chmod(0o755)

    def attach() -> int:
        from tui import launch
        from tui.__main__ import main

        launch.lacking = lambda: None  # type: ignore[assignment] - it has no terminal, and needs none to be refused
        return main(["attach", str(work.folder)])

    code, words = as_nobody(work, attach)
    assert code == 2, words
    assert "another user's workstation" in words and pwd.getpwuid(os.geteuid()).pw_name in words
    goes_on(work)


_OLD = "import tui.version\ntui.version.VERSION = '0.0.1'\n"


def test_after_an_upgrade_the_old_host_goes_on_and_can_be_ended(work: Work, tmp_path: Path) -> None:
    old = work.program("-c", _OLD + _CLIENT, json.dumps(work.fake_order(STEP_S)), environment=_old_host(tmp_path))
    old.until(b"TRAINING")
    leave(old)
    new = work.attach()
    assert new.wait() == 2
    assert has_echo(new) and b"1049h" not in new.seen
    host = work.host()
    assert b"Another version" in new.seen and b"0.0.1" in new.seen and f"kill {host}".encode() in new.seen
    goes_on(work)
    # What the text says works: the run is saved, and `kiln` opens.
    os.kill(host, signal.SIGTERM)
    wait_until(lambda: not work.host_is_alive())
    assert '"reason": "stopped"' in work.events()
    again = work.attach()
    again.until(b"NOTHING TO TRAIN")
    leave(again)


_CLIENT = (
    "import json, sys\nfrom tui.__main__ import _tell_errors\nfrom tui.terminal.attach import attach\n"
    "sys.exit(_tell_errors(lambda: attach(json.loads(sys.argv[1]), entry='old_host')))"
)


def _old_host(folder: Path) -> dict[str, str]:
    """The environment in which a host of an earlier version can be started."""
    (folder / "old_host.py").write_text(
        _OLD + "import sys\nimport fake_host\nsys.exit(fake_host.main(make_run=fake_host.make_run))\n"
    )
    here = Path(__file__).resolve().parents[2]
    paths = (here, here / "tests", here / "tests/tui", here / "tests/pty", folder)
    return {"PYTHONPATH": os.pathsep.join(map(str, paths))}

"""What may go wrong between a client and its host: no answer, a client lost too early, orders that cannot be done."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from children import ROOT, Child, Work, has_echo, wait_until

from engine.files import RunFolder
from tui.last_words import away_words, end_state, run_words
from tui.terminal import orders
from tui.terminal.host import Host
from tui.terminal.host_log import open_log
from tui.terminal.place import Claim, claim
from tui.terminal.traits import Traits
from tui.terminal.wire import RUN_ENVIRONMENT, Channel, Hello, picked
from tui.workplace import Workplace

pytestmark = pytest.mark.pty


def left(work: Work) -> Child:
    """A client that left an idle host behind."""
    child = work.attach()
    child.until(b"1 Dataset")
    child.press("\x1c")
    assert child.wait() == 0
    return child


@pytest.fixture
def terminal() -> Iterator[int]:
    """A terminal that nobody reads."""
    master, slave = pty.openpty()
    yield slave
    for fd in (master, slave):
        os.close(fd)


def call(work: Work, terminal: int, then: str = "") -> Channel:
    """A client that brings a terminal and an order, and says one thing more."""
    (path,) = (work.root / "lorakiln/hosts").glob("*.sock")
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(str(path))
    channel = Channel(link)
    hello = Hello(
        order=work.fake_order(),
        traits=Traits().to_dict(),
        environment={"TERM": "xterm-256color"},
        run_environment=picked(os.environ, RUN_ENVIRONMENT),
    )
    channel.send_with("hello", hello.to_message(), [terminal, terminal])
    if then:
        channel.send(then)
    return channel


def test_a_host_that_does_not_answer_can_be_left(work: Work) -> None:
    left(work)
    os.kill(work.host(), signal.SIGSTOP)
    child = work.attach()
    child.until(b"does not answer yet")
    assert str(work.host()).encode() in child.seen
    child.press("\x03")
    assert child.wait() == 130
    assert has_echo(child)
    os.kill(work.host(), signal.SIGCONT)


def test_a_run_whose_client_was_lost_before_the_first_frame_begins(work: Work, terminal: int) -> None:
    left(work)
    call(work, terminal).close()
    wait_until(lambda: work.runs.exists() and "StepDone" in work.events())
    again = work.attach()
    again.until(b"TRAINING")


def test_a_run_that_is_called_off_before_the_first_frame_does_not_begin(work: Work, terminal: int) -> None:
    left(work)
    channel = call(work, terminal, then="cancel")
    while (message := channel.receive(30)) is not None and message["kind"] != "end":
        pass
    assert message is not None and "goes on" not in message["text"]
    channel.close()
    assert not work.runs.exists()


def test_an_order_that_breaks_the_host_is_refused_and_the_host_lives(work: Work) -> None:
    first = left(work)
    second = work.attach(work.fake_order() | {"step_s": "no number"})
    assert second.wait() == 2
    assert b"could not do this" in second.seen and has_echo(second)
    assert "Traceback" in work.log()
    third = work.attach(work.fake_order())
    third.until(b"TRAINING")
    assert not first.pid


def test_an_order_for_other_devices_is_refused(work: Work) -> None:
    left(work)
    other = {"CUDA_VISIBLE_DEVICES": "7"}
    child = work.attach(work.fake_order(), environment=other)
    assert child.wait() == 2
    assert b"another environment" in child.seen and b"CUDA_VISIBLE_DEVICES: not set there, 7 here" in child.seen
    viewer = work.attach(environment=other)
    viewer.until(b"1 Dataset")  # to look is no order


def test_a_signal_may_come_while_the_workplace_is_made(claimed: Claim, tmp_path: Path) -> None:
    depth: list[int] = []

    def make() -> Workplace:
        depth.append(1)
        if len(depth) == 1:
            host.end(143)  # as the handler does
        return Workplace(tmp_path)

    host = Host(make, claimed)
    thread = threading.Thread(target=lambda: host.workplace, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive() and host.leaving
    host.close()


@pytest.fixture
def claimed(work: Work, monkeypatch: pytest.MonkeyPatch) -> Claim:
    """The right to be the host of a work folder."""
    for name, value in work.environment.items():
        monkeypatch.setenv(name, value)
    return claim(work.folder)


def test_the_log_is_a_file_and_stays_small(work: Work, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        open_log(tmp_path / "pipe")
    (work.folder / ".kiln").mkdir()
    path = work.folder / ".kiln/host.log"
    code = (
        "import sys\nfrom pathlib import Path\nfrom tui.terminal.host_log import LARGEST_LOG, keep_small\n"
        "print('x' * (LARGEST_LOG + 1), file=sys.stderr)\nkeep_small(Path(sys.argv[1]))\n"
        "print('new', file=sys.stderr)\n"
    )
    with open(path, "wb") as log:
        command = [sys.executable, "-c", code, str(work.folder)]
        subprocess.run(command, stdout=log, stderr=log, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert path.read_text() == "new\n" and path.with_suffix(".old").read_text().startswith("xxx")


def test_last_words_of_a_run_whose_folder_was_taken_away(tmp_path: Path) -> None:
    run = SimpleNamespace(folder=RunFolder(tmp_path), alive=False)
    RunFolder(tmp_path).events.mkdir()  # cannot be read, whoever reads
    place = SimpleNamespace(run=None, bridge=None)
    assert run_words(run) == ""  # type: ignore[arg-type]
    assert end_state(place, run) == "failed"  # type: ignore[arg-type]


def test_a_run_that_did_not_begin_does_not_go_on(tmp_path: Path) -> None:
    place = SimpleNamespace(run=None, view=SimpleNamespace(name="glorb"), pending=object(), folder=tmp_path)
    assert "The run glorb begins on another terminal" in away_words(place, "replaced")  # type: ignore[arg-type]


def test_only_a_new_runs_configuration_is_that_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    assert orders.config_file(orders.train(file)) == file
    assert orders.config_file(orders.train(file, resume=True)) is None
    assert orders.config_file(orders.resume(tmp_path)) is None and orders.config_file({}) is None

"""What a host does with callers that are none: nothing, and it goes on."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from children import Work, wait_until

from tui.terminal import caller, probe
from tui.terminal.host import MOST_HEARD, Host
from tui.terminal.place import claim
from tui.terminal.wire import MOST_BYTES, MOST_TEXT, Channel, Hello, Malformed, hello_from
from tui.version import VERSION
from tui.workplace import Workplace

pytestmark = pytest.mark.pty


def hello(**changes: object) -> bytes:
    """A hello line, as a client sends it but for ``changes``."""
    message = {"kind": "hello"} | Hello().to_message() | changes
    return json.dumps(message).encode() + b"\n"


def no_terminals() -> list[int]:
    """Two descriptors that are no terminal."""
    return [os.open(os.devnull, os.O_RDWR) for _ in range(2)]


def many() -> list[int]:
    """More descriptors than wanted."""
    return [os.open(os.devnull, os.O_RDWR) for _ in range(20)]


def open_files(work: Work) -> int:
    """How many descriptors the host has."""
    return len(os.listdir(f"/proc/{work.host()}/fd"))


CALLS: dict[str, tuple[bytes, Callable[[], list[int]] | None]] = {
    "nothing": (b"", None),
    "noise": (b"\x00\xff\x1b[2J\n", None),
    "no-object": (b"[1]\n", None),
    "no-kind": (b"{}\n", None),
    "deep": (b"[" * 60_000 + b"\n", None),
    "endless": (b"x" * (2 * MOST_BYTES), None),
    "no-fields": (b'{"kind": "hello", "release": "' + VERSION.encode() + b'"}\n', None),
    "no-terminals": (hello(), None),
    "files": (hello(), no_terminals),
    "many": (hello(), many),
    "wrong-types": (hello(typed=7, order=[], environment="x"), None),
    "long-value": (hello(environment={"TERM": "x" * 5000}), None),
    "nul": (hello(environment={"TERM": "x\0y"}), None),
    "half": (hello()[:40], None),
}


def test_malformed_callers_do_no_harm(work: Work) -> None:
    child = work.attach(work.fake_order())
    child.until(b"TRAINING")
    (path,) = (work.root / "lorakiln/hosts").glob("*.sock")
    fds = open_files(work)
    for data, make in CALLS.values():
        descriptors = make() if make is not None else []
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.connect(str(path))
        try:
            if descriptors:
                socket.send_fds(link, [data], descriptors)
            else:
                link.sendall(data)
        except OSError:  # it hung up already
            pass
        link.close()
        for fd in descriptors:
            os.close(fd)
    with Caller(path) as stranger:  # each was answered, and nothing of it is left
        stranger.send(b"?\n")
        assert stranger.rest() == b""
    # A few come and go with threads that read files; the callers above brought thirty.
    wait_until(lambda: open_files(work) <= fds + 4)
    before = work.step()
    child.wait_for(lambda: work.step() > before)
    child.press("\x1c")
    assert child.wait() == 0


def test_another_version_is_told_how_to_end_this_host(work: Work) -> None:
    child = work.attach()
    child.until(b"1 Dataset")
    (path,) = (work.root / "lorakiln/hosts").glob("*.sock")
    with Caller(path) as stranger:
        stranger.send(hello(release="99.0"))
        told = stranger.rest().decode()
    assert "Another version" in told and f"kill {work.host()}" in told and "99.0" in told


def test_the_socket_is_for_its_user_only(work: Work) -> None:
    child = work.attach()
    child.until(b"1 Dataset")
    hosts = work.root / "lorakiln/hosts"
    (path,) = hosts.glob("*.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(hosts.stat().st_mode) == 0o700
    assert stat.S_IMODE((work.folder / ".kiln").stat().st_mode) == 0o700
    assert stat.S_IMODE((work.folder / ".kiln/host.log").stat().st_mode) == 0o600


def test_a_host_has_no_terminal_and_leads_its_session(work: Work) -> None:
    child = work.attach()
    child.until(b"1 Dataset")
    pid = work.host()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[3]) == pid  # session
    assert fields[4] == "0"  # controlling terminal
    assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():  # a child that outlives the host must not hold the folder
        flags = info.read_text().partition("flags:")[2].split()[0]
        assert int(info.name) <= 2 or int(flags, 8) & os.O_CLOEXEC


class Caller:
    """Somebody who speaks to a host's socket by hand."""

    def __init__(self, path: Path) -> None:
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(30)
        self._link.connect(str(path))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def send(self, data: bytes) -> None:
        """Say something."""
        self._link.sendall(data)

    def rest(self) -> bytes:
        """All that is answered until it hangs up."""
        data = b""
        while part := self._link.recv(65_536):
            data += part
        return data


def heard() -> int:
    """How many callers are being heard in this process."""
    return sum(thread.name == "hello" for thread in threading.enumerate())


@pytest.mark.timeout(120)
def test_who_is_slow_to_say_hello_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(caller, "HELLO_S", 600.0)  # whoever is held up is so for longer than the test
    claimed = claim(tmp_path)
    host = Host(lambda: Workplace(tmp_path), claimed)
    path = claimed.place.socket
    before = len(os.listdir("/proc/self/fd"))
    slow = []
    for count in range(1, MOST_HEARD):
        slow.append(Caller(path))
        slow[-1].send(b"{")  # one byte, and the next some time
        wait_until(lambda count=count: heard() == count)
    for _ in range(3):
        with Caller(path) as quick:
            quick.send(hello(release="99.0"))
            assert "Another version" in quick.rest().decode()
    for each in slow:
        each.__exit__()
    # All are gone, and none left a descriptor.
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    host.close()


def test_a_conversation_is_bounded_and_checked() -> None:
    ours, theirs = socket.socketpair()
    channel, other = Channel(ours), Channel(theirs)
    assert channel.receive(0) is None
    assert other.send("resize") and other.send("end", code=3, text="é\x1b")
    assert channel.receive() == {"kind": "resize"}
    assert channel.receive() == {"kind": "end", "code": 3, "text": "é\x1b"}
    theirs.sendall(b"{}\n")
    with pytest.raises(Malformed):
        channel.receive()
    flood = threading.Thread(target=theirs.sendall, args=(b"x" * (MOST_BYTES + 1),))
    flood.start()
    with pytest.raises(Malformed):
        channel.receive()
    flood.join()
    channel.close()
    with pytest.raises(EOFError):
        other.receive()
    wait_until(lambda: not other.send("resize"))
    other.close()


def test_the_longest_text_is_heard_whatever_is_in_it() -> None:
    channel, other = map(Channel, socket.socketpair())
    text = "\U0001f525" * MOST_TEXT
    sender = threading.Thread(target=other.send, args=("released",), kwargs={"text": text})
    sender.start()
    assert channel.receive() == {"kind": "released", "text": text}
    sender.join()
    typed = json.dumps(Hello(typed=b"\xff" * probe.MOST_BYTES).to_message())
    assert len(typed) < MOST_BYTES / 2
    channel.close()
    other.close()


def test_a_hello_is_taken_as_it_was_sent() -> None:
    sent = Hello(
        order={"command": "train", "file": "a b.toml", "resume": True}, traits={"columns": 80},
        environment={"TERM": "xterm", "EVIL": "1"}, typed=b"\x00\xffj", settings=[1], answered=False,
    )  # fmt: skip
    got = hello_from(json.loads(json.dumps(sent.to_message())))
    assert got.typed == sent.typed and got.order == sent.order and not got.answered
    assert got.environment == {"TERM": "xterm"}  # what else a client has in its environment is its own

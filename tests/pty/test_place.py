"""Where hosts are found: private, one a folder, and known for dead when they are."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tui.terminal import place
from tui.terminal.place import HostInfo, Taken, claim, connect, hosts, places_of, read_info, write_info


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder and a folder for temporary files of the test's own, with short paths."""
    root = Path(os.path.realpath(tmp_path_factory.mktemp("s")))
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
    monkeypatch.setenv("TMPDIR", str(root))
    return root


def test_one_host_a_folder(tmp_path: Path) -> None:
    assert connect(tmp_path) is None
    first = claim(tmp_path)
    with pytest.raises(Taken):
        claim(tmp_path)
    (tmp_path / "other").mkdir()
    claim(tmp_path / "other").end()
    link = connect(tmp_path)
    assert link is not None
    link.close()
    first.end()
    assert connect(tmp_path) is None
    claim(tmp_path).end()


def test_a_folder_is_the_same_by_every_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert places_of(tmp_path / "real") == places_of(tmp_path / "link")
    assert places_of(tmp_path / "real") != places_of(tmp_path)


def test_a_socket_that_a_killed_host_left_is_replaced(tmp_path: Path) -> None:
    left = claim(tmp_path)
    write_info(left.place, HostInfo(1, "/x", "1", 0.0))
    left.close()  # as the kernel does
    assert left.place.socket.exists() and connect(tmp_path) is None and not list(hosts())
    again = claim(tmp_path)
    assert read_info(again.place) is None
    again.end()


def test_hosts_are_listed_while_they_live(tmp_path: Path) -> None:
    held = claim(tmp_path)
    info = HostInfo(os.getpid(), str(tmp_path), "1.0", 12.5, "/runs/cat")
    write_info(held.place, info)
    assert list(hosts()) == [info]
    held.end()
    assert not list(hosts())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"pid": "1"}', '{"pid": 1, "folder": 2, "version": "", "started": 1.0, "run": ""}', "[" * 9999],
    ids=["empty", "list", "nothing", "pid", "folder", "deep"],
)
def test_a_note_that_is_none_is_passed_over(tmp_path: Path, text: str) -> None:
    held = claim(tmp_path)
    held.place.info.write_text(text)
    assert read_info(held.place) is None and not list(hosts())
    held.end()


def test_a_long_path_gives_way_to_a_short_one(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(state / ("x" * 120)))
    held = claim(tmp_path)
    assert held.place.stem.parent == state / f"lorakiln-{os.geteuid()}" / "hosts"
    assert connect(tmp_path) is not None
    held.end()


def test_a_folder_that_others_may_enter_is_not_trusted(tmp_path: Path, state: Path) -> None:
    first, second = (candidate.stem.parent for candidate in places_of(tmp_path))
    first.mkdir(parents=True)
    first.chmod(0o777)
    held = claim(tmp_path)
    assert held.place.stem.parent == second
    trap = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    trap.bind(str(places_of(tmp_path)[0].socket))
    trap.listen()
    link = connect(tmp_path)
    assert link is not None and link.getpeername() == str(held.place.socket)
    link.close()
    held.end()
    second.chmod(0o755)
    with pytest.raises(PermissionError):
        claim(tmp_path)
    trap.close()


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path, state: Path) -> None:
    first = places_of(tmp_path)[0].stem.parent
    first.parent.mkdir(parents=True)
    (state / "elsewhere").mkdir(mode=0o700)
    first.symlink_to(state / "elsewhere")
    held = claim(tmp_path)
    assert held.place.stem.parent != first
    held.end()


def test_strangers_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    assert place.peer_is_us(ours)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not place.peer_is_us(ours)
    ours.close()
    theirs.close()

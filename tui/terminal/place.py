"""Where the host of a work folder is found: a socket, a lock that says who may be host, and a note about it.

They lie in the user's state folder, which outlives logins (``$XDG_RUNTIME_DIR`` does not), or in a folder of the
user's own among the temporary files where that path is too long for a socket or takes none. Only the user may enter
either. The lock is held by the process that listens, for its whole life, so a socket that a killed host left behind
is known for what it is, and two `kiln` at once start one host.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from engine.sealed import sealed, unsealed

LONGEST_SOCKET = 100
"""Bytes of a socket's path that every system takes."""

MOST_INFO = 16_384
"""Bytes of a note that are read."""

_BACKLOG = 8


@dataclass(frozen=True)
class Place:
    """The files of one work folder's host: a common stem, three endings."""

    stem: Path

    @property
    def socket(self) -> Path:
        """Where the host listens."""
        return self.stem.with_suffix(".sock")

    @property
    def lock(self) -> Path:
        """Held (flock) by the process that listens; never removed."""
        return self.stem.with_suffix(".lock")

    @property
    def info(self) -> Path:
        """What the host says of itself, as JSON."""
        return self.stem.with_suffix(".json")


@dataclass(frozen=True)
class HostInfo:
    """What a host says of itself, for those it does not serve."""

    pid: int
    folder: str
    version: str
    started: float
    run: str = ""
    """Folder of the run that it trains; empty when none is live."""


@dataclass
class Claim:
    """The right to be a folder's host: the lock and the socket, both to be inherited by the host's process."""

    folder: Path
    place: Place
    lock: int
    listener: socket.socket

    def close(self) -> None:
        """Let go of both; the files stay."""
        self.listener.close()
        os.close(self.lock)

    def end(self) -> None:
        """Take the socket and the note away, as the host's last act."""
        for path in (self.place.socket, self.place.info):
            with contextlib.suppress(OSError):
                path.unlink()
        self.close()


class Taken(Exception):
    """Another process holds the lock: it is the folder's host, starts, or ends."""


def places_of(folder: Path) -> list[Place]:
    """Where the host of ``folder`` may be, likeliest first."""
    # A home on a network is the same on every machine; processes are not.
    name = f"{socket.gethostname()}\0{os.path.realpath(folder)}"
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    places = [Place(parent / digest) for parent in _parents()]
    return [place for place in places if len(os.fsencode(place.socket)) <= LONGEST_SOCKET] or places[-1:]


def connect(folder: Path) -> socket.socket | None:
    """A connection to the host of ``folder``; None when nobody listens."""
    for place in places_of(folder):
        if not _is_private(place.stem.parent):
            continue
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(str(place.socket))
        except OSError:
            link.close()
            continue
        if peer_is_us(link):
            return link
        link.close()
    return None


def claim(folder: Path) -> Claim:
    """Become the host of ``folder``: take the lock and listen.

    Raises:
        Taken: another process is.
        OSError: no place takes a socket.
    """
    failure: OSError = FileNotFoundError("no place for a socket")
    for place in places_of(folder):
        try:
            _make_private(place.stem.parent)
            return _claim_at(folder.absolute(), place)
        except OSError as err:
            failure = err
    raise failure


def peer_is_us(link: socket.socket) -> bool:
    """Whether the other end belongs to our user; believed where the system does not tell: the folder is private."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == os.geteuid())


def other_owner(folder: Path) -> str:
    """The user whose workstation ``folder`` is, if that is not ours; empty otherwise."""
    try:
        uid = (folder / ".kiln").lstat().st_uid
    except OSError:
        return ""
    if uid == os.geteuid():
        return ""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def write_info(place: Place, info: HostInfo) -> None:
    """Write the note, whole or not at all; failing to is no harm."""
    part = place.info.with_suffix(".part")
    with contextlib.suppress(OSError):
        part.write_text(sealed(json.dumps(asdict(info))), encoding="utf-8")
        os.replace(part, place.info)


def read_info(place: Place) -> HostInfo | None:
    """The note that a host left at ``place``, whether or not it still lives."""
    try:
        with open(place.info, "rb") as file:
            table = unsealed(file.read(MOST_INFO))
    except (OSError, ValueError):
        return None
    return _info(table)


def hosts() -> Iterator[HostInfo]:
    """Every host of this user that lives on this machine."""
    from engine.files import is_held  # not what attaching waits for

    for parent in _parents():
        if _is_private(parent):
            for path in sorted(parent.glob("*.json")):
                place = Place(path.with_suffix(""))
                info = read_info(place)
                if info is not None and is_held(place.lock):
                    yield info


def _parents() -> list[Path]:
    return [
        Path(platformdirs.user_state_dir("lorakiln")) / "hosts",
        Path(os.environ.get("TMPDIR") or "/tmp") / f"lorakiln-{os.geteuid()}" / "hosts",
    ]


def _claim_at(folder: Path, place: Place) -> Claim:
    lock = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        os.close(lock)
        raise Taken from err
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        for path in (place.socket, place.info):
            path.unlink(missing_ok=True)
        former = os.umask(0o177)
        try:
            listener.bind(str(place.socket))
        finally:
            os.umask(former)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        os.close(lock)
        raise
    return Claim(folder, place, lock, listener)


def _make_private(folder: Path) -> None:
    """Make ``folder``, for our user only.

    Raises:
        OSError: it cannot be made, or it is somebody else's.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(folder):
        raise PermissionError(f"{folder} is not ours alone")


def _is_private(folder: Path) -> bool:
    """Whether ``folder`` is a folder of ours that nobody else may enter."""
    try:
        told = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(told.st_mode) and told.st_uid == os.geteuid() and not told.st_mode & 0o077


def _info(table: Any) -> HostInfo | None:
    if not isinstance(table, dict):
        return None
    kinds = {"pid": int, "folder": str, "version": str, "started": float, "run": str}
    values = {key: table.get(key) for key in kinds}
    if not all(type(values[key]) is kind for key, kind in kinds.items()):
        return None
    return HostInfo(**values)  # type: ignore[arg-type]

"""Two at once: who may train in a run's folder, who may write in a dataset's folder, and how the other is named.

All locks are ``flock``: the system lets go of them when their holder dies, however it dies. A run's lock is a file
that says who holds it; a folder of the user's own is locked itself, so that nothing of ours appears in it. A forked
child would keep its parent's locks beyond the parent's death, so it closes them first thing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from engine.errors import DatasetError, EngineError, RunError
from engine.files import RunFolder, disk_error, open_to_read
from engine.sealed import sealed, unsealed
from engine.text import safe_text

HOLDER_PATIENCE_S = 0.3
"""How long a run that another process trains is asked for again: one that was just killed may still be ending."""

READER_PATIENCE_S = 10.0
"""How long those who only look whether a run is trained are waited for; a look takes microseconds."""

FOLDER_PATIENCE_S = 5.0
"""How long a dataset's folder is waited for: it is held for one write of a small file."""

UNNAMED = "that did not name itself"
_MOST_BYTES = 4096
_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What file systems answer that cannot lock a folder."""

_held: set[int] = set()


def _close_inherited() -> None:
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_inherited)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as it said itself when it took it.

    Attributes:
        pid: its number on ``host``; 0 where it did not name itself.
        command: the program and its first arguments.
        since: when it took the lock, in Unix seconds.
        user, host: whose and where.
        boot: of the machine's start; a number counts within one only.
        started: of the process, in the system's clock ticks since the machine's start.
    """

    pid: int
    command: str = ""
    since: float = 0.0
    user: str = ""
    host: str = ""
    boot: str = ""
    started: int = 0

    def __str__(self) -> str:
        """In words that are safe to show, to go on with after "the process"."""
        if not self.pid:
            return UNNAMED
        parts = [f"`{safe_text(self.command, 80)}`"] if self.command else []
        if self.since > 0:
            parts.append(time.strftime("since %Y-%m-%d %H:%M", time.localtime(self.since)))
        if self.user and self.user != _user():
            parts.append(f"of {safe_text(self.user, 40)}")
        if self.host and self.host != os.uname().nodename:
            parts.append(f"on {safe_text(self.host, 80)}")
        return f"{self.pid}" + (f" ({', '.join(parts)})" if parts else "")

    def lives(self) -> bool:
        """Whether it still runs, as far as can be told: another machine's process is believed to."""
        if self.host and self.host != os.uname().nodename:
            return True
        if self.boot and self.boot != _boot():
            return False
        started = _started(self.pid)
        return started is not None and (not self.started or started == self.started)


def myself() -> Holder:
    """This process."""
    name = os.path.basename(sys.argv[0]).replace("__main__.py", "kiln")
    command = " ".join([name, *sys.argv[1:]])[:200]
    started = _started(os.getpid()) or 0
    return Holder(os.getpid(), command, round(time.time(), 1), _user(), os.uname().nodename, _boot(), started)


def holder_in(lock: Path) -> Holder:
    """Who a lock's file says holds it, whether or not anybody does; unnamed where nothing in it can be read."""
    try:
        with open_to_read(lock) as file:
            data = file.read(_MOST_BYTES)
    except OSError:
        return Holder(0)
    try:
        table = unsealed(data)
    except ValueError:
        return Holder(0)
    if type(table) is int and table > 0:  # a bare number, as earlier versions wrote
        return Holder(table)
    return _holder(table) if isinstance(table, dict) else Holder(0)


def in_words(lock: Path) -> str:
    """Who keeps ``lock`` now, to go on with after "the process"; where its taker is dead, who inherited it."""
    holder = holder_in(lock)
    if holder.pid and holder.lives():
        return str(holder)
    others = [pid for pid in open_in(lock) if pid != os.getpid()]
    if others and holder.pid:
        return f"{others[0]}, left behind by the process {holder.pid}, which is dead"
    if holder.pid:
        return f"{holder.pid}, which is dead, or rather a child of it that cannot be seen from here"
    return str(others[0]) if others else UNNAMED


@contextlib.contextmanager
def lock_folder(folder: RunFolder) -> Iterator[None]:
    """Hold the run's lock, so that no second process trains in the same folder.

    Raises:
        RunError: another process holds it, named; or the folder's parts lead out of it.
        DiskError: the lock file cannot be made.
    """
    folder.refuse_links()
    try:
        file = open(folder.lock, "a+", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as err:
        raise disk_error(err, folder.lock) from err
    with file, _known(file.fileno()):
        _take(file, folder.lock)
        try:
            file.truncate(0)
            file.write(sealed(json.dumps(asdict(myself()))) + "\n")
            file.flush()
        except OSError as err:
            raise disk_error(err, folder.lock) from err
        yield


def _take(file: IO[str], path: Path) -> None:
    """Lock ``file``; who only looks at it is waited for, who trains is not."""
    begin = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as err:
            shared = _shared(file)
            if time.monotonic() - begin >= (READER_PATIENCE_S if shared else HOLDER_PATIENCE_S):
                hint = "Wait for it, or stop it."
                raise RunError("This run is being trained already", f"by the process {in_words(path)}", hint) from err
        time.sleep(0.02)


def _shared(file: IO[str]) -> bool:
    """Whether those who hold ``file`` only look at it: then it can be looked at too."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other lorakilns from writing in a dataset's ``folder`` meanwhile; for one short write.

    The folder itself is locked. A file system that cannot do that (some on a network) is written without.

    Raises:
        DatasetError: another process has been writing there for longer than a write takes, named.
        DiskError: the folder cannot be opened.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise disk_error(err, folder) from err
    try:
        with _known(fd):
            _wait_for(fd, folder)
            yield
    finally:
        os.close(fd)


def _wait_for(fd: int, folder: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        if err.errno in _NO_LOCKS:
            return
        # Asking again and again would starve beside one that writes many files: the system wakes who waits in it.
        taken = threading.Event()
        threading.Thread(target=_wait_in_system, args=(os.dup(fd), taken), daemon=True).start()
        if not taken.wait(FOLDER_PATIENCE_S):
            raise _busy(folder) from err


def _wait_in_system(fd: int, taken: threading.Event) -> None:
    """Lock and close ``fd``: its original keeps the lock, and where that was given up the lock goes with this one."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        taken.set()
    finally:
        os.close(fd)


def _busy(folder: Path) -> EngineError:
    others = [pid for pid in open_in(folder) if pid != os.getpid()]
    who = f"the process {others[0]} ({safe_text(_command(others[0]), 80)})" if others else "another process"
    return DatasetError(
        "Another lorakiln is writing in the dataset's folder",
        f"{safe_text(folder, 400)} is held by {who}; nothing was written",
        "Save again in a moment.",
    )


@contextlib.contextmanager
def _known(fd: int) -> Iterator[None]:
    """Have a forked child close ``fd``."""
    _held.add(fd)
    try:
        yield
    finally:
        _held.discard(fd)


def open_in(path: Path) -> list[int]:
    """Processes that have ``path`` open, as far as this user may see."""
    try:
        wanted = os.stat(path)
    except OSError:
        return []
    found = []
    for name in _listed("/proc"):
        if name.isdigit() and any(
            _is_same(f"/proc/{name}/fd/{number}", wanted) for number in _listed(f"/proc/{name}/fd")
        ):
            found.append(int(name))
    return sorted(found)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_same(link: str, wanted: os.stat_result) -> bool:
    try:
        found = os.stat(link)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)


def _holder(table: dict[str, Any]) -> Holder:
    kinds: dict[str, tuple[type, ...]] = {
        "pid": (int,), "command": (str,), "since": (float, int), "user": (str,), "host": (str,), "boot": (str,),
        "started": (int,),
    }  # fmt: skip
    values = {name: table.get(name) for name in kinds}
    if not all(isinstance(values[name], kind) for name, kind in kinds.items()):
        return Holder(0)
    return Holder(**values)  # type: ignore[arg-type]


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine's start; None where there is none of that number."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name may hold spaces and brackets: what follows its last one is counted.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, ValueError):
        return ""


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(400).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in some containers
        return str(os.geteuid())

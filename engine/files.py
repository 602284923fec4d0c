"""Everything durable goes through here: atomic writes, names that cannot escape, the layout of a run's folder.

A file is written beside its target under a short random name, flushed to the disk, renamed over the target, and
the folder is flushed too; so a reader sees the old file or the new one, whatever happens in between. No file that
may be mapped is ever changed in place. Who writes holds its temporary file (flock), so what a kill left is known
and cleared up by the next process that writes there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import platformdirs

from engine.errors import DiskError, DiskFull, RunError
from engine.leftovers import clear_up_once, held, held_folder, move_to_free
from engine.text import safe_text

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

_TOLD = re.compile(
    r"os error (\d+)|(No space left on device|Disk quota exceeded|File too large|Read-only file system|"
    r"Permission denied|Input/output error)"
)
"""How libraries that hide errno write it."""

_NAMED = {
    os.strerror(code): code
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
}

SMALLEST_FREE = 2**20
"""Bytes free below which a write that failed without a reason failed for want of room."""


def is_disk_error(err: BaseException) -> bool:
    """Whether ``err`` is the system's refusal to read or write, in whatever type a library clothes it."""
    if isinstance(err, OSError) or type(err).__name__ == "SafetensorError":
        return True
    return isinstance(err, RuntimeError) and _TOLD.search(str(err)) is not None


def disk_error(err: BaseException, path: Path) -> DiskError:
    """Explain a failed write to ``path``; libraries that hide errno are recognised by their text."""
    code, free = _code(err), free_bytes(path)
    text = safe_text(os.strerror(code) if code else str(err), 500)
    where = safe_text(path)
    if code in _FULL or (not code and 0 <= free < SMALLEST_FREE):
        room = f"{free // 2**20} MB are free there" if free >= 0 else "how much is free there cannot be read"
        if code in (errno.EDQUOT, errno.EFBIG):
            room = f"{text}: what you may use there is used up"
        return DiskFull(
            "The disk is full",
            f"writing {where} failed; {room}",
            "Free some space; what stood there before is unharmed.",
        )
    if code in _READ_ONLY:
        return DiskError(
            "The folder cannot be written",
            f"writing {where} failed: {text}",
            "Choose a folder of your own (runs_dir, cache_dir) or change its permissions.",
        )
    if code == errno.EIO:
        hint = "Look at the system's log (dmesg), and move the folder to another disk; what stood there is unharmed."
        return DiskError("The disk fails", f"writing {where} failed: {text}", hint)
    hint = "Put the folder back or mount its disk again." if code in (errno.ENOENT, errno.ESTALE) else ""
    return DiskError("A file could not be written", f"writing {where} failed: {text}", hint)


def _code(err: BaseException) -> int:
    """The system's number for what went wrong; 0 where neither type nor text tells."""
    code = getattr(err, "errno", None)
    found = _TOLD.search(str(err)) if code is None else None
    if found is None:
        return code or 0
    return int(found[1]) if found[1] else _NAMED.get(found[2], 0)


def free_bytes(path: Path) -> int:
    """Bytes that a user may still write where ``path`` is or would be; -1 where that cannot be read."""
    folder = path if path.is_dir() else path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        disk = os.statvfs(folder)
    except OSError:
        return -1
    return disk.f_bavail * disk.f_frsize


@contextlib.contextmanager
def atomic_path(target: Path, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it replaces the target durably, else it is removed.

    The result has the permissions ``mode``, or those of an ordinary new file (0666 less the umask), whatever wrote
    it. The temporary file stands there already, empty.

    Raises:
        DiskError: the write, flush or rename failed. The target is as it was.
    """
    temp = target.parent / f".{secrets.token_hex(6)}.part"
    try:
        _make_folder(target.parent)
        clear_up_once(target.parent)
        with held(temp):
            yield temp
            flush(temp)
            os.chmod(temp, 0o666 & ~_umask() if mode is None else mode)
            os.replace(temp, target)
        flush(target.parent)
    except BaseException as err:
        # What stopped the write may stop the clean-up too; the first error is the one to tell.
        with contextlib.suppress(OSError):
            temp.unlink()
        if is_disk_error(err):
            raise disk_error(err, target) from err
        raise


def atomic_write(target: Path, data: bytes | str) -> None:
    """Write ``data`` to ``target``: wholly or not at all.

    Raises:
        DiskError: nothing was changed.
    """
    with atomic_path(target) as temp:
        temp.write_bytes(data.encode() if isinstance(data, str) else data)


def flush(path: Path) -> None:
    """Wait until a file's or folder's contents are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_to_read(path: Path) -> IO[bytes]:
    """Open a regular file: in a folder that somebody sent, a pipe of that name would hold the reader for ever.

    Raises:
        FileNotFoundError: there is none, or no regular one.
        OSError: it may not be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "no regular file", str(path))


def opened_here(path: str, flags: int) -> int:
    """An ``opener`` for :func:`open` that follows no link and waits for no pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it; all of it stands on the disk then."""
    try:
        folder.mkdir()
    except FileNotFoundError:
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
    except OSError:
        if folder.is_dir():
            return
        raise
    flush(folder.parent)


def is_held(lock: Path) -> bool:
    """Whether a process holds ``lock`` (flock); looking takes it for an instant."""
    try:
        with open_to_read(lock) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def others_may_write(folder: Path) -> str:
    """Who besides this user may change what lies in ``folder``, in words to go on with; empty where nobody may.

    The system's own user may everywhere, and a group that bears the user's name is the user's alone.
    """
    try:
        found = os.stat(folder)
    except OSError:
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "everybody on this machine may write there (`chmod o-w` ends it)"
    if found.st_uid not in (os.geteuid(), 0):
        return f"it belongs to {_named(pwd.getpwuid, found.st_uid)}"
    group = _named(grp.getgrgid, found.st_gid)
    if found.st_mode & stat.S_IWGRP and found.st_gid != 0 and group != _named(pwd.getpwuid, found.st_uid):
        return f"all of the group {group} may write there (`chmod g-w` ends it)"
    return ""


def _named(look: Callable[[int], tuple[Any, ...]], number: int) -> str:
    """A user's or group's name; its number where it has none."""
    try:
        return safe_text(look(number)[0], 40)
    except KeyError:
        return str(number)


def _umask() -> int:
    # Linux tells the umask without changing it; elsewhere it can only be read by setting it.
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def slug(name: str, fallback: str = "run") -> str:
    """Reduce ``name`` to a safe file name of at most 80 characters: letters, digits, dot, dash, underscore."""
    reduced = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80].rstrip("-._")
    return reduced or fallback


_CODE_PLACES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
_CHOSEN = frozenset(name for name in _CODE_PLACES if name in os.environ)
"""Chosen by the user: looked at before torch is imported, which sets the first one by itself."""


def keep_code_in(folder: Path) -> None:
    """Let code that torch and Triton compile lie under ``folder`` unless the user's environment says where.

    To be called before torch compiles anything, best before transformers is imported: that makes the folder.
    """
    for name, part in _CODE_PLACES.items():
        if name not in _CHOSEN:
            os.environ[name] = str(folder / part)


def is_run_of(name: str, folder: str) -> bool:
    """Whether a run's ``folder`` (its last part) is one that a configuration called ``name`` gets."""
    return re.fullmatch(re.escape(slug(name)) + r"(-\d+)?", folder) is not None


def default_cache_dir() -> Path:
    """Where caches live unless the configuration says otherwise."""
    return Path(platformdirs.user_cache_dir("lorakiln"))


@dataclass(frozen=True)
class RunFolder:
    """The layout of one run on disk, in one place."""

    root: Path

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.root.name

    @property
    def config(self) -> Path:
        """The configuration as run."""
        return self.root / "config.toml"

    @property
    def events(self) -> Path:
        """All events as JSON lines."""
        return self.root / "events.jsonl"

    @property
    def captions(self) -> Path:
        """The captions in force, epoch by epoch."""
        return self.root / "captions.jsonl"

    @property
    def log(self) -> Path:
        """Plain log: what libraries print, tracebacks."""
        return self.root / "log.txt"

    @property
    def samples(self) -> Path:
        """Sample pictures."""
        return self.root / "samples"

    @property
    def states(self) -> Path:
        """Training states, one folder each."""
        return self.root / "state"

    @property
    def records(self) -> Path:
        """What the run was made with, for each time that it changed."""
        return self.root / "records"

    @property
    def products(self) -> Path:
        """Which products of an 8-bit base run in 8 bit."""
        return self.root / "products.json"

    @property
    def memory(self) -> Path:
        """What the out-of-memory ladder changed, and from which step on."""
        return self.root / "memory.json"

    @property
    def faults(self) -> Path:
        """Steps that were not finite, with their batches, and what was done about them, as JSON lines."""
        return self.root / "faults.jsonl"

    @property
    def lock(self) -> Path:
        """Held (flock) by the process that runs it."""
        return self.root / "run.lock"

    def refuse_links(self) -> None:
        """Check that what a run writes to lies in its folder: in one that somebody sent, a link could lead anywhere.

        Raises:
            RunError: a part of the folder is a link, or neither a file nor a folder as it should be.
        """
        for path in (
            self.config, self.events, self.captions, self.log, self.products, self.memory, self.lock, self.samples,
            self.states,
        ):  # fmt: skip
            is_right = stat.S_ISDIR if path in (self.samples, self.states) else stat.S_ISREG
            if os.path.lexists(path) and not is_right(os.lstat(path).st_mode):
                raise RunError(
                    "The run's folder is not as a run leaves it",
                    f"{safe_text(path)} is a link or something else that would be written through",
                    "Put the file or folder itself there. Do not go on with a run from somebody you do not trust.",
                )

    def lora(self, epoch: int, step: int, kind: str, layout: str = "kohya") -> Path:
        """The file of a saved LoRA: by epoch at its end, by step in between, plain at the run's end."""
        of_epoch = f"{self.name}-e{epoch:04d}"
        stems = {"epoch": of_epoch, "candidate": of_epoch, "final": self.name}
        stem = stems.get(kind, f"{self.name}-s{step:06d}")
        suffix = "" if layout == "kohya" else f".{layout}"
        return self.root / f"{stem}{suffix}.safetensors"


def create_run_folder(
    runs_dir: Path, name: str, fill: Callable[[RunFolder], None] = lambda folder: None
) -> RunFolder:
    """Make a new folder for a run; a taken name gets the next free number, so no run overwrites another.

    Args:
        fill: writes what makes it a run, while it still has a hidden name: whoever is killed leaves no shell.

    Raises:
        DiskError: the folder cannot be made.
        RunError: ten thousand runs of that name stand there.
    """
    base = slug(name)
    try:
        _make_folder(runs_dir)
        clear_up_once(runs_dir)
        with held_folder(runs_dir) as temp:
            (temp / "samples").mkdir()
            (temp / "state").mkdir()
            fill(RunFolder(temp))
            flush(temp)
            root = move_to_free(temp, _candidates(runs_dir, base))
        flush(runs_dir)
    except OSError as err:
        raise disk_error(err, runs_dir) from err
    if root is None:
        raise RunError(
            "No free name for the run", f"{runs_dir} holds 10,000 runs called {base}", "Choose a new name."
        )
    return RunFolder(root)


def next_run_folder(runs_dir: Path, name: str) -> Path:
    """The folder that a run begun now would get."""
    base = slug(name)
    return next((root for root in _candidates(runs_dir, base) if not os.path.lexists(root)), runs_dir / base)


def _candidates(runs_dir: Path, base: str) -> Iterator[Path]:
    """Folders for runs called ``base``, in the order in which they are taken."""
    return (runs_dir / (base if number == 1 else f"{base}-{number}") for number in range(1, 10_000))

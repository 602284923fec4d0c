"""Everything durable goes through here: atomic writes, names that cannot escape, the layout of a run's folder.

A file is written beside its target under a short random name, flushed to the disk, renamed over the target, and
the folder is flushed too; so a reader sees the old file or the new one, whatever happens in between. No file that
may be mapped is ever changed in place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from engine.errors import DiskError, RunError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def disk_error(err: BaseException, path: Path) -> DiskError:
    """Explain a failed write to ``path``; libraries that hide errno are recognised by their text."""
    code = getattr(err, "errno", None)
    text = str(err)
    if code in _FULL or "os error 28" in text or "No space left" in text:
        free = _free_mb(path)
        return DiskError(
            "The disk is full",
            f"writing {path} failed; {free} MB are free there",
            "Free some space; what stood there before is unharmed.",
        )
    if code in _READ_ONLY or "os error 13" in text or "os error 30" in text:
        return DiskError(
            "The folder cannot be written",
            f"writing {path} failed: {text}",
            "Choose a folder of your own (runs_dir, cache_dir) or change its permissions.",
        )
    return DiskError("A file could not be written", f"writing {path} failed: {text}", "")


def _free_mb(path: Path) -> int:
    folder = path if path.is_dir() else path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize // 2**20


@contextlib.contextmanager
def atomic_path(target: Path, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it replaces the target durably, else it is removed.

    The result has the permissions ``mode``, or those of an ordinary new file (0666 less the umask), whatever wrote
    it.

    Raises:
        DiskError: the write, flush or rename failed. The target is as it was.
    """
    temp = target.parent / f".{secrets.token_hex(6)}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temp
        flush(temp)
        os.chmod(temp, 0o666 & ~_umask() if mode is None else mode)
        os.replace(temp, target)
        flush(target.parent)
    except BaseException as err:
        # What stopped the write may stop the clean-up too; the first error is the one to tell.
        with contextlib.suppress(OSError):
            temp.unlink()
        if isinstance(err, OSError) or type(err).__name__ == "SafetensorError":
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


def is_held(lock: Path) -> bool:
    """Whether a process holds ``lock`` (flock); looking takes it for an instant."""
    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


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

    def lora(self, epoch: int, step: int, kind: str, layout: str = "kohya") -> Path:
        """The file of a saved LoRA: by epoch at its end, by step in between, plain at the run's end."""
        stem = {"epoch": f"{self.name}-e{epoch:04d}", "final": self.name}.get(kind, f"{self.name}-s{step:06d}")
        suffix = "" if layout == "kohya" else f".{layout}"
        return self.root / f"{stem}{suffix}.safetensors"


def create_run_folder(runs_dir: Path, name: str) -> RunFolder:
    """Make a new folder for a run; a taken name gets the next free number, so no run overwrites another.

    Raises:
        DiskError: the folder cannot be made.
        RunError: ten thousand runs of that name stand there.
    """
    base = slug(name)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        for root in _candidates(runs_dir, base):
            with contextlib.suppress(FileExistsError):
                root.mkdir()
                (root / "samples").mkdir()
                (root / "state").mkdir()
                return RunFolder(root)
    except OSError as err:
        raise disk_error(err, runs_dir) from err
    raise RunError("No free name for the run", f"{runs_dir} holds 10,000 runs called {base}", "Choose a new name.")


def next_run_folder(runs_dir: Path, name: str) -> Path:
    """The folder that a run begun now would get."""
    base = slug(name)
    return next((root for root in _candidates(runs_dir, base) if not os.path.lexists(root)), runs_dir / base)


def _candidates(runs_dir: Path, base: str) -> Iterator[Path]:
    """Folders for runs called ``base``, in the order in which they are taken."""
    return (runs_dir / (base if number == 1 else f"{base}-{number}") for number in range(1, 10_000))

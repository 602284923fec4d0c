"""The cache on disk: named by content, checked at every read, safe under kills and several writers.

Tensors go in under a key that covers everything they depend on (:func:`content_key`), so an entry is never stale:
another picture, caption or encoder is another key. Each entry is a safetensors file of its own with a SHA-256 over
all its bytes in its header, because safetensors itself does not see a flipped bit. It stands alone because nothing
in it knows what latents or captions are.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from engine.errors import CacheError, ModelFileError
from engine.files import atomic_path
from engine.leftovers import clear_up
from engine.models.header import parse_header
from engine.text import safe_text

_BLANK = "0" * 64
_MARK = b'"sha256":"'


def content_key(**parts: str | int | float | bool | None) -> str:
    """The key of an entry: SHA-256 (64 hex digits) over names and values of everything it depends on.

    Values of different types differ (1, 1.0, True and "1" are four keys); any string is allowed, lone surrogates
    included.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class StoreStats:
    """Size of a cache: number of entries and their bytes on disk."""

    entries: int
    size_bytes: int


Identity = tuple[int, int, int]
"""Inode, size and modification time (ns) of a file: equal means that nobody replaced it."""


class Store:
    """A folder of cache entries, ``root/<2 hex>/<key>.safetensors``.

    Entries are written beside their place, flushed and renamed, so readers and other writers of the same key see a
    whole entry or none. They are read into memory, never mapped: another process may replace or remove them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.damaged: list[str] = []
        """Keys of entries found torn or damaged, and removed, since this store was opened."""
        self._verified: dict[str, Identity] = {}

    def path(self, key: str) -> Path:
        """Where the entry of ``key`` stands or would stand."""
        return self.root / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Whether a file stands there; only :meth:`verify` and :meth:`get` look into it."""
        return self.path(key).is_file()

    def size(self, key: str) -> int:
        """Bytes of the file that stands there; 0 where there is none."""
        stat = _stat(self.path(key))
        return 0 if stat is None else stat.st_size

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Read an entry and check every byte of it; tensors on the CPU.

        Returns:
            The tensors, or None where there is no entry or a damaged one (removed and noted in :attr:`damaged`).

        Raises:
            CacheError: the file stands there but may not be read.
        """
        data = self._read(key)
        return None if data is None else safetensors.torch.load(data)

    def verify(self, key: str) -> bool:
        """Whether a whole, undamaged entry stands there; a damaged one is removed.

        Reads the file (about 2 ms for the 2 MB of a 1024 px picture) once in this store's life; an entry already
        verified or written here costs one ``stat`` as long as its file is the same.

        Raises:
            CacheError: the file stands there but may not be read.
        """
        known = self._verified.get(key)
        if known is not None and known == self._identity(key):
            return True
        return self._read(key) is not None

    def put(self, key: str, tensors: dict[str, Tensor], what: str = "") -> None:
        """Write an entry: durable and whole, or not at all. ``what`` names it in errors (a picture, a caption).

        Raises:
            CacheError: a tensor holds NaN or infinity; nothing is written.
            DiskError: the write failed; an older entry is unharmed.
        """
        plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        for name, tensor in plain.items():
            _require_finite(name, tensor, what)
        data = _seal(safetensors.torch.save(plain, {"key": key, "sha256": _BLANK}))
        with atomic_path(self.path(key)) as temp:
            temp.write_bytes(data)
        self._remember(key, self._identity(key))

    def stats(self) -> StoreStats:
        """Count entries and bytes."""
        sizes = [stat.st_size for path, stat in self._files() if path.suffix == ".safetensors"]
        return StoreStats(len(sizes), sum(sizes))

    def sweep(self) -> int:
        """Remove temporary files that a kill left; returns how many. One that is being written is held and stays."""
        return sum(clear_up(self.root / f"{number:02x}") for number in range(256))

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for number in range(256):
            folder = self.root / f"{number:02x}"
            for name in _names(folder):
                stat = _stat(folder / name)
                if stat is not None:
                    yield folder / name, stat

    def _read(self, key: str) -> bytes | None:
        """The bytes of an intact entry; a damaged one is removed."""
        path = self.path(key)
        identity: Identity | None
        try:
            with open(path, "rb") as file:
                identity = _identity(os.fstat(file.fileno()))
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as err:
            if err.errno != errno.EIO:
                raise _unreadable(path, err) from err
            identity, data = self._identity(key), b""
        if _intact(data, key) and _is_sound(data, path):
            self._remember(key, identity)
            return data
        self._remove(key, identity)
        return None

    def _remove(self, key: str, identity: Identity | None) -> None:
        self.damaged.append(key)
        self._verified.pop(key, None)
        # Another process may have put a good entry in its place since.
        if self._identity(key) == identity:
            try:
                self.path(key).unlink(missing_ok=True)
            except OSError as err:
                raise _unreadable(self.path(key), err) from err

    def _remember(self, key: str, identity: Identity | None) -> None:
        if identity is not None:
            self._verified[key] = identity

    def _identity(self, key: str) -> Identity | None:
        stat = _stat(self.path(key))
        return None if stat is None else _identity(stat)


def _identity(stat: os.stat_result) -> Identity:
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _stat(path: Path) -> os.stat_result | None:
    """What the system says about a file; None where there is none, or none that may be seen."""
    try:
        return os.stat(path)
    except OSError:
        return None


def _names(folder: Path) -> list[str]:
    """Names in a folder of the store, none where there is no such folder.

    Raises:
        CacheError: it may not be listed.
    """
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as err:
        raise _unreadable(folder, err) from err


def _unreadable(path: Path, err: OSError) -> CacheError:
    return CacheError(
        "A cache entry cannot be read or replaced",
        f"{safe_text(path)}: {safe_text(err.strerror or err)}",
        "Change its permissions, remove it, or choose another cache_dir.",
    )


def _require_finite(name: str, tensor: Tensor, what: str) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise CacheError(
            f"The encoder gave values that are not finite for {what or 'an entry'}",
            f"{bad} of {tensor.numel()} values of {name} are NaN or infinite; nothing was cached",
            "Try model.dtype = bfloat16 or float32, and check that the encoder's file is whole.",
        )


def _seal(data: bytes) -> bytes:
    """Fill the blank checksum in a serialised entry: SHA-256 over all bytes while it is still blank."""
    at = _checksum_at(data)
    return data[:at] + hashlib.sha256(data).hexdigest().encode() + data[at + 64 :]


def _intact(data: bytes, key: str) -> bool:
    """Whether ``data`` is a whole entry of ``key``: its checksum holds and it was written under that name."""
    at = _checksum_at(data)
    if at < 0:
        return False
    found = data[at : at + 64]
    digest = hashlib.sha256(data[:at])
    digest.update(_BLANK.encode())
    digest.update(memoryview(data)[at + 64 :])
    return digest.hexdigest().encode() == found and f'"key":"{key}"'.encode() in data[: _header_end(data)]


def _is_sound(data: bytes, path: Path) -> bool:
    """Whether the header passes our own check: a checksum holds for whatever its writer wrote."""
    try:
        parse_header(data, path)
    except ModelFileError:
        return False
    return True


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def _checksum_at(data: bytes) -> int:
    """Offset of the 64 hex digits in the header of a serialised entry; -1 where there are none."""
    found = data.find(_MARK, 8, min(_header_end(data), len(data)))
    return -1 if found < 0 else found + len(_MARK)

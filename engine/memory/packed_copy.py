"""A copy on disk of the packed blocks, so that the next start reads a small file instead of packing a large one.

In: the blocks as they will lie in memory (on the meta device), and a key that covers everything they depend on.
Out: a safetensors file of exactly these tensors, written while the base is loaded and read straight into the
memory they are to lie in. The header is known before the first tensor is; it carries a SHA-256 for every tensor,
because safetensors itself does not see a flipped bit. What is not byte for byte the expected header is a foreign or
damaged file. Writing is a convenience: when the disk is full the run goes on without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import DiskError
from engine.files import atomic_path
from engine.leftovers import clear_up
from engine.memory.frozen import BlockWeights, block_tensors
from engine.text import safe_text

VERSION = "1"
"""Of the file and of the packing; another one is another key."""

_DTYPES = {
    torch.int8: "I8", torch.uint8: "U8", torch.float8_e4m3fn: "F8_E4M3", torch.float32: "F32",
    torch.bfloat16: "BF16", torch.float16: "F16",
}  # fmt: skip
_MARK = b'"digests":"'
_PIECE = 2**23
"""Bytes read before they are hashed: small enough to be in the processor's cache still."""
_READERS = 4
_MARGIN = 64 * 2**20
"""Bytes that must stay free on the disk beside the copy."""


class DamagedCopy(Exception):
    """The copy on disk is not what it should be; the text says in which way."""


@dataclass(frozen=True)
class CopyFormat:
    """What the file looks like: its header with blank digests, and where each tensor's bytes begin.

    Attributes:
        header: the first bytes of the file, length included.
        places: offset and size in bytes of each tensor, by its name ``<block>.<name of block_tensors>``.
    """

    header: bytes
    places: dict[str, tuple[int, int]]

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return max((at + size for at, size in self.places.values()), default=len(self.header))

    @property
    def digests_at(self) -> int:
        """Offset of the digests, 64 hex digits a tensor in the order of :attr:`places`."""
        return self.header.index(_MARK) + len(_MARK)


def copy_format(templates: Sequence[BlockWeights], key: str) -> CopyFormat:
    """The file for these blocks under this key."""
    tensors = {
        f"{block}.{name}": tensor
        for block, weights in enumerate(templates)
        for name, tensor in block_tensors(weights).items()
    }
    metadata = {"made_by": "lorakiln", "key": key, "digests": "0" * (64 * len(tensors))}
    tree: dict[str, object] = {"__metadata__": metadata}
    sizes, at = {}, 0
    for name, tensor in tensors.items():
        sizes[name] = tensor.numel() * tensor.element_size()
        offsets = [at, at := at + sizes[name]]
        tree[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    places, at = {}, 8 + len(text)
    for name, size in sizes.items():
        places[name] = (at, size)
        at += size
    return CopyFormat(len(text).to_bytes(8, "little") + text, places)


class CopyWriter:
    """Writes the copy block by block, in any order; the file appears under its name when all are there.

    The first failure ends the writing: the half-written file is removed and :attr:`failure` says why. A context
    manager; leaving it before all blocks are written removes what there is.
    """

    def __init__(self, path: Path, form: CopyFormat) -> None:
        self.path = path
        self.failure = ""
        self._form = form
        self._digests: dict[str, str] = {}
        self._stack = contextlib.ExitStack()
        self._fd = -1

    def __enter__(self) -> CopyWriter:
        """Make room and begin."""
        with self._guarded():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            clear_up(self.path.parent)
            free = shutil.disk_usage(self.path.parent).free
            if free < self._form.size_bytes + _MARGIN:
                raise DiskError(
                    "The disk is full",
                    f"{self._form.size_bytes / 1e9:.1f} GB wanted in {safe_text(self.path.parent, 400)}, "
                    f"{free / 1e9:.1f} GB free",
                )
            temp = self._stack.enter_context(atomic_path(self.path))
            self._fd = os.open(temp, os.O_RDWR)
            _write(self._fd, memoryview(self._form.header), 0)
        return self

    def add(self, block: int, weights: BlockWeights) -> None:
        """Write the tensors of a block; wherever they lie, one at a time passes through host memory."""
        if self.failure:
            return
        with self._guarded():
            for name, tensor in block_tensors(weights).items():
                at, size = self._form.places[f"{block}.{name}"]
                view = _bytes_of(tensor.detach().to("cpu"))
                if len(view) != size:
                    raise ValueError(f"{block}.{name} has {len(view)} bytes, {size} expected")
                _write(self._fd, view, at)
                self._digests[f"{block}.{name}"] = hashlib.sha256(view).hexdigest()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Seal and rename a whole file, remove any other."""
        if self.failure:
            return
        with self._guarded():
            if len(self._digests) < len(self._form.places):
                raise _Unfinished
            digests = "".join(self._digests[name] for name in self._form.places)
            _write(self._fd, memoryview(digests.encode()), self._form.digests_at)
            self._stack.close()
            os.close(self._fd)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn a failed write into :attr:`failure`, and clean up."""
        try:
            yield
        except (OSError, DiskError, _Unfinished) as err:
            self.failure = str(err) or "it was not finished"
            try:
                # atomic_path removes the file when an error passes through it, and tells that error in clear words.
                self._stack.__exit__(type(err), err, err.__traceback__)
            except (OSError, DiskError, _Unfinished) as told:
                err = told
            if isinstance(err, DiskError):
                self.failure = f"{err.title}: {err.detail}"
            if self._fd >= 0:  # open until the file has its name or is gone, since the lock on it ends here
                os.close(self._fd)


class _Unfinished(Exception):
    """The writer was left before all blocks were written."""


class CopyReader:
    """Reads blocks from a copy, checking every byte; several threads read and hash."""

    def __init__(self, path: Path, form: CopyFormat) -> None:
        """Open the file and compare its header.

        Raises:
            FileNotFoundError: there is no copy.
            DamagedCopy: it is another file, or cannot be read.
        """
        self._form = form
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        except (FileNotFoundError, NotADirectoryError) as err:
            raise FileNotFoundError(str(path)) from err
        except OSError as err:
            raise DamagedCopy(f"it cannot be read ({err.strerror or err})") from err
        try:
            self._digests = self._check_header()
        except BaseException:
            self._file.close()
            raise
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="packed-copy")

    def close(self) -> None:
        """End the threads and close the file."""
        self._threads.shutdown()
        self._file.close()

    def read(self, block: int, into: Mapping[str, Tensor]) -> None:
        """Fill ``into``, the tensors of a block by the names of ``block_tensors``, wherever they lie.

        Raises:
            DamagedCopy: a checksum does not hold, or the disk fails.
        """
        jobs = [self._threads.submit(self._fill, f"{block}.{name}", tensor) for name, tensor in into.items()]
        errors = [job.exception() for job in jobs]
        for error in errors:
            if error is not None:
                raise error

    def _check_header(self) -> dict[str, str]:
        form, fd = self._form, self._file.fileno()
        size = os.fstat(fd).st_size
        if size != form.size_bytes:
            raise DamagedCopy(f"it has {size} bytes, {form.size_bytes} expected")
        found = bytearray(len(form.header))
        self._fill_bytes(memoryview(found), 0)
        first, last = form.digests_at, form.digests_at + 64 * len(form.places)
        digests = bytes(found[first:last])
        if found[:first] != form.header[:first] or found[last:] != form.header[last:]:
            raise DamagedCopy("its header is not the expected one")
        return {name: digests[64 * n : 64 * (n + 1)].decode("ascii", "replace") for n, name in enumerate(form.places)}

    def _fill(self, name: str, tensor: Tensor) -> None:
        straight = tensor.device.type == "cpu" and tensor.is_contiguous()
        host = tensor if straight else torch.empty(tensor.shape, dtype=tensor.dtype)
        if self._fill_bytes(_bytes_of(host), self._form.places[name][0]) != self._digests[name]:
            raise DamagedCopy(f"the checksum of {name} does not hold")
        if not straight:
            tensor.copy_(host)

    def _fill_bytes(self, view: memoryview, at: int) -> str:
        """Read into ``view`` from offset ``at``; returns the SHA-256 of what was read."""
        digest = hashlib.sha256()
        while view:
            piece = view[:_PIECE]
            try:
                got = os.preadv(self._file.fileno(), [piece], at)
            except OSError as err:
                raise DamagedCopy(f"the disk fails ({err.strerror or err})") from err
            if not got:
                raise DamagedCopy("it ends early")
            digest.update(piece[:got])
            view, at = view[got:], at + got
        return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    flat = tensor.contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data) if flat.numel() else memoryview(bytearray())


def _write(fd: int, view: memoryview, at: int) -> None:
    while view:
        wrote = os.pwrite(fd, view[: 2**26], at)
        view, at = view[wrote:], at + wrote

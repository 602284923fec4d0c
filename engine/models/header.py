"""Reads the header of a safetensors file: our own strict parse, before any library sees the file.

In: a path from a stranger. Out: a :class:`Header` with every tensor's dtype, shape and place, all of it checked
against the file's size, or a :class:`~engine.errors.ModelFileError`. Stands alone because everything that opens a
model (detection, loading, LoRA files) must pass through the same gate. Torch-free. Pickles are recognised by
extension and by their first bytes, and are never opened further: reading one can run any program.

Format: 8 bytes little-endian length, that many bytes of JSON, then the tensors back to back.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import ModelFileError
from engine.text import safe_text

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 20_000
MAX_DIMS = 8
MAX_NAME = 256
MAX_METADATA_BYTES = 2**20

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "U16": 16, "I16": 16, "F16": 16,
    "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Every dtype a header may name, with its width in bits."""

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"})
_CONVERT = (
    "Download the .safetensors file of the same model. If there is none, convert it on a machine you can afford to "
    "lose: open it there with PyTorch's weights_only=True and write it with safetensors.torch.save_file."
)
_NAME = re.compile(rf"[A-Za-z0-9_.\-]{{1,{MAX_NAME}}}")
# First bytes of files that people rename or download by mistake.
_MAGIC = (
    (b"PK", "a zip archive, the form in which PyTorch writes pickles", _CONVERT),
    (b"\x80", "a Python pickle", _CONVERT),
    (b"GGUF", "a GGUF file (a quantised model for llama.cpp and its kin)", "Get the .safetensors file."),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run git lfs pull in its folder."),
    (b"<", "a web page", "The download asked for a login or failed; download the file again."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it; ``begin`` and ``end`` count bytes from ``Header.data_offset``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A checked header: its tensors by name, its metadata, and where the data begin."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_offset: int

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        return self.data_offset + max((info.end for info in self.tensors.values()), default=0)


def read_header(path: Path) -> Header:
    """Read and check the header of ``path``.

    Raises:
        ModelFileError: missing, not a regular file, a pickle, not safetensors, truncated, or a header that two
            readers could understand differently (double names, holes, overlaps, trailing bytes).
    """
    path = Path(path)
    size = _regular_size(path)
    if path.suffix.lower() in PICKLES:
        _refuse_pickle(path, f"the extension {path.suffix} says a Python pickle")
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            length = _header_length(path, head, size)
            file.seek(8)
            raw = file.read(length)
    except OSError as err:
        raise ModelFileError("A model file could not be read", f"{_show(path)}: {err}", "") from err
    if len(raw) < length:
        _damaged(path, f"the header ends after {len(raw)} of {length} bytes: the file is truncated")
    return _parse(path, raw, 8 + length, size)


def parse_header(data: bytes, path: Path) -> Header:
    """Check the header of a whole file that is in memory; ``path`` is for messages.

    Raises:
        ModelFileError: as in :func:`read_header`.
    """
    length = _header_length(path, data[:64], len(data))
    return _parse(path, data[8 : 8 + length], 8 + length, len(data))


def file_fingerprint(path: Path) -> str:
    """A SHA-256 (hex) that tells one model file from another: header, size and samples of the data.

    Files up to 16 MB are hashed wholly, of larger ones 64 pieces of 64 kB, evenly spaced, so that a 24 GB
    file costs milliseconds. Remembered by path, size and modification time.

    Raises:
        ModelFileError: the file cannot be read.
    """
    path = Path(path)
    try:
        info = os.stat(path)
        key = (str(path), info.st_size, info.st_mtime_ns, info.st_ino)
        if key not in _FINGERPRINTS:
            _FINGERPRINTS[key] = _sampled_digest(path, info.st_size)
        return _FINGERPRINTS[key]
    except OSError as err:
        raise ModelFileError("A model file could not be read", f"{_show(path)}: {err}", "") from err


_FINGERPRINTS: dict[tuple[str, int, int, int], str] = {}
_WHOLE, _PIECE, _PIECES = 16 * 2**20, 2**16, 64


def _sampled_digest(path: Path, size: int) -> str:
    digest = hashlib.sha256(f"{size}/".encode())
    with open(path, "rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            length = int.from_bytes(file.read(8), "little")
            digest.update(file.read(min(length, MAX_HEADER_BYTES)))
            for piece in range(_PIECES):
                file.seek((size - _PIECE) * piece // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _regular_size(path: Path) -> int:
    try:
        info = os.stat(path)
    except OSError as err:
        raise ModelFileError(
            "No such model file", f"{_show(path)}: {err.strerror}", "Check the path; kiln models lists what is found."
        ) from err
    except ValueError as err:  # a NUL inside the path
        raise ModelFileError("No such model file", f"{_show(path)}: {err}", "") from err
    if stat.S_ISDIR(info.st_mode):
        raise ModelFileError(
            "A folder where a model file is wanted", f"{_show(path)} is a folder", "Name a .safetensors file."
        )
    if not stat.S_ISREG(info.st_mode):
        raise ModelFileError("Not a model file", f"{_show(path)} is not a regular file", "")
    return info.st_size


def _header_length(path: Path, head: bytes, size: int) -> int:
    if size == 0:
        _damaged(path, "the file is empty", "Download it again.")
    length = int.from_bytes(head[:8], "little")
    # Both tests: the length 640 begins with the same two bytes as a pickle of protocol 2.
    if len(head) > 8 and length <= MAX_HEADER_BYTES and head[8:9] == b"{":
        if length > size - 8:
            _damaged(path, f"the header wants {length} bytes, the file has {size}: it is truncated", _AGAIN)
        return length
    for magic, what, hint in _MAGIC:
        if head.startswith(magic):
            if hint is _CONVERT:
                _refuse_pickle(path, f"its first bytes are those of {what}")
            raise ModelFileError("Not a safetensors file", f"{_show(path)} is {what}", hint)
    if len(head) < 9:
        _damaged(path, f"the file has {size} bytes, too few for a header", _AGAIN)
    found = f"header length {length}" if length > MAX_HEADER_BYTES else f"first byte of the header {head[8:9]!r}"
    raise ModelFileError(
        "Not a safetensors file",
        f"{_show(path)}: {found}, expected at most {MAX_HEADER_BYTES} bytes beginning with '{{'",
        "Is it another format under this name, or a damaged download?",
    )


_AGAIN = "Download or copy it again."


def _parse(path: Path, raw: bytes, data_offset: int, size: int) -> Header:
    try:
        tree = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        _damaged(path, f"the header is not clean JSON: {safe_text(err, 200)}")
    if not isinstance(tree, dict):
        _damaged(path, "the header is not a JSON object")
    metadata = _metadata(path, tree.pop("__metadata__", {}))
    if len(tree) > MAX_TENSORS:
        _damaged(path, f"the header names {len(tree)} tensors, at most {MAX_TENSORS} are read")
    tensors = {name: _tensor(path, name, entry) for name, entry in tree.items()}
    _check_places(path, tensors, size - data_offset)
    return Header(path, tensors, metadata, data_offset)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        double = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {double!r} appears twice")
    return out


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _metadata(path: Path, found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        _damaged(path, "__metadata__ must map strings to strings")
    if sum(len(key) + len(value) for key, value in found.items()) > MAX_METADATA_BYTES:
        _damaged(path, f"__metadata__ is larger than {MAX_METADATA_BYTES} bytes")
    return dict(found)


def _tensor(path: Path, name: str, entry: Any) -> TensorInfo:
    shown = safe_text(repr(name), 120)
    if not _NAME.fullmatch(name):
        _damaged(path, f"tensor name {shown}: only letters, digits, '_', '.', '-', at most {MAX_NAME} of them")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _damaged(path, f"tensor {shown} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        _damaged(path, f"tensor {shown} has the unknown dtype {safe_text(repr(dtype), 40)}")
    if not _naturals(shape) or len(shape) > MAX_DIMS:
        _damaged(path, f"tensor {shown}: shape must be at most {MAX_DIMS} whole numbers")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _damaged(path, f"tensor {shown}: data_offsets must be two whole numbers, the first not larger")
    info = TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1])
    if info.count * DTYPE_BITS[dtype] != 8 * (info.end - info.begin):
        wanted = info.count * DTYPE_BITS[dtype] // 8
        _damaged(path, f"tensor {shown}: {dtype} {_dims(shape)} is {wanted} bytes, has {info.end - info.begin}")
    return info


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _dims(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _check_places(path: Path, tensors: dict[str, TensorInfo], data_bytes: int) -> None:
    at = 0
    for info in sorted(tensors.values(), key=lambda info: (info.begin, info.end)):
        if info.begin != at:
            what = "overlaps the one before it" if info.begin < at else "leaves a hole before it"
            _damaged(path, f"tensor {safe_text(info.name, 120)} {what} ({info.begin}, expected {at})")
        at = info.end
    if data_bytes < at:
        _damaged(path, f"{data_bytes} of {at} bytes of data: the file is truncated", _AGAIN)
    if data_bytes > at:
        _damaged(path, f"{data_bytes - at} bytes follow the last tensor", _AGAIN)


def _refuse_pickle(path: Path, why: str) -> NoReturn:
    raise ModelFileError(
        "A pickle is not opened",
        f"{_show(path)}: {why}. Loading a pickle can run any program hidden in it.",
        _CONVERT,
    )


def _damaged(path: Path, detail: str, hint: str = "") -> NoReturn:
    raise ModelFileError(
        "Not a valid safetensors file", f"{_show(path)}: {detail}", hint or "Get the file from its publisher again."
    )


def _show(path: Path) -> str:
    return safe_text(path, 400)


def encoder_fingerprint(path: Path, dtype: object) -> str:
    """A loaded encoder's fingerprint, without loading it: the file's and the precision (a ``torch.dtype``).

    Raises:
        ModelFileError: the file cannot be read.
    """
    return f"{file_fingerprint(path)}-{str(dtype).removeprefix('torch.')}"

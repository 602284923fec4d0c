"""Headers from strangers: what is read, what is refused, and with which words."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from model_files import raw_file, write

from engine.errors import ModelFileError
from engine.models.header import file_fingerprint, read_header


def entry(begin: int = 0, end: int = 8, dtype: object = "F32", shape: object = (2,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_sound_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"b.weight": torch.zeros(2, 3), "a": torch.ones(4, dtype=torch.float16)})
    header = read_header(path)
    assert set(header.tensors) == {"b.weight", "a"}
    assert header.tensors["b.weight"].shape == (2, 3)
    assert header.tensors["a"].dtype == "F16"
    assert header.size_bytes == path.stat().st_size


def test_spaces_behind_the_header_are_read(tmp_path: Path) -> None:
    raw = json.dumps({"a": entry()}).encode() + b"   "
    assert set(read_header(raw_file(tmp_path / "a.safetensors", raw, bytes(8))).tensors) == {"a"}


def test_a_header_length_that_looks_like_a_pickle(tmp_path: Path) -> None:
    """640 in little-endian begins with 80 02, as pickles of protocol 2 do."""
    raw = json.dumps({"a": entry()}).encode().ljust(640)
    path = raw_file(tmp_path / "a.safetensors", raw, bytes(8))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert set(read_header(path).tensors) == {"a"}


HOSTILE: dict[str, tuple[object, bytes]] = {
    "double key": (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                   b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "double field": (b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "not json": (b"{nonsense}", b""),
    "not utf-8": (b'{"\xff": 1}', b""),
    "nan": (b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)),
    "deep nesting": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b""),
    "huge number": (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', bytes(8)),
    "a list": (b'{"a": []}', b""),
    "entry without shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)),
    "entry with more": ({"a": {**entry(), "extra": 1}}, bytes(8)),
    "unknown dtype": ({"a": entry(dtype="F3")}, bytes(8)),
    "dtype is a list": ({"a": entry(dtype=["F32"])}, bytes(8)),
    "negative shape": ({"a": entry(shape=[-2])}, bytes(8)),
    "fraction in shape": ({"a": entry(shape=[2.0])}, bytes(8)),
    "true in shape": ({"a": entry(shape=[True, 2])}, bytes(8)),
    "2000 dimensions": ({"a": entry(shape=[1] * 1999 + [2])}, bytes(8)),
    "shape is text": ({"a": entry(shape="2")}, bytes(8)),
    "offsets reversed": ({"a": entry(8, 0)}, bytes(8)),
    "offsets too large": ({"a": entry(0, 2**63)}, bytes(8)),
    "size of shape": ({"a": entry(shape=[3])}, bytes(8)),
    "overflowing shape": ({"a": entry(shape=[2**62, 2**62])}, bytes(8)),
    "hole at the start": ({"a": entry(8, 16)}, bytes(16)),
    "hole between": ({"a": entry(0, 8), "b": entry(16, 24)}, bytes(24)),
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
    "same place": ({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)),
    "trailing bytes": ({"a": entry()}, bytes(9)),
    "missing bytes": ({"a": entry()}, bytes(7)),
    "escape in a name": ({"a\x1b[2J": entry()}, bytes(8)),
    "path as a name": ({"../../x": entry()}, bytes(8)),
    "long name": ({"a" * 257: entry()}, bytes(8)),
    "empty name": ({"": entry()}, bytes(8)),
    "newline after a name": ({"a\n": entry()}, bytes(8)),
    "lone surrogate": (b'{"\\ud800": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "a": entry()}, bytes(8)),
    "metadata is a list": ({"__metadata__": [], "a": entry()}, bytes(8)),
    "large metadata": ({"__metadata__": {"a": "x" * (2**20 + 1)}, "a": entry()}, bytes(8)),
    "too many tensors": ({f"t{i}": entry(0, 0, shape=[0]) for i in range(20_001)}, b""),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(name: str, tmp_path: Path) -> None:
    header, data = HOSTILE[name]
    path = raw_file(tmp_path / "a.safetensors", header, data)
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    shown = str(caught.value)
    assert "a.safetensors" in shown
    assert "\x1b" not in shown
    assert len(shown) < 2000


def test_lengths(tmp_path: Path) -> None:
    for length in (2**63, 2**64 - 1, 16 * 2**20 + 1, 100, 1):
        path = tmp_path / "a.safetensors"
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(ModelFileError):
            read_header(path)


def test_truncated_everywhere(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.safetensors", {"a": torch.zeros(3000), "b": torch.zeros(3000)}).read_bytes()
    cut = tmp_path / "cut.safetensors"
    for size in [*range(0, 260, 7), *range(260, len(whole), 4096), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match=r"(?s)(truncated|empty|too few)"):
            read_header(cut)


class Bomb:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["m.ckpt", "m.pt", "m.pth", "m.bin", "m.pkl", "m.PT", "m.safetensors", "m"])
@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_pickles_are_refused_under_any_name(name: str, form: str, tmp_path: Path) -> None:
    trap, path = tmp_path / "sprung", tmp_path / name
    body = pickle.dumps({"a": Bomb(trap)}, protocol=2)
    if form == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", body)
        body = buffer.getvalue()
    path.write_bytes(body)
    with pytest.raises(ModelFileError, match=r"(?s)pickle.*safetensors"):
        read_header(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"<!doctype html><title>401</title>" + bytes(64), "web page"),
        (b"GGUF" + bytes(64), "GGUF"),
        (b"", "empty"),
        (b"abc", "too few"),
        (b"\xc8\xc9\xca\xcb" + b"\xff" * 60, "Not a safetensors file"),
    ],
)
def test_other_files_are_told_apart(body: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(body)
    with pytest.raises(ModelFileError, match=says):
        read_header(path)


def test_places_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "absent.safetensors", tmp_path, tmp_path / "pipe.safetensors", Path("a\0b")):
        with pytest.raises(ModelFileError):
            read_header(path)


def test_a_hostile_file_name_is_shown_harmlessly(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b]52;c;eA==\x07[red].safetensors"
    path.write_bytes(b"{}")
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    assert "\x1b" not in str(caught.value)
    assert "\\x1b" in str(caught.value)


def test_fingerprints(tmp_path: Path) -> None:
    small = write(tmp_path / "small.safetensors", {"a": torch.zeros(10)})
    before = file_fingerprint(small)
    assert file_fingerprint(small) == before
    write(small, {"a": torch.ones(10)})
    os.utime(small, ns=(1, 1))
    assert file_fingerprint(small) != before
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(small.read_bytes())
    assert file_fingerprint(copy) == file_fingerprint(small)
    with pytest.raises(ModelFileError):
        file_fingerprint(tmp_path / "absent")


@pytest.mark.timeout(10)  # reading all of it would take longer
def test_the_fingerprint_of_a_huge_file_is_cheap(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with open(path, "wb") as file:
        file.truncate(24 * 2**30)
    first = file_fingerprint(path)
    with open(path, "r+b") as file:
        file.seek(24 * 2**30 - 5)
        file.write(b"x")
    assert file_fingerprint(path) != first

"""The packed copy on disk: read back whole, not believed when damaged, not in the way when it cannot be written."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import tiny_flux
from safetensors.torch import load_file
from test_memory_load import Rooms, same_blocks

import engine.memory.packed_copy as packed_copy
from engine.leftovers import clear_up
from engine.memory.frozen import block_tensors
from engine.memory.load import LoadedBase, load_base
from engine.models.header import read_header

PRECISIONS = ("int8", "fp8", "nf4")
KEPT, READ = "is kept for the next start", "was read packed"


def start(folder: Path, precision: str = "int8", **more: Any) -> LoadedBase:
    path = folder / "m.safetensors"
    if not path.exists():
        tiny_flux(path)
    return load_base(
        path, device="cpu", dtype=torch.bfloat16, precision=precision, cache_dir=folder / "cache", **more
    )  # type: ignore[arg-type]


def copy_in(folder: Path) -> Path:
    (found,) = (folder / "cache" / "base").iterdir()
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_second_start_reads_what_the_first_one_packed(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(tmp_path, precision)
    assert len(first.notes) == 1
    assert KEPT in first.notes[0]
    # Whatever the file's block matrices held would be noticed: they are not looked at again.
    monkeypatch.setattr("engine.memory.base_file.BaseFile.linear", None)
    second = start(tmp_path, precision)
    assert READ in second.notes[0]
    assert same_blocks(first, second)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_copy_is_a_plain_safetensors_file(precision: str, tmp_path: Path) -> None:
    base = start(tmp_path, precision)
    header = read_header(copy_in(tmp_path))
    assert header.metadata["made_by"] == "lorakiln"
    stored = load_file(copy_in(tmp_path))
    for block, weights in enumerate(base.blocks):
        for name, tensor in block_tensors(weights).items():
            assert torch.equal(stored[f"{block}.{name}"].float(), tensor.float())
    assert copy_in(tmp_path).name == f"{header.metadata['key']}.safetensors"


def test_another_base_precision_or_dtype_is_another_copy(tmp_path: Path) -> None:
    start(tmp_path, "int8")
    start(tmp_path, "fp8")
    load_base(
        tmp_path / "m.safetensors", device="cpu", dtype=torch.float32, precision="int8", cache_dir=tmp_path / "cache"
    )
    tiny_flux(tmp_path / "m.safetensors", seed=1)
    assert KEPT in start(tmp_path, "int8").notes[0]
    assert len(list((tmp_path / "cache" / "base").iterdir())) == 4


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["length", "header", "digests", "first tensor", "middle", "last byte"])
def test_a_flipped_bit_is_found_and_mended(where: str, tmp_path: Path) -> None:
    good = start(tmp_path)
    path = copy_in(tmp_path)
    whole = path.read_bytes()
    header = read_header(path)
    at = {
        "length": 1,
        "header": whole.index(b"made_by"),
        "digests": whole.index(b'"digests":"') + 70,
        "first tensor": header.data_offset,
        "middle": (header.data_offset + len(whole)) // 2,
        "last byte": len(whole) - 1,
    }[where]
    flip(path, at)
    rooms = Rooms((0, 2, 4))
    mended = start(tmp_path, room=rooms.room, place=rooms.place)
    assert "is damaged" in mended.notes[0]
    assert KEPT in mended.notes[1]
    assert rooms.placed == [0, 1, 2, 3, 4]
    assert same_blocks(good, mended)
    assert path.read_bytes() == whole
    assert READ in start(tmp_path).notes[0]


@pytest.mark.parametrize("what", ["truncated", "longer", "empty", "text", "other key"])
def test_a_foreign_file_is_not_believed(what: str, tmp_path: Path) -> None:
    good = start(tmp_path)
    path = copy_in(tmp_path)
    whole = path.read_bytes()
    key = path.stem.encode()
    path.write_bytes(
        {
            "truncated": whole[:-10],
            "longer": whole + b"\0",
            "empty": b"",
            "text": b"not a model" * 100,
            "other key": whole.replace(key, bytes(reversed(key)), 1),
        }[what]
    )
    again = start(tmp_path)
    assert "is damaged" in again.notes[0]
    assert same_blocks(good, again)
    assert path.read_bytes() == whole


def test_a_disk_that_fails_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = start(tmp_path)
    plain = os.preadv
    calls = 0

    def failing(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise OSError(errno.EIO, "Input/output error")
        return plain(*args)

    monkeypatch.setattr(packed_copy.os, "preadv", failing)
    again = start(tmp_path)
    assert "the disk fails (Input/output error)" in again.notes[0]
    assert same_blocks(good, again)


def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.pwrite
    written = 0

    def full(fd: int, view: memoryview, at: int) -> int:
        nonlocal written
        written += len(view)
        if written > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(fd, view, at)

    monkeypatch.setattr(packed_copy.os, "pwrite", full)
    base = start(tmp_path)
    assert "is not kept (The disk is full" in base.notes[0]
    assert list((tmp_path / "cache" / "base").iterdir()) == []
    monkeypatch.undo()
    assert same_blocks(base, start(tmp_path))


def test_room_on_the_disk_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 64 * 2**20 + 1000

    monkeypatch.setattr(packed_copy.shutil, "disk_usage", lambda path: Usage)
    base = start(tmp_path)
    assert "The disk is full: 0.0 GB wanted" in base.notes[0]
    assert list((tmp_path / "cache" / "base").iterdir()) == []


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file stands here")
    base = start(tmp_path)
    assert "is not kept" in base.notes[0]
    assert len(base.blocks) == 5


def test_a_loading_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Enough

    with pytest.raises(Enough):
        start(tmp_path, progress=stop)
    assert list((tmp_path / "cache" / "base").iterdir()) == []


def test_a_kill_half_way_leaves_no_copy_and_no_litter(tmp_path: Path) -> None:
    tiny_flux(tmp_path / "m.safetensors")
    code = (
        "import time, torch\n"
        "from pathlib import Path\n"
        "from engine.memory.load import load_base\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "def slow(block, weights):\n"
        "    if block == 3:\n"
        "        print('half way', flush=True)\n"
        "        time.sleep(60)\n"
        "    return weights\n"
        "load_base(folder / 'm.safetensors', device='cpu', dtype=torch.bfloat16, precision='int8',\n"
        "          cache_dir=folder / 'cache', place=slow)\n"
    )
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "half way\n"
    folder = tmp_path / "cache" / "base"
    assert [path.suffix for path in folder.iterdir()] == [".part"]
    assert clear_up(folder) == 0  # its writer lives
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    base = start(tmp_path)
    assert KEPT in base.notes[0]
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_a_file_swept_before_its_writer_locked_it_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, swept = fcntl.flock, []

    def swept_first(file: Any, how: int) -> None:
        if not swept:
            swept.append(1)
            assert clear_up(tmp_path / "cache" / "base") == 1  # another lorakiln starts in this moment
        plain(file, how)

    monkeypatch.setattr(fcntl, "flock", swept_first)
    first = start(tmp_path)
    assert swept and KEPT in first.notes[0]
    assert READ in start(tmp_path).notes[0]


_STARTER = """
import sys, torch
from pathlib import Path
from engine.memory.load import load_base
folder = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    notes = load_base(
        folder / "m.safetensors", device="cpu", dtype=torch.bfloat16, precision="int8", cache_dir=folder / "cache"
    ).notes
    if any("damaged" in note or "not kept" in note for note in notes):
        sys.exit(str(notes))
"""


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.crash)])
def test_two_starts_that_pack_the_same_base(tmp_path: Path, count: int) -> None:
    tiny_flux(tmp_path / "m.safetensors")
    root = Path(__file__).resolve().parents[2]
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", _STARTER, str(tmp_path), str(count)], cwd=root, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for starter in starters:
        _, told = starter.communicate()
        assert starter.returncode == 0, told
    assert READ in start(tmp_path).notes[0]
    assert [path.suffix for path in (tmp_path / "cache" / "base").iterdir()] == [".safetensors"]

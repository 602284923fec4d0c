"""The store: nothing damaged is ever read, nothing good is ever lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from reliability import figure

from engine.cache.store import Store, _seal, content_key
from engine.errors import CacheError, DiskError

KEY = content_key(kind="test", number=1)
ENTRY = {
    "mean": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "states": torch.linspace(-1, 1, 6).to(torch.bfloat16),
    "mask": torch.tensor([True, False]),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_key_covers_names_values_and_types() -> None:
    keys = [
        content_key(a=1),
        content_key(a=1.0),
        content_key(a=True),
        content_key(a="1"),
        content_key(a=None),
        content_key(b=1),
        content_key(a=1, b=1),
        content_key(a="\ud800"),
        content_key(a="x,b=1"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 for key in keys)
    assert content_key(a=1, b="ü") == content_key(b="ü", a=1)
    with pytest.raises(ValueError):
        content_key(a=float("nan"))


def test_what_goes_in_comes_out(store: Store) -> None:
    assert not store.has(KEY)
    assert store.get(KEY) is None
    assert not store.verify(KEY)
    store.put(KEY, ENTRY)
    assert store.has(KEY)
    assert store.verify(KEY)
    back = store.get(KEY)
    assert back is not None
    assert back.keys() == ENTRY.keys()
    for name, tensor in ENTRY.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)
    assert store.path(KEY).parent.name == KEY[:2]
    assert store.stats().entries == 1
    assert store.stats().size_bytes == store.path(KEY).stat().st_size
    assert store.damaged == []


def test_views_and_shared_memory_are_stored_whole(store: Store) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    store.put(KEY, {"a": base.t(), "b": base[:, ::2], "c": base})
    back = store.get(KEY)
    assert back is not None
    assert torch.equal(back["a"], base.t())
    assert torch.equal(back["b"], base[:, ::2])


def test_result_may_be_changed_without_touching_the_file(store: Store) -> None:
    store.put(KEY, ENTRY)
    back = store.get(KEY)
    assert back is not None
    back["mean"].zero_()
    again = Store(store.root).get(KEY)
    assert again is not None
    assert torch.equal(again["mean"], ENTRY["mean"])


def test_every_flipped_bit_is_found(store: Store) -> None:
    store.put(KEY, ENTRY)
    path = store.path(KEY)
    whole = path.read_bytes()
    for byte in range(len(whole)):
        torn = bytearray(whole)
        torn[byte] ^= 1 << (byte % 8)
        path.write_bytes(torn)
        assert store.get(KEY) is None, f"a flipped bit in byte {byte} of {len(whole)} was not seen"
        assert not path.exists()
    assert len(store.damaged) == len(whole)


def test_every_torn_length_is_found(store: Store) -> None:
    store.put(KEY, ENTRY)
    path = store.path(KEY)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert store.get(KEY) is None, f"cut to {length} bytes"
    path.write_bytes(whole + b"\0")
    assert store.get(KEY) is None
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert store.get(KEY) is None


def test_an_entry_under_another_name_is_not_taken(store: Store) -> None:
    other = content_key(kind="test", number=2)
    store.put(KEY, ENTRY)
    store.path(other).parent.mkdir(parents=True, exist_ok=True)
    store.path(other).write_bytes(store.path(KEY).read_bytes())
    assert store.get(other) is None
    assert store.damaged == [other]
    assert store.get(KEY) is not None


def test_damage_after_verification_is_found_again(store: Store) -> None:
    store.put(KEY, ENTRY)
    assert store.verify(KEY)
    data = bytearray(store.path(KEY).read_bytes())
    data[-1] ^= 1
    store.path(KEY).write_bytes(data)
    assert not store.verify(KEY)
    assert not store.has(KEY)
    store.put(KEY, ENTRY)
    assert store.verify(KEY)


def test_verification_reads_a_file_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, ENTRY)
    fresh = Store(store.root)
    reads = []
    original = Store._read
    monkeypatch.setattr(Store, "_read", lambda self, key: (reads.append(key), original(self, key))[1])
    assert [fresh.verify(KEY) for _ in range(5)] == [True] * 5
    assert reads == [KEY]


def test_a_good_entry_put_meanwhile_is_not_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, ENTRY)
    path = store.path(KEY)
    path.write_bytes(path.read_bytes()[:-1])
    original = Store._remove

    def replaced_first(self: Store, key: str, identity: tuple[int, int, int] | None) -> None:
        Store(self.root).put(key, ENTRY)
        original(self, key, identity)

    monkeypatch.setattr(Store, "_remove", replaced_first)
    assert store.get(KEY) is None
    monkeypatch.undo()
    assert store.get(KEY) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(store: Store, value: float) -> None:
    bad = {"mean": torch.zeros(4), "std": torch.tensor([1.0, value])}
    with pytest.raises(CacheError, match=r"cat\.png") as caught:
        store.put(KEY, bad, what="cat.png")
    assert "1 of 2 values of std" in caught.value.detail
    assert not store.has(KEY)
    assert store.stats().entries == 0


def test_temporary_files_of_kills_are_swept(store: Store) -> None:
    store.put(KEY, ENTRY)
    left = store.path(KEY).parent / ".0123456789ab.part"
    left.write_bytes(b"torn")
    assert store.sweep() == 1
    assert not left.exists()
    assert store.get(KEY) is not None
    assert store.stats().entries == 1
    assert Store(store.root / "none").sweep() == 0


def test_a_sweep_spares_what_is_being_written_whatever_the_clocks_say(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = os.replace

    def swept_first(source: Path, target: Path) -> None:
        os.utime(source, (1, 1))  # a clock set forward by years, or a server's that lags
        assert Store(store.root).sweep() == 0
        replaced(source, target)

    monkeypatch.setattr(os, "replace", swept_first)
    store.put(KEY, ENTRY)
    monkeypatch.undo()
    assert store.get(KEY) is not None
    assert store.sweep() == 0


def test_many_writers_of_one_key(store: Store) -> None:
    failures: list[object] = []

    def write(number: int) -> None:
        mine = Store(store.root)
        for _ in range(15):
            mine.put(KEY, {"x": torch.full((5000,), float(number))})
            back = mine.get(KEY)
            if back is None or float(back["x"].min()) != float(back["x"].max()) or mine.damaged:
                failures.append((number, back))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.name for path in store.path(KEY).parent.iterdir()] == [f"{KEY}.safetensors"]


_WRITER = """
import sys, torch
from pathlib import Path
from engine.cache.store import Store
store = Store(Path(sys.argv[1]))
print("go", flush=True)
while True:
    store.put(sys.argv[2], {"x": torch.zeros(2_000_000)})
"""


@pytest.mark.crash
def test_kills_while_writing_leave_a_whole_entry_or_none(store: Store) -> None:
    for attempt in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(store.root), KEY], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.05 + 0.013 * attempt)
        writer.kill()
        writer.wait()
        reader = Store(store.root)
        assert reader.get(KEY) is not None or not reader.has(KEY)
        assert reader.damaged == []


_FILLER = """
import random, sys, torch
from pathlib import Path
from engine.cache.store import Store, content_key
root, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
order = list(range(count))
random.Random(seed).shuffle(order)
store = Store(root)
for number in order:
    if number % 5 == 0:
        store.sweep()
    key = content_key(number=number)
    entry = store.get(key)
    if entry is None:
        store.put(key, {"x": torch.full((3000,), float(number))})
    elif float(entry["x"].min()) != number or float(entry["x"].max()) != number:
        sys.exit(f"entry {number} holds another's values")
sys.exit(f"{len(store.damaged)} entries were torn" if store.damaged else 0)
"""


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.crash)])
def test_two_runs_filling_one_cache(store: Store, count: int) -> None:
    """Each of them reads what the other wrote; no entry is torn, none is removed, nothing is left behind."""
    fillers = [
        subprocess.Popen(
            [sys.executable, "-c", _FILLER, str(store.root), str(count), str(seed)], stderr=subprocess.PIPE, text=True
        )
        for seed in (1, 2)
    ]
    for filler in fillers:
        _, told = filler.communicate()
        assert filler.returncode == 0, told
    entries = [store.get(content_key(number=number)) for number in range(count)]
    assert all(entry is not None and float(entry["x"][0]) == n for n, entry in enumerate(entries))
    assert store.damaged == [] and store.stats().entries == count
    assert not list(store.root.rglob("*.part"))
    figure("two at once", "cache entries filled by two processes", f"{count} of {count} whole")


def test_a_cache_that_is_only_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, ENTRY)
    old = store.path(KEY).parent / ".0123456789ab.part"
    old.write_bytes(b"torn")
    os.utime(old, (1, 1))

    def read_only(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for call in ("unlink", "replace", "mkdir", "chmod", "fsync"):
        monkeypatch.setattr(os, call, read_only)
    reader = Store(store.root)
    assert reader.sweep() == 0
    assert reader.verify(KEY)
    with pytest.raises(DiskError, match="cannot be written"):
        reader.put(KEY, ENTRY)
    assert reader.get(KEY) is not None


def test_a_folder_that_may_not_be_listed_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(CacheError, match="cannot be read"):
        store.stats()


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_failing_disk_harms_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    store.put(KEY, ENTRY)

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    if call == "write":
        monkeypatch.setattr(Path, "write_bytes", fail)
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(DiskError):
        store.put(KEY, {"mean": torch.ones(4)})
    monkeypatch.undo()
    back = store.get(KEY)
    assert back is not None
    assert torch.equal(back["mean"], ENTRY["mean"])
    assert [path.name for path in store.path(KEY).parent.iterdir()] == [f"{KEY}.safetensors"]


_LIMITED = """
import resource, signal, sys, torch
from pathlib import Path
from engine.cache.store import Store
from engine.errors import DiskError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    Store(Path(sys.argv[1])).put(sys.argv[2], {"x": torch.zeros(100_000)})
except DiskError as err:
    print("refused:", err.title)
"""


def test_a_real_write_limit_is_a_disk_error(store: Store) -> None:
    store.put(KEY, ENTRY)
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(store.root), KEY], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("refused:"), done.stderr
    assert store.get(KEY) is not None
    assert len(list(store.path(KEY).parent.iterdir())) == 1


def test_a_place_that_is_no_folder_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    store = Store(tmp_path / "file" / "cache")
    with pytest.raises(DiskError):
        store.put(KEY, ENTRY)


def test_an_entry_that_may_not_be_read_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, ENTRY)

    def denied(*_args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(CacheError, match="cannot be read") as caught:
        store.get(KEY)
    assert KEY in caught.value.detail


def test_a_bad_sector_is_a_damaged_entry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, ENTRY)

    def failing(*_args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("builtins.open", failing)
    assert store.get(KEY) is None
    monkeypatch.undo()
    assert store.damaged == [KEY]
    assert not store.has(KEY)


def test_an_entry_whose_header_is_strange_is_no_entry_though_its_checksum_holds(tmp_path: Path) -> None:
    key = content_key(picture="a")
    for name in ("../../x", "a\x1b]52;c;QQ==\x07", "a" * 300):
        store = Store(tmp_path)
        data = _seal(safetensors.torch.save({name: torch.zeros(2)}, {"key": key, "sha256": "0" * 64}))
        store.path(key).parent.mkdir(exist_ok=True)
        store.path(key).write_bytes(data)
        assert not store.verify(key) and store.damaged == [key]
        assert store.get(key) is None and not store.has(key)

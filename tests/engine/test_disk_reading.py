"""Disks that fail while they are read, disks on a network, and errors that libraries clothe in other types."""

from __future__ import annotations

import builtins
import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pocket import finish, pocket_config, told

import engine.cache.stage as caching
from engine.cache.stage import Stage
from engine.cache.store import Store, content_key
from engine.errors import DiskError, DiskFull
from engine.events import Log, RunFailed, StepDone
from engine.files import atomic_path, disk_error, is_disk_error
from engine.hardware import disks
from engine.hardware.disks import filesystem_of, network_type
from engine.run import Run, open_run
from engine.training.checkpoint import load_newest


class BadReads:
    """Every attempt to open a file whose path holds ``part`` for reading ends in EIO, while ``on``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, part: str, on: bool = True) -> None:
        self.part, self.on = part, on
        for place, name in ((builtins, "open"), (io, "open"), (os, "open")):
            monkeypatch.setattr(place, name, self._opener(getattr(place, name)))

    def _opener(self, opened: Any) -> Any:
        def opening(path: Any, *rest: Any, **options: Any) -> Any:
            if self.on and not isinstance(path, int) and self.part in os.fsdecode(path):
                raise OSError(errno.EIO, os.strerror(errno.EIO), os.fsdecode(path))
            return opened(path, *rest, **options)

        return opening


@pytest.mark.parametrize("part", ["flux-pocket.safetensors", "t5-pocket.safetensors", "data/02.png", "data/02.txt"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, part):
    config = pocket_config(tmp_path)
    BadReads(monkeypatch, part)
    run = finish(Run(config))
    [failure] = told(run, RunFailed)
    said = failure.title + failure.detail + "".join(event.text for event in told(run, Log))
    assert Path(part).name in said and not failure.title.startswith("Unexpected")
    assert "Traceback" not in failure.detail and failure.title


def test_a_cache_entry_that_cannot_be_read_any_more_costs_no_saved_step(tmp_path, monkeypatch):
    from engine.trainer import Trainer
    from engine.training import entries

    monkeypatch.setattr(entries, "KEEP_BYTES", 0)
    reads = BadReads(monkeypatch, str(tmp_path / "cache"), on=False)
    step_of = Trainer._step

    def stepping(self: Any, turn: Any) -> None:
        if turn.step == 5:
            self.keeper.settle()
            reads.on = True
        step_of(self, turn)

    monkeypatch.setattr(Trainer, "_step", stepping)
    run = finish(Run(pocket_config(tmp_path, training={"state_every_steps": 1})))
    [failure] = told(run, RunFailed)
    assert failure.title == "A cache entry is gone or damaged" and "Resume" in failure.hint
    saved = load_newest(run.folder.states)[0].place.step
    assert saved >= 4
    monkeypatch.undo()
    again = finish(open_run(run.folder.root))
    assert again.exit_reason == "finished"
    assert [event.step for event in told(again, StepDone)] == list(range(saved + 1, 10))


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/local\\040disk xfs rw 0 0
proc /proc proc rw 0 0
torn
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/runs", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/runs", "nfs4"),
        ("/home/me/local disk/runs", "xfs"),
        ("/homes", "ext4"),
    ],
)
def test_the_innermost_mount_tells_the_type(path, kind):
    assert filesystem_of(path, MOUNTS) == kind


def test_a_network_disk_is_told_once_when_a_run_begins(tmp_path, monkeypatch):
    table = tmp_path / "mounts"
    table.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path}/runs nfs rw 0 0\n")
    monkeypatch.setattr(disks, "MOUNTS", table)
    assert network_type(tmp_path) == "" and network_type(tmp_path / "runs" / "a") == "nfs"
    run = finish(Run(pocket_config(tmp_path, training={"steps": 1})))
    assert sum("network disk (nfs)" in event.text for event in told(run, Log)) == 1
    monkeypatch.setattr(disks, "MOUNTS", tmp_path / "absent")
    assert network_type(tmp_path) == ""


class SafetensorError(Exception):
    """As the library's own: no OSError, the number in its text only."""


@pytest.mark.parametrize(
    ("err", "kind"),
    [
        (OSError(errno.ENOSPC, "x"), DiskFull),
        (OSError(errno.EDQUOT, "x"), DiskFull),
        (OSError(errno.EFBIG, "x"), DiskFull),
        (SafetensorError("I/O error: No space left on device (os error 28)"), DiskFull),
        (
            RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos; No space left on device"),
            DiskFull,
        ),
        (RuntimeError("write failed: Disk quota exceeded"), DiskFull),
        (OSError(errno.EIO, "x"), DiskError),
        (RuntimeError("Input/output error"), DiskError),
    ],
)
def test_what_libraries_say_of_a_disk_is_recognised(tmp_path, err, kind):
    assert is_disk_error(err) and type(disk_error(err, tmp_path / "a")) is kind
    with pytest.raises(kind), atomic_path(tmp_path / "a") as temp:
        temp.write_bytes(b"half")
        raise err
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_left_as_they_are(tmp_path):
    assert not is_disk_error(RuntimeError("CUDA out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"), atomic_path(tmp_path / "a"):
        raise RuntimeError("CUDA out of memory")


def test_a_cache_without_room_for_what_is_left_is_refused_after_its_first_entry(tmp_path, monkeypatch):
    keys = {content_key(number=number): f"{number}.png" for number in range(100)}
    stage = Stage(Store(tmp_path), keys, lambda *told: None, lambda: False)
    first, second, *_ = keys
    monkeypatch.setattr(caching, "free_bytes", lambda path: 50_000)
    with pytest.raises(DiskFull, match="99 entries are left"):
        stage.put(first, {"a": torch.ones(1000)})
    assert stage.store.verify(first)
    stage = Stage(Store(tmp_path), keys, lambda *told: None, lambda: False)
    monkeypatch.setattr(caching, "free_bytes", lambda path: 10**9)
    stage.put(second, {"a": torch.ones(1000)})
    assert stage.ready == {second}

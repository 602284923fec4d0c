"""Durable writes, safe names, run folders."""

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DiskError
from engine.files import (
    RunFolder,
    atomic_path,
    atomic_write,
    create_run_folder,
    disk_error,
    is_held,
    others_may_write,
    slug,
)
from engine.leftovers import clear_up


def test_atomic_write_replaces_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    atomic_write(target, "old")
    atomic_write(target, b"new")
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["file.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    atomic_write(target, "old")
    with pytest.raises(ValueError, match="broke"), atomic_path(target) as temp:
        temp.write_text("half")
        raise ValueError("broke")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_full_disk_at_any_call_is_explained_and_harmless(tmp_path, monkeypatch, call):
    target = tmp_path / "file.txt"
    atomic_write(target, "old")

    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DiskError) as caught:
        atomic_write(target, "new")
    monkeypatch.undo()
    assert caught.value.title == "The disk is full"
    assert str(target) in caught.value.detail
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_result_has_ordinary_permissions(tmp_path):
    atomic_write(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_folder_that_cannot_be_made_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        create_run_folder(tmp_path / "file" / "runs", "x")


def test_read_only_is_said():
    err = disk_error(OSError(errno.EROFS, "Read-only file system"), Path("/x/y"))
    assert err.title == "The folder cannot be written" and "runs_dir" in err.hint


@given(st.text(max_size=300))
def test_slug_never_escapes(name):
    reduced = slug(name)
    assert reduced and len(reduced) <= 80
    assert os.path.basename(reduced) == reduced
    assert not reduced.startswith(".") and reduced != ".."
    assert slug(reduced) == reduced


def test_runs_of_one_name_get_folders_of_their_own(tmp_path):
    names = [create_run_folder(tmp_path, "my ../run").name for _ in range(3)]
    assert names == ["my-..-run", "my-..-run-2", "my-..-run-3"]
    assert all((tmp_path / name / "samples").is_dir() for name in names)


def test_lora_names_tell_what_they_are(tmp_path):
    folder = RunFolder(tmp_path / "fox")
    assert folder.lora(3, 30, "epoch").name == "fox-e0003.safetensors"
    assert folder.lora(3, 30, "manual").name == "fox-s000030.safetensors"
    assert folder.lora(3, 30, "final").name == "fox.safetensors"
    assert folder.lora(3, 30, "final", "diffusers").name == "fox.diffusers.safetensors"


def test_whether_a_lock_is_held_can_be_seen(tmp_path):
    lock = tmp_path / "run.lock"
    assert not is_held(lock)
    with open(lock, "w") as file:
        assert not is_held(lock)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(lock)
    assert not is_held(lock)


def test_who_else_may_write_is_said(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    assert others_may_write(folder) == "" == others_may_write(tmp_path / "absent")
    folder.chmod(0o777)
    assert "everybody" in others_may_write(folder)
    folder.chmod(0o755)
    found = os.stat(folder)

    def stands(mode, user, group):
        told = os.stat_result((mode, *found[1:4], user, group, *found[6:]))
        monkeypatch.setattr(os, "stat", lambda path: told)
        said = others_may_write(folder)
        monkeypatch.undo()
        return said

    me = os.geteuid()
    assert stands(0o40755, me + 4711, 4711) == f"it belongs to {me + 4711}"
    assert stands(0o40755, 0, 0) == ""
    assert "the group 4711" in stands(0o40775, me, 4711)
    monkeypatch.setattr("pwd.getpwuid", lambda number: ("anna",))
    monkeypatch.setattr("grp.getgrgid", lambda number: ("anna",))
    folder.chmod(0o775)
    assert others_may_write(folder) == ""  # her own group, as many systems give everybody one


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_permissions_of_ordinary_new_ones(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        atomic_write(tmp_path / "a", b"any")
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "a").st_mode & 0o777 == mode


_KILLED = """
import os, signal, sys
from pathlib import Path
from engine.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temp:
    temp.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_when_the_folder_is_first_written_to(tmp_path):
    target = tmp_path / "a"
    subprocess.run([sys.executable, "-c", _KILLED, target], check=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    others = tmp_path / ".others.part"
    others.write_bytes(b"not ours")
    with atomic_path(target) as temp:
        temp.write_bytes(b"whole")
        assert clear_up(tmp_path) == 0  # its writer lives
    assert sorted(path.name for path in tmp_path.iterdir()) == [".others.part", "a"]
    assert clear_up(tmp_path / "none") == 0


def test_a_folder_stands_on_the_disk_before_anything_in_it_is_promised(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr("engine.files.flush", lambda path: flushed.append(path))
    atomic_write(tmp_path / "new" / "newer" / "a", b"x")
    assert flushed[:2] == [tmp_path, tmp_path / "new"] and flushed[-1] == tmp_path / "new" / "newer"
    del flushed[:]
    folder = create_run_folder(tmp_path / "runs", "test")
    assert flushed[0] == tmp_path and flushed[1].suffix == ".part" and flushed[2:] == [tmp_path / "runs"]
    assert folder.states.is_dir()


_KILLED_MAKING = """
import os, signal, sys
from pathlib import Path
from engine.files import create_run_folder
def fill(folder):
    folder.config.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
create_run_folder(Path(sys.argv[1]), "test", fill)
"""


def test_a_run_killed_while_its_folder_is_made_leaves_none(tmp_path):
    subprocess.run([sys.executable, "-c", _KILLED_MAKING, tmp_path], check=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    living = []

    def fill(folder):
        living.append(clear_up(tmp_path))
        folder.config.write_text("whole")

    assert create_run_folder(tmp_path, "test", fill).config.read_text() == "whole"
    assert living == [0], "what is being made is not cleared up"
    assert [path.name for path in tmp_path.iterdir()] == ["test"]


def test_a_run_that_cannot_be_filled_leaves_no_folder(tmp_path):
    def fill(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskError):
        create_run_folder(tmp_path, "test", fill)
    assert list(tmp_path.iterdir()) == []


def test_folders_made_at_once_are_two(tmp_path, monkeypatch):
    """Both find the same name free; whoever comes second takes the next."""
    (tmp_path / "test").mkdir()
    (tmp_path / "test-3").write_text("a file of the user's")
    assert create_run_folder(tmp_path, "test").name == "test-2"
    monkeypatch.setattr("engine.leftovers.os.path.lexists", lambda path: path == tmp_path / "test")
    assert [create_run_folder(tmp_path, "test").name for _ in range(2)] == ["test-4", "test-5"]
    assert os.listdir(tmp_path / "test") == [] and (tmp_path / "test-3").is_file()


def test_many_made_at_once_get_names_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: create_run_folder(tmp_path, "test").name, range(40)))
    assert sorted(names) == sorted(os.listdir(tmp_path))
    assert set(names) == {"test", *(f"test-{number}" for number in range(2, 41))}

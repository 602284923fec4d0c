"""The seams see every change, in pieces, and nothing outside their folders."""

import errno
import shutil

import pytest
from seams import PIECE, Seams

from engine.errors import DiskError
from engine.files import atomic_write


def test_each_change_below_the_folder_is_told_before_it_happens(tmp_path):
    told = []
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    with Seams([inside], lambda number, what, path: told.append((number, what, path.removeprefix(str(inside))))):
        atomic_write(inside / "a", bytes(3 * PIECE))
        atomic_write(outside / "a", bytes(3 * PIECE))
        with (inside / "b").open("a", encoding="utf-8") as file:
            file.write("é")
        (inside / "folder").mkdir()
        shutil.rmtree(inside / "folder")
    assert [number for number, _, _ in told] == list(range(1, len(told) + 1))
    kinds = [what for _, what, _ in told]
    assert kinds[:8] == ["mkdir", "open", "write", "write", "write", "fsync", "replace", "fsync"]
    assert kinds[8:] == ["open", "write", "mkdir", "rmdir"]
    assert (inside / "a").read_bytes() == bytes(3 * PIECE) and (inside / "b").read_text(encoding="utf-8") == "é"
    assert told[6][2].endswith(".part") and told[7][2] == ""


@pytest.mark.parametrize("nth", range(2, 9))  # the first makes the folder, which stands
def test_an_error_at_any_moment_of_an_atomic_write_leaves_the_old_file_or_the_new(tmp_path, nth):
    target = tmp_path / "a"
    atomic_write(target, b"old")

    def fail(number, what, path):
        if number == nth:
            raise OSError(errno.ENOSPC, "No space left on device")

    with Seams([tmp_path], fail), pytest.raises(DiskError, match="disk is full"):
        atomic_write(target, b"n" * 3 * PIECE)
    assert target.read_bytes() in (b"old", b"n" * 3 * PIECE)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

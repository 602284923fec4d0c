"""Damaged files: noticed, recovered or refused with a clear message; never a wrong result, a traceback or a crash."""

from __future__ import annotations

import os
import random
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kinds import DETECTED, KINDS, Kind, damages
from reliability import figure

from engine.errors import EngineError
from engine.text import safe_text

QUICK, WHOLE = 24, None


def put(path: Path, data: bytes) -> None:
    """A new file in the place of ``path``, made again where a reader set it aside."""
    temp = path.with_name("damaged.tmp")
    temp.write_bytes(data)
    os.replace(temp, path)


def verdict(kind: Kind, path: Path, good: Any) -> str:
    """What became of reading ``path``: harmless, refused, noticed, accepted or silent."""
    try:
        found = kind.read(path)
    except EngineError as err:
        assert err.title and safe_text(str(err), 100_000, newlines=True) == str(err)
        return "refused"
    if isinstance(found, str) and found == DETECTED:
        return "noticed"
    if found == good:
        return "harmless"
    return "accepted" if kind.accepts(good, found) else "silent"


@pytest.mark.parametrize("flips", [QUICK, pytest.param(WHOLE, marks=[pytest.mark.crash, pytest.mark.timeout(3000)])])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_damage_is_silent(kind: Kind, flips: int | None, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    path, other = kind.make(tmp_path / "one", 0), kind.make(tmp_path / "two", 1).read_bytes()
    data, good = path.read_bytes(), kind.read(path)
    rng = random.Random(zlib.crc32(kind.name.encode()))
    told: Counter[str] = Counter()
    quick = flips is not None
    wrong = []
    count = flips if flips is None or not kind.costly else flips // 3
    for what, damaged in damages(data, b"" if kind.lines else other, rng, count, 5 if quick else 100):
        put(path, damaged)
        try:
            outcome = verdict(kind, path, good)
        except Exception as err:  # collected: one run tells every damage that a reader does not stand
            outcome = f"{type(err).__name__}: {err}"
        told[outcome] += 1
        if outcome not in ("harmless", "refused", "noticed", "accepted"):
            wrong.append(f"{what}: {outcome}")
    put(path, data)
    assert kind.read(path) == good
    assert not wrong, f"{len(wrong)} of {told.total()}, such as {wrong[:5]}"
    parts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(told.items()))
    figure("damage", kind.name, f"{told.total()} damages: {parts}; 0 silent")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.bound], ids=lambda kind: kind.name)
def test_a_whole_file_in_anothers_place_is_noticed(kind: Kind, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    path, other = kind.make(tmp_path / "one", 0), kind.make(tmp_path / "two", 1).read_bytes()
    good = kind.read(path)
    put(path, other)
    assert verdict(kind, path, good) in ("refused", "noticed")


def test_what_counts_as_silent_is_seen() -> None:
    """The measure itself: a reader that believes everything fails it."""

    def make(folder: Path, which: int) -> Path:
        return folder / "x"

    believes = Kind("any", (), make, lambda path: path.read_bytes(), "none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: b"b")
        assert verdict(believes, Path("x"), b"a") == "silent"
        assert verdict(believes, Path("x"), b"b") == "harmless"

"""Power lost at any moment of a run: what the next start finds is one generation or another, never a mixture."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import judging
import pytest
import scenarios
from harness import Zygote
from power import MODES, Disk, File, crashes, flushed_names, versions
from reliability import figure
from seams import Change, Seams

from engine.cache.store import Store
from engine.config_file import load_config
from engine.dataset.applying import Wanted, apply, undo
from engine.dataset.history import load_history
from engine.dataset.journal import Journal
from engine.events import EventLog, replay
from engine.files import RunFolder, atomic_write
from engine.training.checkpoint import load_newest

CRASHES = 500
RESUMED = 10
DURABLE = (".safetensors", ".png", ".toml", ".json")


def test_the_model_loses_what_was_not_flushed_and_nothing_else(tmp_path: Path) -> None:
    home, trace = tmp_path / "home", []
    home.mkdir()
    (home / "a").write_bytes(b"old")
    disk = Disk(home)
    with Seams([home], lambda *_: None, trace.append):
        atomic_write(home / "a", b"new")
        with open(home / "log", "w") as file:
            file.write("said")
    for change in trace:
        disk.apply(change)
    for mode in MODES:
        disk.crash(tmp_path / mode, mode, random.Random(1))
        assert (tmp_path / mode / "a").read_bytes() == b"new"
    assert not (tmp_path / "dropped" / "log").exists()
    assert (tmp_path / "zeroed" / "log").read_bytes() == bytes(4)
    assert (tmp_path / "kept" / "log").read_text() == "said"


def test_a_write_in_place_is_caught_by_the_model(tmp_path: Path) -> None:
    home, trace = tmp_path / "home", []
    home.mkdir()
    (home / "a").write_bytes(b"old")
    disk = Disk(home)
    with Seams([home], lambda *_: None, trace.append):
        (home / "a").write_bytes(b"new")
    for change in trace:
        disk.apply(change)
    node = disk.node(str(home / "a"))
    assert isinstance(node, File)
    assert {node.crashed(mode, random.Random(1)) for mode in ("dropped", "zeroed", "kept")} == {
        b"old",
        bytes(3),
        b"new",
    }


def recorded(zygote: Zygote) -> tuple[Path, Path, list[Change]]:
    """A run's home before and after, and all that happened to it in between."""
    home, before = zygote.place / "power", zygote.place / "power-before"
    trace = zygote.place / "power.trace"
    if not trace.exists():
        scenarios.lay_out(home)
        shutil.copytree(home, before)
        zygote.attempt("train", "adamw", home, record=trace)
        home.rename(zygote.place / "power-after")
    return before, home, pickle.loads(trace.read_bytes())


@pytest.mark.parametrize(
    ("count", "resumed"),
    [
        pytest.param(10, 0, id="quick", marks=pytest.mark.timeout(900)),
        pytest.param(CRASHES, RESUMED, id="whole", marks=[pytest.mark.crash, pytest.mark.timeout(3000)]),
    ],
)
def test_power_lost_at_any_moment_leaves_one_generation_or_another(zygote: Zygote, count: int, resumed: int) -> None:
    before, home, trace = recorded(zygote)
    moved = [(what, _in(path, home, before), _in(data, home, before)) for what, path, data in trace]
    known = versions(before, moved)
    step = max(1, count // resumed) if resumed else 0
    modes = dict.fromkeys(MODES, 0)
    for number, (end, mode, disk) in enumerate(crashes(before, moved, home, count, seed=5)):
        what = f"crash {number} after {end} of {len(trace)} changes, {mode}"
        modes[mode] += 1
        found_whole(what, home, known, disk, str(before))
        if step and number % step == step - 1:
            zygote.attempt("train", "adamw", home)
            judging.same_run(what, judging.run_of(home), judging.run_of(zygote.place / "power-after"), False)
    figure("power loss", "crash states with one generation or another", f"{count} of {count}")
    figure("power loss", "states by what became of unflushed data", json.dumps(modes))
    if resumed:
        figure("power loss", "of them resumed to the end with the same bits", f"{count // step} of {count // step}")


def _in(path: object, home: Path, before: Path) -> object:
    """``path`` as if it had happened in ``before``."""
    return os.path.join(before, os.path.relpath(path, home)) if isinstance(path, str) else path


def found_whole(what: str, home: Path, known: dict[str, set[bytes]], disk: Disk, before: str) -> None:
    """Every durable file holds something that was once given its name; nothing promised has gone."""
    for path in home.rglob("*"):
        name = str(path.relative_to(home))
        durable = path.is_file() and path.suffix in DURABLE and ".part" not in name
        if durable and not name.startswith("data"):
            assert path.read_bytes() in known.get(name, ()), f"{name} is a mixture: {what}"
    for folder in home.glob("runs/*"):
        root = RunFolder(folder)
        inside = os.path.join(before, "runs", folder.name)
        promised = sorted(name for name in flushed_names(disk, os.path.join(inside, "state")) if name[0] != ".")
        state, damaged = load_newest(root.states)
        assert not damaged, f"{damaged}: {what}"
        assert not promised or (state is not None and state.place.step >= int(promised[-1][-8:])), what
        assert root.config.exists() or state is None, f"a state without its configuration: {what}"
        if root.config.exists():
            load_config(root.config)
        history = load_history(root.captions)
        assert state is None or history.decided >= 1, f"a state without its captions: {what}"
        EventLog(root.events).close()
        list(replay(root.events))
    store = Store(home / "cache")
    keys = [path.stem for path in (home / "cache").glob("*/*.safetensors")]
    assert all(store.verify(key) for key in keys) and not store.damaged, what


def test_power_lost_while_captions_are_changed_together_leaves_whole_ones_and_their_undo(tmp_path: Path) -> None:
    home, trace = tmp_path / "home", []
    (home / "data").mkdir(parents=True)
    paths = [home / "data" / f"{number}.txt" for number in range(3)]
    for path in paths:
        path.write_text("old")
    disk = Disk(home)
    with Seams([home], lambda *_: None, trace.append):
        journal = Journal(home / "undo.jsonl")
        apply("Replace", [Wanted(path, "old", "new") for path in paths], journal)
        undo(journal)
    states = 0
    for change in trace:
        disk.apply(change)
        for mode in MODES:
            found = tmp_path / f"{states}"
            disk.crash(found, mode, random.Random(states))
            texts = [(found / "data" / path.name).read_text() for path in paths]
            steps = Journal(found / "undo.jsonl").steps()
            assert set(texts) <= {"old", "new"}, (mode, texts)
            assert steps or set(texts) == {"old"}, f"changed without its step: {mode}"
            states += 1
    figure("power loss", "states of captions changed together, all whole", str(states))

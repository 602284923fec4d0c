"""A clock that jumps by a day or by ten years, forth and back: nothing durable and no duration depends on it."""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pocket import finish, submit_after, told
from reliability import figure
from safetensors.torch import load_file
from scarce_runs import make_place, small

from engine import files
from engine.cache.store import Store
from engine.commands import Pause, Resume, SaveNow, StopNow
from engine.events import EpochDone, EventLog, RunDone, StepDone
from engine.run import Run, open_run
from engine.training.checkpoint import generations, load_newest
from tui.bridge import view_of

DAY, YEARS = 86_400.0, 3_652.5 * 86_400.0
JUMPS = (0.0, DAY, -DAY, YEARS, -YEARS)


def jumping(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the wall clock jump at every look, by each of :data:`JUMPS` in turn; returns what it showed."""
    now, now_ns, shown = time.time, time.time_ns, []
    offsets = itertools.cycle(JUMPS)

    def jumped() -> float:
        shown.append(max(now() + next(offsets), 0.0))
        return shown[-1]

    monkeypatch.setattr(time, "time", jumped)
    monkeypatch.setattr(time, "time_ns", lambda: max(now_ns() + int(next(offsets) * 1e9), 0))
    # The log of events keeps the clock that it was made with.
    monkeypatch.setattr(EventLog.__init__, "__defaults__", (None, 20_000, jumped))
    return shown


def contents(run: Run) -> dict[str, Any]:
    """What a run left that counts: weights, places of its states, names of its files."""
    assert run.folder is not None
    states = {path.name for path in generations(run.folder.states)}
    state, damaged = load_newest(run.folder.states)
    assert state is not None and not damaged
    place = (state.place.step, state.place.epoch, state.place.index, state.place.loss_sum, state.place.skipped)
    names = {path.name.replace(run.folder.name, "run") for path in run.folder.root.glob("*") if path.is_file()}
    lora = load_file(run.folder.root / f"{run.folder.name}.safetensors")
    return {"states": states, "place": place, "files": names, "lora": {k: v.tolist() for k, v in lora.items()}}


def test_a_run_under_a_jumping_clock_is_the_same(tmp_path, monkeypatch):
    place = make_place(tmp_path)
    config = small(place, training={"epochs": 3, "state_every_steps": 2})
    began = time.monotonic()
    whole = finish(Run(config))
    wanted = contents(whole)
    shown = jumping(monkeypatch)
    submit_after(monkeypatch, {2: [Pause(), Resume(), SaveNow()], 3: [StopNow()], 4: [SaveNow()]})
    cut = finish(Run(config))
    assert cut.exit_reason == "stopped" and cut.folder is not None
    (cut.folder.root / f"{cut.folder.name}-s000002.safetensors").unlink()
    (cut.folder.root / f"{cut.folder.name}-s000003.safetensors").unlink()
    resumed = finish(open_run(cut.folder.root))
    (cut.folder.root / f"{cut.folder.name}-s000004.safetensors").unlink()
    took = time.monotonic() - began
    found = contents(resumed)
    assert found["lora"] == wanted["lora"] and found["place"] == wanted["place"]
    assert found["files"] == wanted["files"] and found["states"] == wanted["states"]
    # Durations are true: none negative, none as long as a jump.
    steps = [event for run in (cut, resumed) for event in told(run, StepDone)]
    assert all(0 <= event.step_s < took and event.data_s >= 0 for event in steps) and len(steps) == 6
    assert 0 < told(resumed, RunDone)[0].elapsed_s < took and told(resumed, EpochDone)
    assert max(shown) - min(shown) > 2 * YEARS - DAY and len(shown) > 50
    # A reader counts no jump as time spent.
    view = view_of(resumed.folder.events)
    assert view.step == 6 and 0 <= view.active_s < took
    figure("clock", "wall clock read", f"{len(shown)} times, up to ten years off; same bits, true durations")


def test_a_cache_entry_that_is_being_written_outlives_a_sweep_ten_years_later(tmp_path, monkeypatch):
    store, reader = Store(tmp_path), Store(tmp_path)
    key = "ab" + "0" * 62
    flush, swept = files.flush, []

    def flushing(path: Path) -> None:
        if path.suffix == ".part":
            with monkeypatch.context() as patched:
                real = time.time
                patched.setattr(time, "time", lambda: real() + YEARS)
                swept.append(reader.sweep())
        flush(path)

    monkeypatch.setattr(files, "flush", flushing)
    store.put(key, {"a": torch.ones(3)})
    assert swept == [0] and store.get(key) is not None
    # What a kill left goes all the same.
    left = tmp_path / "ab" / ".0123456789ab.part"
    left.write_bytes(b"torn")
    os.utime(left, (1, 1))
    assert reader.sweep() == 1 and not left.exists()


def test_a_lock_held_elsewhere_keeps_an_old_file(tmp_path):
    left = tmp_path / "ab" / ".0123456789ab.part"
    left.parent.mkdir()
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    held, done = threading.Event(), threading.Event()

    def holds() -> None:
        with open(left, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            held.set()
            done.wait(60)

    thread = threading.Thread(target=holds)
    thread.start()
    assert held.wait(60)
    assert Store(tmp_path).sweep() == 0 and left.exists()
    done.set()
    thread.join(60)
    assert Store(tmp_path).sweep() == 1


def test_no_duration_comes_from_the_wall_clock():
    """The wall clock is read where a date is meant, in these modules and no other of the engine."""
    import engine

    root = Path(engine.__file__).parent
    readers = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(words in path.read_text() for words in ("time.time", "datetime.now", "utcnow"))
    }
    assert readers == {
        "captioners/making.py", "dataset/watch.py", "events.py", "jobs.py", "locks.py", "training/export.py",
    }  # fmt: skip

"""A disk that is full, fails or goes away while a run trains: it holds, says so, and goes on where it was."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pocket import finish, pocket_config, told
from safetensors.torch import load_file

import engine.training.patience as patience
import engine.training.room as rooms
from engine.commands import Remove, Resume, SaveNow, StopNow
from engine.errors import DiskFull
from engine.events import DiskTight, EventLog, Log, RunFailed, RunStarted, StateChanged, StepDone, replay
from engine.files import RunFolder
from engine.run import Run, open_run
from engine.training.checkpoint import load_newest
from engine.training.room import Room, SaveSize, removable


class BadDisk:
    """Refuses every fsync of the paths that ``refuses`` picks, while it is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOSPC) -> None:
        self.on = threading.Event()
        self.refused = 0
        self.code = code
        self.refuses: Callable[[str], bool] = lambda path: True
        fsync = os.fsync

        def refusing(fd: int) -> None:
            if self.on.is_set() and self.refuses(os.readlink(f"/proc/self/fd/{fd}")):
                self.refused += 1
                raise OSError(self.code, os.strerror(self.code))
            fsync(fd)

        monkeypatch.setattr(os, "fsync", refusing)


def until(condition: Callable[[], object], run: Run, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end and run.alive, (run.state, told(run, RunFailed))
        time.sleep(0.01)


def texts(run: Run, level: str) -> list[str]:
    return [event.text for event in told(run, Log) if event.level == level]


def bits(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder.lora(0, 0, "final"))


def same(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == wanted.keys() and all(torch.equal(ours[name], wanted[name]) for name in ours)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache and dataset for all runs."""
    return tmp_path_factory.mktemp("disk-holds")


@pytest.fixture(scope="module")
def expected(home: Path) -> dict[str, torch.Tensor]:
    """The LoRA of a run that nothing disturbed."""
    return bits(finish(Run(config(home))))


def config(home: Path, **changes: Any) -> Any:
    return pocket_config(home, **({"training": {"state_every_steps": 1}} | changes))


def bad_from(monkeypatch: pytest.MonkeyPatch, step: int, disk: BadDisk) -> None:
    """The disk turns bad at this step, the state of the one before standing."""
    from engine.trainer import Trainer

    step_of = Trainer._step

    def stepping(self: Any, turn: Any) -> None:
        if turn.step == step:
            self.keeper.settle()
            disk.on.set()
        step_of(self, turn)

    monkeypatch.setattr(Trainer, "_step", stepping)


@pytest.mark.parametrize(
    "code",
    [errno.EIO] + [pytest.param(code, marks=pytest.mark.crash) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)],
)
def test_a_run_holds_and_goes_on_by_key(home, expected, monkeypatch, code):
    disk = BadDisk(monkeypatch, code)
    bad_from(monkeypatch, 5, disk)
    run = Run(config(home))
    run.start()
    until(lambda: run.state == "paused", run)
    assert load_newest(run.folder.states)[0].place.step == 4
    [held] = [event for event in told(run, StateChanged) if event.state == "paused"]
    assert held.reason in texts(run, "error")[0] and "Paused" in texts(run, "error")[0]
    refused = disk.refused
    run.submit(Resume())
    until(lambda: disk.refused > refused, run)  # still bad: it stays held
    until(lambda: run.state == "paused", run)
    disk.on.clear()
    run.submit(Resume())
    assert run.join(120) and run.exit_reason == "finished"
    assert same(bits(run), expected)
    assert not [path for path in run.folder.root.rglob("*") if path.name.endswith((".part", ".old"))]


def test_a_run_that_nobody_watches_tries_again_by_itself(home, expected, monkeypatch):
    monkeypatch.setattr(patience, "RETRY_S", 0.05)
    disk = BadDisk(monkeypatch)
    bad_from(monkeypatch, 5, disk)
    run = Run(config(home))
    run.start()
    until(lambda: disk.refused > 6, run)
    assert len(texts(run, "error")) == 1
    disk.on.clear()
    assert run.join(120) and run.exit_reason == "finished" and same(bits(run), expected)


def test_a_stop_while_held_tries_once_more_and_ends_with_the_older_state_intact(home, expected, monkeypatch):
    disk = BadDisk(monkeypatch)
    bad_from(monkeypatch, 5, disk)
    run = Run(config(home))
    run.start()
    until(lambda: run.state == "paused", run)
    run.submit(StopNow())
    assert run.join(120) and run.exit_reason == "failed"
    [failure] = told(run, RunFailed)
    assert failure.title == "The disk is full" and "unharmed" in failure.hint
    disk.on.clear()
    monkeypatch.undo()
    again = finish(open_run(run.folder.root))
    assert told(again, RunStarted)[0].resumed_step == 4
    assert again.exit_reason == "finished" and same(bits(again), expected)


def test_a_stop_while_held_saves_where_it_can(home, monkeypatch):
    disk = BadDisk(monkeypatch)
    bad_from(monkeypatch, 5, disk)
    run = Run(config(home))
    run.start()
    until(lambda: run.state == "paused", run)
    disk.on.clear()
    run.submit(StopNow())
    assert run.join(120) and run.exit_reason == "stopped"
    assert load_newest(run.folder.states)[0].place.step == len(told(run, StepDone)) >= 5


def test_a_folder_that_is_moved_away_holds_the_run_until_it_is_back(home, expected, monkeypatch):
    """Nothing is written where it was: a new folder there would be in the way of the old one."""
    away = home / "away"
    from engine.trainer import Trainer

    step_of = Trainer._step

    def stepping(self: Any, turn: Any) -> None:
        if turn.step == 5:
            self.keeper.settle()
            os.rename(self.folder.root, away)
        step_of(self, turn)

    monkeypatch.setattr(Trainer, "_step", stepping)
    run = Run(config(home))
    run.start()
    until(lambda: run.state == "paused", run)
    assert "The run's folder is gone" in texts(run, "error")[0] and not run.folder.root.exists()
    os.rename(away, run.folder.root)
    run.submit(Resume())
    assert run.join(120) and run.exit_reason == "finished" and same(bits(run), expected)
    written = [entry.event.step for entry in replay(run.folder.events) if isinstance(entry.event, StepDone)]
    assert written == list(range(1, 10))


def test_samples_wait_for_the_disk_too(home, monkeypatch):
    disk = BadDisk(monkeypatch, errno.EIO)
    disk.refuses = lambda path: "samples" in path
    disk.on.set()
    run = Run(config(home, sampling={"prompts": [{"prompt": "a zorple"}]}))
    run.start()
    until(lambda: run.state == "paused", run)
    disk.on.clear()
    run.submit(Resume())
    assert run.join(120) and run.exit_reason == "finished"
    assert len(list(run.folder.samples.glob("*.png"))) == 4


@pytest.mark.crash
def test_captions_wait_for_the_disk_and_count_from_the_epoch_they_were_found_in(tmp_path, monkeypatch):
    """The line that was torn is cut off: everything behind it would be lost to a resumed run."""
    import engine.dataset.history as history

    (tmp_path / "data").parent.mkdir(exist_ok=True)
    settings = config(tmp_path, training={"epochs": 2})
    flush, bad = history.flush, []

    def failing(path: Path) -> None:
        if bad:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(history, "flush", failing)
    from engine.trainer import Trainer

    step_of = Trainer._step

    def stepping(self: Any, turn: Any) -> None:
        step_of(self, turn)
        if turn.step == 3:
            (tmp_path / "data" / "00.txt").write_text("a zorple, edited")
            bad.append(1)

    monkeypatch.setattr(Trainer, "_step", stepping)
    run = Run(settings)
    run.start()
    until(lambda: run.state == "paused", run)
    bad.clear()
    run.submit(Resume())
    assert run.join(120) and run.exit_reason == "finished"
    lines = run.folder.captions.read_text().splitlines()
    assert len(lines) == 2 and "edited" in lines[1] and '"epoch": 2' in lines[1]


def test_events_are_kept_while_the_disk_is_full_and_written_after(home, expected, monkeypatch):
    run = Run(config(home))
    from engine.trainer import Trainer

    step_of, room = Trainer._step, []

    class Disk:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def fileno(self) -> int:
            return self.file.fileno()

        def close(self) -> None:
            self.file.close()

    def stepping(self: Any, turn: Any) -> None:
        if turn.step == 4:
            run.events._file._file = Disk(run.events._file._file)
        step_of(self, turn)

    monkeypatch.setattr(Trainer, "_step", stepping)
    run.start()
    until(lambda: run.state == "paused", run)
    room.append(1)
    run.submit(Resume())
    assert run.join(120) and run.exit_reason == "finished" and same(bits(run), expected)
    written = [entry.event.step for entry in replay(run.folder.events) if isinstance(entry.event, StepDone)]
    assert written == list(range(1, 10))


def test_the_reserve_lets_the_last_state_be_written_on_a_full_disk(home, expected, monkeypatch):
    """With the reserve given up there is room for one save: it is made, and the run holds after it, not before."""
    full = threading.Event()

    def reserves(root: Path) -> list[Path]:
        return list(root.glob(".reserve.part"))

    def free(path: Path) -> int:
        """A disk on which, once full, there is just what the reserve took, and that is given to the next save."""
        return 2 * 2**20 if full.is_set() and not reserves(path) else 1000 if full.is_set() else 2**30

    take = rooms.Room._take_reserve

    def taking(self: Any) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        take(self)

    monkeypatch.setattr(rooms, "free_bytes", free)
    monkeypatch.setattr(rooms.Room, "_take_reserve", taking)
    from engine.trainer import Trainer

    step_of = Trainer._step

    def stepping(self: Any, turn: Any) -> None:
        if turn.step == 6 and not full.is_set():
            assert reserves(self.folder.root)
            full.set()
        step_of(self, turn)

    monkeypatch.setattr(Trainer, "_step", stepping)
    run = Run(config(home))
    run.start()
    until(lambda: run.state == "paused", run)
    step = len(told(run, StepDone))
    assert load_newest(run.folder.states)[0].place.step == step
    assert any("reserve is given up" in text for text in texts(run, "warning"))
    full.clear()
    run.submit(Resume())
    assert run.join(120) and run.exit_reason == "finished" and same(bits(run), expected)
    assert not reserves(run.folder.root)


def test_a_disk_without_room_for_one_save_is_refused_before_the_first_step(home, monkeypatch):
    monkeypatch.setattr(rooms, "free_bytes", lambda path: 5000)
    run = finish(Run(config(home)))
    [failure] = told(run, RunFailed)
    assert failure.title == "The disk is full" and "a save takes" in failure.detail
    assert not told(run, StepDone)


def test_room_for_few_saves_is_told_early_and_again_when_there_is_more():
    size = SaveSize(state=40, lora=10)
    slack = rooms.SLACK
    assert [size.fit(free + slack, 0) for free in (0, 49, 50, 59, 60, 70, 80, 10**6)] == [0, 0, 1, 1, 2, 3, 4, 4]
    assert [size.fit(free + slack, 2) for free in (50, 99, 100, 149, 150, 160)] == [1, 1, 2, 2, 3, 4]


def test_few_saves_are_an_event_with_what_could_go(tmp_path, monkeypatch):
    place = made_run(tmp_path / "runs" / "a", states=4, steps=(1, 2, 3))
    free = [10**9]
    monkeypatch.setattr(rooms, "free_bytes", lambda path: free[0])
    events = EventLog()
    room = Room(place, events, keep_states=2)
    room.begin(SaveSize(1000, 1000))
    assert events.since(0) == []
    free[0] = 3000 + rooms.SLACK
    room.check()
    room.check()
    [entry] = events.since(0)
    assert isinstance(entry.event, DiskTight) and entry.event.saves == 2 and len(entry.event.removable) == 6
    free[0] = 10**9
    room.check()
    assert events.since(1)[0].event.saves == 4 and events.since(1)[0].event.removable == ()
    room.check()
    assert len(events.since(0)) == 2
    free[0] = 1000
    with pytest.raises(DiskFull, match="disk is full"):
        room.check()


def made_run(root: Path, states: int, steps: tuple[int, ...]) -> RunFolder:
    place = RunFolder(root)
    place.states.mkdir(parents=True)
    place.config.write_text("")
    for number in range(1, states + 1):
        (place.states / f"step-{number:08d}").mkdir()
        (place.states / f"step-{number:08d}" / "lora.safetensors").write_bytes(bytes(100))
    for step in steps:
        place.lora(0, step, "step").write_bytes(bytes(50))
        place.lora(0, step, "step", "diffusers").write_bytes(bytes(50))
    place.lora(1, 9, "epoch").write_bytes(bytes(50))
    place.lora(1, 9, "final").write_bytes(bytes(50))
    return place


def test_only_what_nobody_needs_is_offered(tmp_path):
    ours = made_run(tmp_path / "a", states=4, steps=(1, 2))
    other = made_run(tmp_path / "b", states=3, steps=())
    (tmp_path / "c").symlink_to(other.root)
    (tmp_path / "notes").mkdir()
    names = {str(path.relative_to(tmp_path)): size for path, size in removable(ours)}
    assert names == {
        "a/state/step-00000001": 100,
        "a/state/step-00000002": 100,
        "a/a-s000001.safetensors": 50,
        "a/a-s000001.diffusers.safetensors": 50,
        "b/state/step-00000001": 100,
    }
    import fcntl

    with open(other.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not any(path.is_relative_to(other.root) for path, _ in removable(ours))


def test_what_the_user_marks_is_removed_and_nothing_else(tmp_path):
    place = made_run(tmp_path / "a", states=4, steps=(1, 2))
    events = EventLog()
    room = Room(place, events, keep_states=2)
    kept = place.states / "step-00000004"
    outside = tmp_path / "precious"
    outside.write_text("x")
    room.remove([str(place.states / "step-00000001"), str(kept), str(outside), str(place.lora(1, 9, "final"))])
    assert outside.exists() and kept.exists() and place.lora(1, 9, "final").exists()
    assert sorted(path.name for path in place.states.iterdir()) == ["step-00000002", "step-00000003", "step-00000004"]
    assert "1 files and folders were removed" in events.since(0)[0].event.text


def test_marked_files_are_removed_while_the_run_is_held(home, monkeypatch):
    disk = BadDisk(monkeypatch)
    bad_from(monkeypatch, 7, disk)
    run = Run(config(home, saving={"every_steps": 1, "keep_states": 4}))
    run.start()
    until(lambda: run.state == "paused", run)
    until(lambda: told(run, DiskTight), run)
    offered = told(run, DiskTight)[-1]
    assert offered.removable and len(offered.sizes) == len(offered.removable)
    run.submit(Remove(offered.removable[:1]))
    until(lambda: not os.path.exists(offered.removable[0]), run)
    assert all(os.path.exists(path) for path in offered.removable[1:])
    disk.on.clear()
    run.submit(SaveNow())
    assert run.join(120) and run.exit_reason == "finished"


def test_what_a_disk_refused_to_remove_is_gone_when_the_run_has_ended(home, monkeypatch):
    """A state that is pruned half-way, a picture's first half: neither is left in an ended run's folder."""
    import engine.training.checkpoint as checkpoint

    remove = checkpoint.shutil.rmtree

    def refused(path: Any, *rest: Any, **options: Any) -> None:
        if "step-00000001" in str(path):
            monkeypatch.setattr(checkpoint.shutil, "rmtree", remove)
            (RunFolder(Path(path).parent.parent).samples / ".0123456789ab.part").write_bytes(b"half")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        remove(path, *rest, **options)

    def pruning(folder: Path) -> None:
        monkeypatch.setattr(checkpoint.shutil, "rmtree", refused)
        discard(folder)

    discard = checkpoint.discard
    monkeypatch.setattr(checkpoint, "discard", pruning)
    run = finish(Run(config(home)))
    assert run.exit_reason == "finished"
    assert not [path for path in run.folder.root.rglob("*") if path.name.endswith((".part", ".old"))]

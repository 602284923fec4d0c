"""Saving beside the training: a copy that later steps do not touch, a thread whose errors are the run's."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pocket import finish, pocket_config, submit_after, told
from safetensors.torch import load_file

from engine.commands import Pause, Resume, SaveNow, StopNow
from engine.config import RunConfig
from engine.errors import DiskError, RunError
from engine.events import CheckpointSaved, Log, RunFailed, StateChanged, StepDone
from engine.memory.pinned import HostPool
from engine.run import Run, open_run
from engine.training import keeper as keeping
from engine.training.background import Snapshots, Writer
from engine.training.checkpoint import Place, TrainingState, load_newest, save_state
from engine.training.generations import generations


def test_a_copy_keeps_what_stood() -> None:
    tensors = {
        "weights": torch.randn(7, 3),
        "state": torch.arange(5, dtype=torch.uint8),
        "step": torch.tensor(4.0),
        "turned": torch.randn(4, 6).T,
    }
    wanted = {name: tensor.clone() for name, tensor in tensors.items()}
    snapshots = Snapshots()
    snapshot = snapshots.take(tensors)
    for tensor in tensors.values():
        tensor.zero_()
    snapshot.wait()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in snapshot.tensors.items())
    assert all(tensor.is_contiguous() for tensor in snapshot.tensors.values())
    again = snapshots.take({"weights": torch.ones(7, 3)})
    assert again.tensors["weights"].data_ptr() == snapshot.tensors["weights"].data_ptr()
    larger = snapshots.take({"weights": torch.ones(700, 3)})
    assert bool((larger.tensors["weights"] == 1).all())


def test_a_host_without_room_beside_its_margin_still_saves() -> None:
    snapshot = Snapshots(HostPool(free_bytes=0)).take({"a": torch.ones(3)})
    assert bool((snapshot.tensors["a"] == 1).all())


def test_the_thread_works_one_piece_after_the_other_and_hands_errors_over() -> None:
    writer, gate, done = Writer(), threading.Event(), []

    def slow() -> None:
        gate.wait(10)
        done.append("slow")
        raise RunError("The LoRA holds numbers that are not finite", "x", "y")

    writer.start(slow)
    writer.check()
    assert done == []
    gate.set()
    with pytest.raises(RunError, match="finite"):
        writer.start(lambda: done.append("after"))
    assert done == ["slow"]
    writer.check()
    writer.start(lambda: done.append("after"))
    writer.wait()
    assert done == ["slow", "after"] and writer.close() is None


def test_what_the_disk_refused_is_done_again_before_anything_else() -> None:
    writer, refusals, done = Writer(), [1, 2], []

    def refused() -> None:
        if refusals:
            refusals.pop()
            raise DiskError("The disk is full", "x", "y")
        done.append("refused")

    writer.start(refused)
    with pytest.raises(DiskError):
        writer.wait()
    with pytest.raises(DiskError):
        writer.start(lambda: done.append("after"))
    assert done == []
    writer.start(lambda: done.append("after"))
    writer.wait()
    writer.check()
    assert done == ["refused", "after"] and writer.close() is None


def test_what_goes_wrong_at_the_very_end_is_handed_over_too() -> None:
    writer = Writer()

    def failing() -> None:
        raise DiskError("The disk is full", "x", "y")

    writer.start(failing)
    assert isinstance(writer.close(), DiskError)


def test_the_file_is_what_the_library_reads(tmp_path: Path) -> None:
    tensors = {
        "bytes": torch.arange(7, dtype=torch.uint8),
        "step": torch.tensor(3.0),
        "half": torch.randn(3, 5).to(torch.bfloat16),
        "count": torch.tensor([1, 2]),
        "moments": torch.randn(4, 3),
    }
    folder = save_state(tmp_path, TrainingState(Place(step=1), {}, tensors, {}, {}), keep=1)
    read = load_file(folder / "optimizer.safetensors")
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in read)
    assert load_file(folder / "lora.safetensors") == {}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache and dataset for all runs."""
    return tmp_path_factory.mktemp("background")


def _config(home: Path, **changes: Any) -> RunConfig:
    return pocket_config(home, **({"saving": {"every_epochs": 0, "keep_states": 9}} | changes))


class SlowDisk:
    """Holds the writing of training states until told to go on; fails them if asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.began, self.fail = threading.Event(), threading.Event(), False
        real = keeping.save_state

        def held(states: Path, state: TrainingState, keep: int) -> Path:
            self.began.set()
            assert self.go.wait(60)
            if self.fail:
                raise DiskError("The disk is full", f"writing {states} failed", "Free some space.")
            return real(states, state, keep)

        monkeypatch.setattr(keeping, "save_state", held)


def test_steps_go_on_while_a_save_is_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)
    submit_after(monkeypatch, {2: [SaveNow()]})
    run = Run(_config(home))
    run.start()
    assert disk.began.wait(60)
    while not any(event.step == 9 for event in told(run, StepDone)):
        assert not run.join(0.05), told(run, RunFailed)
    assert generations(run.folder.states) == []
    disk.go.set()
    assert run.join(60) and run.exit_reason == "finished"
    assert [(event.kind, event.step) for event in told(run, CheckpointSaved)] == [("manual", 2), ("final", 9)]
    assert [folder.name for folder in generations(run.folder.states)][-1] == "step-00000002"


def test_a_disk_that_refuses_a_save_holds_the_run_until_it_takes_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    disk.fail = True
    disk.go.set()
    submit_after(monkeypatch, {2: [SaveNow()]})
    run = Run(_config(home))
    run.start()
    while run.state != "paused":
        assert not run.join(0.02), told(run, RunFailed)
    steps = len(told(run, StepDone))
    assert any(event.state == "paused" and "full" in event.reason for event in told(run, StateChanged))
    disk.fail = False
    run.submit(Resume())
    assert run.join(60) and run.exit_reason == "finished" and steps < 9
    assert [folder.name for folder in generations(run.folder.states)] == ["step-00000009", "step-00000002"]


def test_a_pause_and_a_stop_wait_for_the_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)
    submit_after(monkeypatch, {2: [SaveNow()], 3: [Pause(), Resume()], 4: [StopNow()]})
    run = Run(_config(home))
    run.start()
    assert disk.began.wait(60)
    while not any(event.step == 3 for event in told(run, StepDone)):
        assert not run.join(0.05)
    assert not run.join(0.3) and "paused" not in [event.state for event in told(run, StateChanged)]
    disk.go.set()
    assert run.join(60) and run.exit_reason == "stopped"
    assert [event.step for event in told(run, StepDone)] == [1, 2, 3, 4]
    state, _ = load_newest(run.folder.states)
    assert state is not None and state.place.step == 4


def test_a_failing_run_waits_for_the_save_under_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.trainer import Trainer

    disk, step_of = SlowDisk(monkeypatch), Trainer._step

    def failing(self: Trainer, turn: object) -> None:
        if self.ledger.place.step == 4:
            threading.Timer(0.2, disk.go.set).start()
            raise RunError("It broke", "here", "")
        step_of(self, turn)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", failing)
    run = finish(Run(_config(home, saving={"every_epochs": 1})))
    assert run.exit_reason == "failed" and told(run, RunFailed)[0].title == "It broke"
    assert [folder.name for folder in generations(run.folder.states)] == ["step-00000003"]
    assert not [event for event in told(run, Log) if "save failed" in event.text]
    monkeypatch.undo()
    resumed = finish(open_run(run.folder.root))
    assert resumed.exit_reason == "finished" and told(resumed, StepDone)[0].step == 4


def test_the_thread_shares_no_memory_with_the_training(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state written late holds the bits of its own step."""
    disk = SlowDisk(monkeypatch)
    submit_after(monkeypatch, {2: [SaveNow()]})
    late = Run(_config(home, optimizer={"name": "adamw8bit"}))
    late.start()
    assert disk.began.wait(60)
    while not any(event.step == 9 for event in told(late, StepDone)):
        assert not late.join(0.05)
    disk.go.set()
    assert late.join(60)
    monkeypatch.undo()
    submit_after(monkeypatch, {2: [StopNow()]})
    short = finish(Run(_config(home, optimizer={"name": "adamw8bit"})))
    for name in ("lora.safetensors", "optimizer.safetensors"):
        one = load_file(late.folder.states / "step-00000002" / name)
        two = load_file(short.folder.states / "step-00000002" / name)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert os.listdir(short.folder.states) == ["step-00000002"]

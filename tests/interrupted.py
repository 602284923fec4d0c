"""Runs interrupted at chosen moments, and all that a run leaves, to be compared with one that was not.

A moment is a kind and a count: the third micro-batch, the second picture drawn, the first state about to stand. A run
can be frozen at one: its folder is copied as a process killed there would leave it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pocket import pocket_config
from safetensors.torch import load_file

from engine.commands import Resume
from engine.config import RunConfig
from engine.events import StateChanged
from engine.files import RunFolder
from engine.run import Run
from engine.trainer import Trainer
from engine.training import checkpoint
from engine.training.background import Writer
from engine.training.control import Control
from engine.training.export import Export
from engine.training.generations import read_newest
from engine.training.ledger import Ledger
from engine.training.objective import Objective
from engine.training.pictures import Painter
from tui.bridge import view_of

KINDS = ("micro", "epoch", "picture", "lora", "state")
"""A micro-batch begins; an epoch is over; a picture is about to be drawn, a LoRA file written, a state to stand."""

Moment = tuple[str, int]
"""Kind, and the how-manieth of it, from 1."""

DATA = {
    "lora": {"dropout": 0.1, "rank_dropout": 0.1, "module_dropout": 0.1, "max_norm": 0.5},
    "dataset": {"flip": True, "random_crop": True, "captions": {"dropout": 0.2, "shuffle": True}},
    "schedule": {"name": "cosine", "warmup_steps": 2},
}
"""Everything that draws at random."""


def varied_config(home: Path, optimizer: str = "adamw", accumulation: int = 1, **changes: Any) -> RunConfig:
    """Three epochs of five micro-batches, samples within and after epochs, a state every second step."""
    prompts = [{"prompt": "a zorple at the left", "seed": 3}, {"prompt": "a zorple", "seed": 4, "negative": "red"}]
    return pocket_config(
        home,
        **DATA,
        optimizer={"name": optimizer, "learning_rate": 1.0 if optimizer == "prodigy" else 2e-3},
        training={"accumulation": accumulation, "state_every_steps": 2},
        sampling={"prompts": prompts, "every_steps": 4, "cfg": 2.0, "width": 32, "height": 32, "steps": 1},
        **changes,
    )


@contextmanager
def watching(at: Callable[[Trainer, str, int], None], *edits: tuple[int, Path, str]) -> Iterator[Counter[str]]:
    """Call ``at(trainer, kind, count)`` at every moment of the runs inside; yields the counts.

    ``edits`` are captions written when a step (the first number) is over. Saves are waited for where they begin, so
    that moments come in one order.
    """
    told: Counter[str] = Counter()
    trainers: list[Trainer] = []

    def moment(kind: str) -> None:
        told[kind] += 1
        at(trainers[-1], kind, told[kind])

    def before(kind: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*args: Any, **options: Any) -> Any:
            moment(kind)
            return act(*args, **options)

        return acting

    train, step = Trainer.train, Trainer._step

    def training(self: Trainer) -> Any:
        trainers.append(self)
        return train(self)

    def stepping(self: Trainer, turn: Any) -> None:
        step(self, turn)
        for after, path, text in edits:
            if after == turn.step:
                path.write_text(text)

    start = Writer.start

    def starting(self: Writer, work: Callable[[], None]) -> None:
        start(self, work)
        assert self._pending is not None
        self._pending.exception()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train", training)
        patch.setattr(Trainer, "_step", stepping)
        patch.setattr(Writer, "start", starting)
        patch.setattr(Objective, "inputs", before("micro", Objective.inputs))
        patch.setattr(Ledger, "tell_epoch", before("epoch", Ledger.tell_epoch))
        patch.setattr(Painter, "picture", before("picture", Painter.picture))
        patch.setattr(Export, "write", before("lora", Export.write))
        patch.setattr(checkpoint, "_replace_folder", before("state", checkpoint._replace_folder))
        yield told


def freezer(where: Path, *moments: Moment) -> Callable[[Trainer, str, int], None]:
    """For :func:`watching`: copies a run's folder to ``where/kind-count`` at each of ``moments``."""

    def at(trainer: Trainer, kind: str, count: int) -> None:
        if (kind, count) in moments:
            freeze(trainer.folder, where / f"{kind}-{count}")

    return at


def freeze(folder: RunFolder, to: Path) -> None:
    """Copy what stands of a run; events last, since they may be ahead of a state and never behind."""
    target = to / folder.name
    shutil.copytree(folder.root, target, ignore=lambda _, names: [n for n in names if n == folder.events.name])
    shutil.copy(folder.events, target)


@contextmanager
def holding() -> Iterator[list[str]]:
    """Let every pause inside end once the run holds; yields the states that were held."""
    held: list[str] = []
    wait = Control.wait

    def waiting(self: Control, timeout_s: float) -> None:
        held.append(next(e.event.state for e in reversed(self.events.since(0)) if isinstance(e.event, StateChanged)))
        self.commands.submit(Resume())
        wait(self, timeout_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Control, "wait", waiting)
        yield held


def left_by(folder: RunFolder) -> dict[str, Any]:
    """All that a run leaves, as values that are equal where the bits are; clocks are left out."""
    generation, damaged = read_newest(folder.states, lambda whole: whole)
    assert generation is not None and damaged == []
    place = {key: value for key, value in generation.table["place"].items() if key != "elapsed_s"}
    return {
        "place": place,
        "optimizer": (generation.table["optimizer"], generation.contents["optimizer.safetensors"]),
        "adapter": generation.contents["lora.safetensors"],
        "loras": {path.name.removeprefix(folder.name): _bits(path) for path in folder.root.glob("*.safetensors")},
        "samples": {path.name: path.read_bytes() for path in folder.samples.iterdir()},
        "captions": folder.captions.read_bytes(),
        "view": shown(folder.events),
    }


def _bits(path: Path) -> dict[str, tuple[Any, bytes]]:
    return {name: (tensor.shape, tensor.numpy().tobytes()) for name, tensor in load_file(path).items()}


def shown(events: Path) -> dict[str, Any]:
    """What every reader of a run's events shows of it, clocks left out."""
    view = view_of(events)
    courses = view.courses
    return {
        "state": (view.state, view.step, view.epoch, view.steps, view.epochs, view.images),
        "columns": [list(column) for column in (courses.step, courses.loss, courses.lr, courses.grad_norm)],
        "smoothed": [(smoothed.beta, list(smoothed.course)) for smoothed in courses.smoothed],
        "epochs": view.epoch_marks,
        "loss_change": view.loss_change,
        "checkpoints": [
            (Path(saved.path).name.removeprefix(view.name), saved.step, saved.epoch, saved.kind)
            for saved in view.checkpoints
            if saved.kind != "stop"
        ],
        "samples": [dataclasses.replace(sample, path=Path(sample.path).name) for sample in view.samples],
        "captions": {Path(path).name: epoch for path, epoch in view.captions_taken.items()},
        "last": view.last_step and (view.last_step.step, view.last_step.loss),
    }


def assert_same(ours: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare what two runs left; a stop on the way may have left a LoRA file of its own."""
    assert wanted["loras"].keys() <= ours["loras"].keys()
    extra = ours["loras"].keys() - wanted["loras"].keys()
    assert all("-s0" in name for name in extra), extra
    for name in wanted["view"]:
        assert ours["view"][name] == wanted["view"][name], name
    for name in wanted.keys() - {"loras", "view"}:
        assert ours[name] == wanted[name], name
    for name, bits in wanted["loras"].items():
        assert ours["loras"][name] == bits, name


def finished(run: Run) -> RunFolder:
    """The folder of a run that went to its end."""
    assert run.exit_reason == "finished" and run.folder is not None, list(run.events.since(0))[-4:]
    return run.folder

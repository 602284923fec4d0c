"""What a run leaves on disk while it goes: LoRA files, training states, sample pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from engine.batches import Turn
from engine.config import RunConfig
from engine.errors import DiskError, EngineError, RunError
from engine.events import EventLog, Log
from engine.files import RunFolder
from engine.memory.exhaustion import first_line
from engine.memory.pinned import HostPool
from engine.training.background import Snapshots, Writer
from engine.training.changes import compare, refusal, unexplained
from engine.training.checkpoint import Place, TrainingState, keep_before, load_newest, save_state
from engine.training.export import Export, plan_export
from engine.training.kit import Kit
from engine.training.ladder import Exhausted
from engine.training.ledger import Ledger
from engine.training.nonfinite import Corrupted, broken_tensors
from engine.training.optimizer import eval_weights, shows_others
from engine.training.optimizer_state import load_optimizer_state, optimizer_tensors
from engine.training.record import load_record, save_record
from engine.training.room import Room, SaveSize, sweep_folder, tree_bytes
from engine.training.sampler import Sampler
from engine.training.shelf import Shelf

STATE_EVERY_S = 300.0
"""A training state is written at least this often, so that an accident costs at most this much."""


class Keeper:
    """Saves and samples for one run, in its main process; in the others saving and sampling do nothing.

    Args:
        enter: enters a state of the run and returns the one before.
        room: the disk under the run's folder.
        pool: host memory for copies of the state; without one the keeper's own.

    Attributes:
        last_lora: the newest LoRA file, "" before the first; on the disk once :meth:`settle` has returned.
        shelf: which of the LoRA files stay.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        events: EventLog,
        kit: Kit,
        ledger: Ledger,
        enter: Callable[[str], str],
        room: Room,
        pool: HostPool | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.events = events
        self.kit = kit
        self.ledger = ledger
        self.enter = enter
        self.room = room
        self.last_lora = ""
        self.sampler = Sampler(config, folder, events, kit)
        self.writer = Writer()
        self.shelf = Shelf(config.saving.keep_loras, folder, events)
        room.loras_to_come = self.shelf.to_come
        self._snapshots = Snapshots(pool)
        self._state_clock = time.monotonic()
        self._saved_step = -1
        self._ended = False
        self._record = ""

    def restore(self) -> bool:
        """Take up the newest state that verifies, all of it finite; False if there is none.

        Raises:
            RunError: no state verifies although there are some, or the base model is another one.
        """
        self.ledger.forget()
        self.writer.drop()  # a state that may not be taken up
        sweep_folder(self.folder)
        state, damaged = load_newest(self.folder.states)
        for line in damaged:
            self.events.append(Log("warning", f"Damaged training state passed over: {line}"))
        if self.kit.compute.is_main:
            self.shelf.take_up(state.place.step if state is not None else 0)
        if state is None:
            return False
        self._check_identity(state)
        self.kit.lora.load_state(state.lora)
        load_optimizer_state(self.kit.optimizer, state.optimizer, state.optimizer_json)
        self.ledger.start(state.place)
        self._saved_step = state.place.step
        return True

    def keep_before(self, step: int, reason: str) -> int:
        """Keep the newest state from before ``step`` for good; returns its step, 0 where there is none.

        Raises:
            DiskError: an earlier save could not be written.
        """
        if not self.kit.compute.is_main:
            return 0
        self.writer.wait()
        try:
            return keep_before(self.folder.states, step, reason)
        except DiskError as err:  # a service: the run is none the worse for it
            self.events.append(Log("warning", f"No state from before is kept: {err}".replace("\n", "; ")))
            return 0

    def _check_identity(self, state: TrainingState) -> None:
        now = self.kit.prepared.identity
        changed = [name for name, digest in now.items() if state.identity.get(name) != digest]
        if "base model" in changed:
            raise RunError(
                "The base model is another one than before",
                f"{self.config.model.transformer} differs from the file this run was trained on",
                "Put the old file back, or start a new run with lora.resume_from.",
            )
        before = load_record(self.folder.records, state.record)
        found = compare(before, self.kit.prepared.record) if before is not None else []
        if (refused := refusal(found)) is not None:
            raise refused
        for change in found:
            self.events.append(change)
        for name in unexplained(changed, found):
            self.events.append(Log("warning", f"The {name} changed since the run stopped: its course may differ"))

    def save(self, kind: str) -> None:
        """Write the LoRA and the training state: what they hold is taken now, a thread writes it.

        A save that ends the run returns when the files stand.

        Raises:
            RunError: a step's loss is not a number; nothing is written.
            DiskError: this or an earlier save could not be written; what stood there before is unharmed. Saving again
                goes on with what is left to write.
        """
        place = self.ledger.snapshot()
        if not self.kit.compute.is_main:
            return
        with self._during("saving"):
            self.writer.wait()
            if not self._ended:
                export = plan_export(self.config, self.folder, self.kit, place, kind)
                self._begin(place, export)
                self.last_lora = export.first
            if kind in ("stop", "final"):
                self._ended = True
                self.settle()

    def save_state(self, wait: bool = True) -> None:
        """Write the training state alone; ``wait`` until it stands, or leave that to a thread.

        Raises:
            RunError: a step's loss is not a number; nothing is written.
            DiskError: it, or an earlier save, could not be written; earlier states are unharmed.
        """
        if not self.kit.compute.is_main:
            return
        if self._saved_step != self.ledger.place.step:
            self._begin(self.ledger.snapshot(), None)
        if wait:
            self.settle()

    def check(self) -> None:
        """Raise what went wrong in a save that has ended; waits for nothing."""
        self.writer.check()

    def settle(self) -> None:
        """Wait until everything saved stands on the disk.

        Raises:
            DiskError: something could not be written; what stood there before is unharmed.
        """
        self.writer.wait()

    def close(self) -> None:
        """Wait for the disk before the run's folder is let go; what still goes wrong is told."""
        self.sampler.evidence.close()
        err = self.writer.close()
        if err is not None:
            self.events.append(Log("warning", f"The last save failed: {err}".replace("\n", "; ")))

    def abandon(self) -> None:
        """The GPU is lost: let go without a look at it; a state whose copy has arrived is still written."""
        self._snapshots.give_up()
        self.close()

    def _begin(self, place: Place, export: Export | None) -> None:
        """:meth:`_write`; where the GPU has no room for a copy in between, free what can be, and again."""
        try:
            self._write(place, export)
            return
        except torch.OutOfMemoryError as err:
            reason = first_line(err)
        # Only here, without the error, is the memory free that its frames held.
        self.kit.compute.free_unused()
        self.events.append(Log("warning", f"Out of memory while saving, and on with memory freed: {reason}"))
        self._write(place, export)

    def _write(self, place: Place, export: Export | None) -> None:
        """Take a copy of what is to be saved, and let the thread write it."""
        # The one before first: its copy lies where the new one goes.
        self.writer.wait()
        self.room.check()
        kit, lora = self.kit, self.kit.lora
        # A candidate is one file more, not a point to go on from.
        with_state = self._saved_step != place.step and (export is None or export.kind != "candidate")
        advice = self.shelf.advice()
        tensors, plain = optimizer_tensors(kit.optimizer) if with_state else ({}, {})
        copied = {f"optimizer.{name}": tensor for name, tensor in tensors.items()} | {"lora": lora.weights}
        if export is not None and shows_others(kit.optimizer):
            with eval_weights(kit.optimizer, lora):
                copied["shown"] = lora.weights.clone()
        snapshot, identity = self._snapshots.take(copied), dict(kit.prepared.identity)

        def write() -> None:
            snapshot.wait()
            copies = snapshot.tensors
            size = self.room.size
            kept = {name: copies[f"optimizer.{name}"] for name in tensors}
            if parts := broken_tensors(copies["lora"], kept):
                raise Corrupted(parts, place.step)
            if export is not None:
                export.write(lora.state(copies.get("shown", copies["lora"])), self.events)
                size = replace(size, lora=sum(export.standing.values()))
                self.shelf.add(export)
            if with_state:
                record = self._record = self._record or save_record(self.folder.records, kit.prepared.record)
                state = TrainingState(place, lora.state(copies["lora"]), kept, plain, identity, record)
                # What was told up to here must not be lost where the state that follows from it stands.
                self.events.flush()
                written = save_state(self.folder.states, state, self.config.saving.keep_states)
                size = replace(size, state=tree_bytes(written))
            self.room.size = size
            if export is not None:
                self.shelf.tidy(advice, last=export.kind == "final")

        self.writer.start(write)
        if with_state:
            self._state_clock = time.monotonic()
            self._saved_step = place.step

    def save_size(self) -> SaveSize:
        """What a save will take, by what has to be written; the sizes of those that stand are better."""
        weights, optimizer = self.kit.lora.weights, optimizer_tensors(self.kit.optimizer)[0]
        moments = sum(tensor.numel() * tensor.element_size() for tensor in optimizer.values())
        itemsize = getattr(torch, self.config.saving.dtype).itemsize
        # Before the first step there may be no moments yet: Adam's are two of the weights' size.
        state = weights.numel() * weights.element_size() + (moments or 2 * weights.numel() * weights.element_size())
        return SaveSize(state, weights.numel() * itemsize * len(self.config.saving.layouts))

    def saves_due(self, epoch_over: bool, candidate: bool) -> list[Callable[[], None]]:
        """What is to be written after the step that is done, be it the last of its epoch or not."""
        place, saving = self.ledger.place, self.config.saving
        if epoch_over and due(place.epoch, saving.every_epochs):
            return [partial(self.save, "epoch")]
        found = [partial(self.save, "candidate")] if candidate else []
        if due(place.step, saving.every_steps):
            return [*found, partial(self.save, "step")]
        return [*found, partial(self.save_state, wait=False)] if self.state_due() else [*found]

    def state_due(self) -> bool:
        """Whether it is time for a state, by steps or by the clock."""
        every = self.config.training.state_every_steps
        by_steps = bool(every) and self.ledger.place.step % every == 0
        return by_steps or time.monotonic() - self._state_clock > STATE_EVERY_S

    def samples_due(self, epoch_over: bool) -> bool:
        """Whether samples belong to the step that is done, be it the last of its epoch or not."""
        place, sampling = self.ledger.place, self.config.sampling
        by_epoch = epoch_over and due(place.epoch, sampling.every_epochs)
        return bool(sampling.prompts) and (due(place.step, sampling.every_steps) or by_epoch)

    def samples_missing(self) -> bool:
        """Whether the samples of where the run begins are not there, or not all: a stop ends drawing early."""
        place, sampling = self.ledger.place, self.config.sampling
        if place.step == 0:
            return sampling.at_start and bool(sampling.prompts)
        epoch_over = self.kit.prepared.order.ends_epoch(Turn(place.step, place.epoch, place.index - 1))
        return self.samples_due(epoch_over) and self.sampler.missing(place.step)

    def sample(self, strengths: Sequence[float] = ()) -> None:
        """Draw the sample prompts with the adapter as it stands, at ``strengths`` or else the configured ones.

        A picture that cannot be drawn is told and passed over: the training is not the worse for it.

        Raises:
            DiskError: one cannot be written.
        """
        if not self.kit.compute.is_main:
            return
        if not self.config.sampling.prompts:
            self.events.append(Log("info", "No sample prompts are set ([[sampling.prompts]])"))
            return
        self.room.require_folder()
        place = self.ledger.snapshot()
        try:
            with self._during("sampling"), eval_weights(self.kit.optimizer, self.kit.lora):
                self.sampler.draw(place.step, place.epoch, strengths)
        except (Exhausted, DiskError):
            raise  # there is no way back to training; the disk may have room later
        except (torch.OutOfMemoryError, EngineError) as err:
            self.kit.compute.free_unused()
            self.events.append(Log("warning", f"Samples were left out: {err}".replace("\n", "; ")))

    @contextmanager
    def _during(self, state: str) -> Iterator[None]:
        before = self.enter(state)
        try:
            yield
        finally:
            self.enter(before)


def due(count: int, every: int) -> bool:
    """Whether something done ``every`` so many is done at ``count``; 0 is never."""
    return every > 0 and count % every == 0

"""The training loop, readable aloud.

For every step of the order: obey commands, run the micro-batches, clip, step, tell. At the end of an epoch: save,
sample, ask whether to stop. What a step is made of lives in :mod:`engine.training`; threads and states in
:mod:`engine.run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

import torch

from engine.batches import Turn
from engine.commands import Pause
from engine.config import RunConfig
from engine.dataset.history import CaptionHistory, load_history
from engine.errors import EngineError, RunError
from engine.events import EventLog, Log, RunStarted, StopPlanned
from engine.files import RunFolder
from engine.hardware.lost import unless_lost
from engine.training.checkpoint import Place, load_newest
from engine.training.control import Control
from engine.training.device import Compute, compute_for
from engine.training.faults import Faults, Unmendable
from engine.training.generations import generations, next_step
from engine.training.keeper import Keeper
from engine.training.kit import Kit, build_kit
from engine.training.ladder import Exhausted, Ladder
from engine.training.ledger import Ledger
from engine.training.measurer import Measurer
from engine.training.nonfinite import Corrupted, NonFinite
from engine.training.patience import Patience
from engine.training.prepare import Base, Prepared, Stopped, check_base, prepare
from engine.training.probe import is_wanted, probe_largest
from engine.training.products import settle_products
from engine.training.release import leave_gpu, return_to_gpu, room_on_host, states_on_host
from engine.training.room import Room
from engine.training.step import Stepper
from engine.training.step_losses import StepLosses
from engine.training.takes import Takes
from engine.training.watch import Watch


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "finished" or "stopped", where, and the last LoRA file."""

    reason: str
    step: int = 0
    epoch: int = 0
    lora: str = ""
    elapsed_s: float = 0.0


class Trainer:
    """One run, from its configuration to its last file; lives in one thread.

    Args:
        config: the configuration as run.
        folder: the run's folder, made.
        events: where everything is told.
        control: what the user asks.
        enter: enters a state of the run, with a reason if there is one, and returns the one before.
    """

    kit: Kit
    ladder: Ladder
    stepper: Stepper
    keeper: Keeper
    measurer: Measurer
    takes: Takes
    patience: Patience
    faults: Faults

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        events: EventLog,
        control: Control,
        enter: Callable[..., str],
    ) -> None:
        self.config = config
        self.folder = folder
        self.events = events
        self.control = control
        self.enter = enter
        self.ledger = Ledger(events)
        self.compute: Compute | None = None
        self.history = CaptionHistory()

    def train(self) -> Outcome:
        """Run to the end or to a stop.

        Raises:
            EngineError: what a user can mend.
        """
        with ExitStack() as made:
            try:
                self._set_up(made)
            except Stopped:
                state, _ = load_newest(self.folder.states)
                place = state.place if state else Place()
                return Outcome("stopped", place.step, place.epoch, "", place.elapsed_s)
            self.ledger.start(self.ledger.place)
            self.measurer.begin(self.folder.events, self.ledger.place.step)
            if self.keeper.samples_missing():
                self.patience.persist(self.keeper.sample)
            self.enter("training")
            try:
                return self._finish(stopped=self._loop())
            except (Exhausted, Unmendable):
                if self.ledger.place.step:
                    self.keeper.save_state()
                raise

    def peak_gb(self) -> float:
        """Highest GPU memory so far, GiB; 0 on a CPU and before the device is chosen. Safe from any thread."""
        return self.compute.peak_gb() if self.compute else 0.0

    def gpu_uuid(self) -> str:
        """The GPU in use, as NVML names it; empty on a CPU and before the device is chosen."""
        return self.compute.gpu_uuid() if self.compute else ""

    def _set_up(self, made: ExitStack) -> None:
        """Make everything a loop needs; what has to be closed again, however the run ends, goes to ``made``."""
        config, events = self.config, self.events
        self.enter("preparing")
        self.control.take_up_plan(self.folder.events)
        base = check_base(config)
        compute = self.compute = compute_for(config)
        self.enter("caching")
        prepared = self._prepare(base, compute)
        self.enter("loading")
        resuming = bool(generations(self.folder.states))
        ladder = self.ladder = Ladder(config, base, compute, self.folder, events, next_step(self.folder.states))
        self.kit = ladder.load(
            lambda: build_kit(ladder.config, base, compute, prepared, events, self.control, resuming)
        )
        made.push(unless_lost(self.kit.lean.close))
        if compute.device.type != "cpu":  # a processor is shared by all: its steps are never alike
            self.ledger.watch = Watch(lambda: ladder.config, self.kit.lean.source.plan.sizes)
        self.stepper = Stepper(config, self.kit)
        if reason := self.stepper.gate.reason:
            events.append(Log("info", f"The host waits for the GPU in each step: {reason}"))
        self.keeper, self.patience = _keepers(self, made)
        ladder.attempt(self.keeper.restore, "loading", ladder.first_step - 1)
        resumed = self.ledger.place.step > 0
        self.patience.persist(
            lambda: ladder.attempt(
                lambda: settle_products(self.kit, self.folder.products, events, resumed),
                "loading",
                self.ledger.place.step,
                undo=self.kit.lora.zero_grad,
            )
        )
        self.kit.painter.spare = self._without_states
        shelf = self.keeper.shelf
        self.measurer = Measurer(config, self.kit, prepared.measured, events, self.enter, lambda: shelf.epochs)
        shelf.advice, shelf.starred = self.measurer.told, lambda: self.control.kept
        self.faults = Faults(config, self.keeper, events)
        self.takes = Takes(self.keeper, self.history, self.control)
        if compute.is_main:
            self.keeper.room.begin(self.keeper.save_size())
            self.patience.persist(lambda: self.takes.begin(self.ledger.place.step))
        events.append(
            RunStarted(
                name=self.folder.name,
                folder=str(self.folder.root),
                family=base.family.name,
                variant=base.variant,
                epochs=prepared.order.total_epochs,
                steps=prepared.order.total_steps,
                images=sum(not sample.regularization for sample in prepared.order.samples),
                resumed_step=self.ledger.place.step,
            )
        )
        if self.control.stop_epoch:
            # Planned while the caches filled: said again, since the outline just told begins a new view.
            events.append(StopPlanned(self.control.stop_epoch))
        if is_wanted(config, compute, resuming):
            ladder.attempt(
                lambda: probe_largest(self.kit, config, events, self.control), "probing", self.ledger.place.step
            )

    def _prepare(self, base: Base, compute: Compute) -> Prepared:
        """Scan and fill the caches in the main process; the others then find them full.

        They train on what the main one found: by now the files may have been edited, and only it looks at them.

        Raises:
            Stopped: the user stopped the run meanwhile.
        """
        prepared, ended = None, None
        if compute.is_main:
            try:
                self.history = load_history(self.folder.captions)
                prepared = prepare(self.config, base, compute, self.events, self.control.stopping, self.history)
            except (Stopped, EngineError) as err:
                ended = err
        if compute.from_main(ended is not None):
            raise ended or Stopped
        found = (self.folder, self.history, prepared.order.samples if prepared else ())
        self.folder, self.history, samples = compute.from_main(found)
        return prepared or prepare(self.config, base, compute, self.events, lambda: False, self.history, samples)

    def _loop(self) -> bool:
        """Every step that is left, again from where one was not finite; True if the user ended the run."""
        while True:
            try:
                stopped = self._turns()
                self.ledger.flush()
                self.keeper.settle()
                self.faults.settle()
                return stopped
            except (NonFinite, Corrupted) as err:
                self.faults.mend(err)

    def _turns(self) -> bool:
        """Steps from the place on; True if the user ended the run."""
        order = self.kit.prepared.order
        self._agree()
        for turn in order.turns(after=self.ledger.place.step):
            if turn.index == 0 and self.control.stop_due(turn.epoch - 1):
                return True  # broken off between the end of the epoch and that of the run
            self.control.epoch = turn.epoch
            if self._obey() or (turn.index == 0 and turn.epoch > 1 and self._take_captions(turn.epoch)):
                return True
            if not self.faults.leave_out(turn):
                self._step(turn)
            epoch_over = order.ends_epoch(turn)
            if epoch_over:
                self.ledger.tell_epoch()
            self._keep_cadence(epoch_over)
            if epoch_over and self.control.stop_due(turn.epoch) and turn.step < order.total_steps:
                return True
        return False

    def _step(self, turn: Turn) -> None:
        """One optimizer step over this process's micro-batches; on a lower rung where memory runs out in it."""
        self.ladder.begin(turn.step)
        told = self.ladder.attempt(
            lambda: self.stepper.step(turn, self.faults.look_at(turn.step)),
            "training",
            turn.step,
            undo=self.stepper.take_back,
        )
        self.kit.tell(self.events)
        self.ledger.add(told)
        self.faults.settle()

    def _without_states(self) -> AbstractContextManager[None]:
        """Sampling without the optimizer's states on the GPU."""
        step = self.ledger.place.step
        return states_on_host(self.kit, lambda work: self.ladder.attempt(work, "sampling", step))

    def _take_captions(self, epoch: int) -> bool:
        """Let captions edited meanwhile count from ``epoch`` on; True if the user ended the run."""
        texts: dict[int, str] = {}
        ended = False
        if self.kit.compute.is_main:
            try:
                texts = self.patience.persist(lambda: self.takes.find(epoch))
            except Stopped:
                ended = True
            ended = self._come_back(ended)
        texts, ended = self.kit.compute.from_main((texts, ended))
        if not ended:
            self.takes.use(epoch, texts)
        return ended

    def _come_back(self, ended: bool) -> bool:
        """Take the GPU back from the text encoders; True if the run ends here. A stop saves from where things are."""
        if not ended and self.takes.away and not self._return():
            if self.kit.compute.processes > 1:
                raise RunError(
                    "The GPU has no room for the run any more",
                    "another program took its memory while captions were encoded",
                    "The state is saved: free the GPU, then resume the run.",
                )
            self._hold(released=True)
            ended = self.control.stop_now
        self.takes.away = False
        self.enter("training")
        return ended

    def _obey(self) -> bool:
        """Carry out what was asked since the last step; True if the run ends here."""
        self.control.poll()
        self._agree()
        self._serve()
        if self.control.pause and not self.control.stop_now:
            self._hold()
        if self.events.write_error is not None:
            self.patience.persist(self.events.settle)
        return self.control.stop_now

    def _agree(self) -> None:
        """Let every process act on what the main one was asked."""
        if self.kit.compute.processes > 1:
            self.control.adopt(self.kit.compute.from_main(self.control.flags()))

    def _serve(self) -> None:
        """Save and sample if asked; a save that went wrong meanwhile comes to light here."""
        self.patience.persist(self.keeper.check)
        self.patience.tidy()
        if self.control.save_now or self.control.sample_now or self.control.measure_now:
            self.ledger.flush()  # what goes back to an earlier step leaves the wish standing
        if self.control.save_now:
            self.control.save_now = False
            self.patience.persist(lambda: self.keeper.save("manual"))
        if (asked := self.control.sample_now) is not None:
            self.control.sample_now = None
            self.patience.persist(lambda: self.keeper.sample(asked.strengths))
        self.measurer.serve(self.control, self.ledger.place)

    def _hold(self, released: bool = False) -> None:
        """Wait until the pause is taken back or the run is stopped; ``released``: the GPU is free already."""
        self.ledger.flush()
        self.patience.persist(self.keeper.settle)
        began = time.monotonic()
        self.enter("released" if released else "paused")
        while True:
            while self.control.pause and not self.control.stop_now:
                if self.control.pause.release and not released:
                    released = self._release()
                if not released:
                    self._serve()
                self.control.wait(0.5)
                self._agree()
            # A stop saves from where things are; only going on needs the GPU.
            if not released or self.control.stop_now or self._return():
                break
        self.ledger.leave_out(time.monotonic() - began)
        self.enter("training")

    def _release(self) -> bool:
        """Free the GPU if host and disk have room; False if they have not and the run only holds."""
        if self.kit.compute.device.type == "cuda":
            needed, free = room_on_host(self.kit)
            if needed > free:
                text = f"Held on the GPU: leaving it needs {needed:.1f} GB of host memory, {free:.1f} are free"
                self.events.append(Log("warning", text))
                self.control.pause = replace(self.control.pause, release=False) if self.control.pause else None
                return False
            # Coming back may find the GPU taken by others: nothing done so far may hang on that.
            self.patience.persist(self.keeper.save_state)
            leave_gpu(self.kit)
        self.enter("released")
        return True

    def _return(self) -> bool:
        """Take the GPU again; False if others have filled it meanwhile, and the run stays released."""
        try:
            return_to_gpu(self.kit)
        except torch.OutOfMemoryError:
            leave_gpu(self.kit)
            self.control.pause = Pause(release=True)
            self.events.append(Log("warning", "The GPU has no room for the run yet: still paused"))
            return False
        return True

    def _keep_cadence(self, epoch_over: bool) -> None:
        """Samples, LoRA files and states that fall due after a step, be it the last of its epoch or not."""
        place = self.ledger.place
        if self.measurer.after(place.step, place.epoch, epoch_over, self.ledger.flush):
            # Several processes agree on a stop between two steps: theirs is one epoch later.
            self.control.plan_stop(place.epoch + (self.kit.compute.processes > 1))
        if self.keeper.samples_due(epoch_over):
            self.patience.persist(self.keeper.sample)
        # Saving comes last: a state says that everything of its step is done.
        for save in self.keeper.saves_due(epoch_over, epoch_over and self.measurer.may_be_best(place.epoch)):
            self.patience.persist(save)

    def _finish(self, stopped: bool) -> Outcome:
        if self.ledger.place.step:
            self.patience.persist(lambda: self.keeper.save("stop" if stopped else "final"), last=True)
        if stopped:
            self.control.plan_again()
        place = self.ledger.snapshot()
        reason = "stopped" if stopped else "finished"
        return Outcome(reason, place.step, place.epoch, self.keeper.last_lora, place.elapsed_s)


def _keepers(trainer: Trainer, made: ExitStack) -> tuple[Keeper, Patience]:
    """Make what sees to the disk for ``trainer``, whose kit stands."""
    folder, events, kit = trainer.folder, trainer.events, trainer.kit
    room = Room(folder, events, trainer.config.saving.keep_states)
    made.callback(room.close)
    order = kit.prepared.order
    trainer.ledger.pictures = StepLosses(trainer.config, kit.base.family, order, events, folder.events)
    keeper = Keeper(trainer.config, folder, events, kit, trainer.ledger, trainer.enter, room, kit.lean.pool)
    made.push(unless_lost(keeper.close, keeper.abandon))
    alone = kit.compute.processes == 1
    return keeper, Patience(room, events, trainer.control, trainer.ledger, keeper.settle, trainer.enter, alone)

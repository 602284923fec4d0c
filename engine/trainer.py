"""The training loop, readable aloud.

For every step of the order: obey commands, run the micro-batches, clip, step, tell. At the end of an epoch: save,
sample, ask whether to stop. What a step is made of lives in :mod:`engine.training`; threads and states in
:mod:`engine.run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.batches import Turn
from engine.commands import Pause
from engine.config import RunConfig
from engine.errors import EngineError, RunError
from engine.events import EpochDone, EventLog, Log, RunStarted, StopPlanned
from engine.files import RunFolder
from engine.training.checkpoint import Place, generations, load_newest
from engine.training.control import Control
from engine.training.device import Compute, compute_for
from engine.training.keeper import Keeper
from engine.training.kit import Kit, build_kit
from engine.training.ledger import Ledger, Told, refuse_nonfinite
from engine.training.optimizer import clip_gradients
from engine.training.prepare import Base, Prepared, Stopped, check_base, prepare
from engine.training.release import leave_gpu, return_to_gpu, room_on_host
from engine.training.schedule import set_learning_rate
from engine.training.stopwatch import Stopwatch, to_host


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
        enter: enters a state of the run and returns the one before.
    """

    kit: Kit
    keeper: Keeper

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        events: EventLog,
        control: Control,
        enter: Callable[[str], str],
    ) -> None:
        self.config = config
        self.folder = folder
        self.events = events
        self.control = control
        self.enter = enter
        self.ledger = Ledger(events)
        self.compute: Compute | None = None

    def train(self) -> Outcome:
        """Run to the end or to a stop.

        Raises:
            EngineError: what a user can mend.
        """
        try:
            self._set_up()
        except Stopped:
            state, _ = load_newest(self.folder.states)
            place = state.place if state else Place()
            return Outcome("stopped", place.step, place.epoch, "", place.elapsed_s)
        self.ledger.start(self.ledger.place)
        if self.ledger.place.step == 0 and self.config.sampling.at_start and self.config.sampling.prompts:
            self.keeper.sample()
        self.enter("training")
        return self._finish(stopped=self._loop())

    def peak_gb(self) -> float:
        """Highest GPU memory so far, GiB; 0 on a CPU and before the device is chosen. Safe from any thread."""
        return self.compute.peak_gb() if self.compute else 0.0

    def gpu_uuid(self) -> str:
        """The GPU in use, as NVML names it; empty on a CPU and before the device is chosen."""
        return self.compute.gpu_uuid() if self.compute else ""

    def _set_up(self) -> None:
        config, events = self.config, self.events
        self.enter("preparing")
        base = check_base(config)
        compute = self.compute = compute_for(config)
        self.enter("caching")
        prepared = self._prepare(base, compute)
        self.enter("loading")
        resuming = bool(generations(self.folder.states))
        self.kit = build_kit(config, base, compute, prepared, events, self.control, resuming)
        self.keeper = Keeper(config, self.folder, events, self.kit, self.ledger, self.enter)
        self.keeper.restore()
        order = prepared.order
        events.append(
            RunStarted(
                name=self.folder.name,
                folder=str(self.folder.root),
                family=base.family.name,
                variant=base.variant,
                epochs=order.total_epochs,
                steps=order.total_steps,
                images=sum(not sample.regularization for sample in order.samples),
                resumed_step=self.ledger.place.step,
            )
        )
        if self.control.stop_epoch:
            # Planned while the caches filled: said again, since the outline just told begins a new view.
            events.append(StopPlanned(self.control.stop_epoch))

    def _prepare(self, base: Base, compute: Compute) -> Prepared:
        """Fill the caches in the main process; the others then find them full.

        Raises:
            Stopped: the user stopped the run meanwhile.
        """
        prepared, ended = None, None
        if compute.is_main:
            try:
                prepared = prepare(self.config, base, compute, self.events, self.control.stopping)
            except (Stopped, EngineError) as err:
                ended = err
        if compute.from_main(ended is not None):
            raise ended or Stopped
        self.folder = compute.from_main(self.folder)
        return prepared or prepare(self.config, base, compute, self.events, lambda: False)

    def _loop(self) -> bool:
        """Every step that is left; True if the user ended the run."""
        order = self.kit.prepared.order
        for turn in order.turns(after=self.ledger.place.step):
            self.control.epoch = turn.epoch
            if self._obey():
                return True
            self._step(turn)
            epoch_over = order.ends_epoch(turn)
            if epoch_over:
                self._tell_epoch()
            self._keep_cadence(epoch_over)
            if epoch_over and self.control.stop_due(turn.epoch) and turn.step < order.total_steps:
                return True
        return False

    def _step(self, turn: Turn) -> None:
        """One optimizer step over this process's micro-batches."""
        kit = self.kit
        compute, order, watch = kit.compute, kit.prepared.order, Stopwatch(kit.compute.device)
        micros = order.step(turn)
        lr = set_learning_rate(kit.optimizer, self.config, turn.step - 1, order.total_steps)
        total = torch.zeros((), device=compute.device)
        for number, micro in enumerate(micros):
            if number % compute.processes != compute.rank:
                continue
            inputs = kit.objective.inputs(micro, turn.step, number)
            watch.mark("data")
            loss = kit.objective.loss(inputs) / len(micros)
            compute.backward(loss)
            total += loss.detach()
            watch.mark("model")
        total = compute.sum(total)
        names = "; ".join(micro.names for micro in micros)
        grad_norm = self._update(turn, total, names)
        numbers = to_host(total, grad_norm)
        watch.mark("optimizer")
        self.ledger.add(Told(turn, names, numbers, watch, lr, late=compute.device.type != "cpu"))

    def _update(self, turn: Turn, loss: Tensor, names: str) -> Tensor:
        """Clip and step; returns the gradient norm before clipping."""
        kit = self.kit
        parameters = kit.lora.parameters()
        kit.compute.sum_gradients(parameters)
        grad_norm = clip_gradients(parameters, self.config.optimizer.max_grad_norm)
        if loss.device.type == "cpu":
            # On a GPU this look would make every step wait; there the check comes with the late reading.
            refuse_nonfinite(turn.step, float(loss), float(grad_norm), names)
        kit.optimizer.step()
        kit.optimizer.zero_grad(set_to_none=True)
        if self.config.lora.max_norm:
            kit.lora.clip_norms(self.config.lora.max_norm)
        return grad_norm

    def _obey(self) -> bool:
        """Carry out what was asked since the last step; True if the run ends here."""
        self.control.poll()
        self._agree()
        self._serve()
        if self.control.pause and not self.control.stop_now:
            self._hold()
        if self.events.write_error is not None:
            raise RunError(
                "The run's events can no longer be written",
                f"{self.folder.events}: {self.events.write_error}",
                "Free some space, then resume the run.",
            )
        return self.control.stop_now

    def _agree(self) -> None:
        """Let every process act on what the main one was asked."""
        if self.kit.compute.processes > 1:
            self.control.adopt(self.kit.compute.from_main(self.control.flags()))

    def _serve(self) -> None:
        """Save and sample if asked."""
        if self.control.save_now:
            self.control.save_now = False
            self.keeper.save("manual")
        if self.control.sample_now:
            self.control.sample_now = False
            self.keeper.sample()

    def _hold(self) -> None:
        """Wait until the pause is taken back or the run is stopped."""
        self.ledger.flush()
        began = time.monotonic()
        released = False
        self.enter("paused")
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
        """Free the GPU if the host has room; False if it has not and the run only holds."""
        if self.kit.compute.device.type == "cuda":
            needed, free = room_on_host(self.kit)
            if needed > free:
                text = f"Held on the GPU: leaving it needs {needed:.1f} GB of host memory, {free:.1f} are free"
                self.events.append(Log("warning", text))
                self.control.pause = replace(self.control.pause, release=False) if self.control.pause else None
                return False
            # Coming back may find the GPU taken by others: nothing done so far may hang on that.
            self.keeper.save_state()
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

    def _tell_epoch(self) -> None:
        self.ledger.flush()
        place = self.ledger.place
        self.events.append(EpochDone(place.epoch, place.step, place.loss_sum / place.index))

    def _keep_cadence(self, epoch_over: bool) -> None:
        """Samples, LoRA files and states that fall due after a step, be it the last of its epoch or not."""
        place, saving, sampling = self.ledger.place, self.config.saving, self.config.sampling
        drawn = _due(place.step, sampling.every_steps) or (epoch_over and _due(place.epoch, sampling.every_epochs))
        if drawn and sampling.prompts:
            self.keeper.sample()
        # Saving comes last: a state says that everything of its step is done.
        if epoch_over and _due(place.epoch, saving.every_epochs):
            self.keeper.save("epoch")
        elif _due(place.step, saving.every_steps):
            self.keeper.save("step")
        elif self.keeper.state_due():
            self.keeper.save_state()

    def _finish(self, stopped: bool) -> Outcome:
        if self.ledger.place.step:
            self.keeper.save("stop" if stopped else "final")
        place = self.ledger.snapshot()
        reason = "stopped" if stopped else "finished"
        return Outcome(reason, place.step, place.epoch, self.keeper.last_lora, place.elapsed_s)


def _due(count: int, every: int) -> bool:
    return every > 0 and count % every == 0

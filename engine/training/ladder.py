"""What a run does when the GPU's memory runs out: it steps down a ladder, and does the same work again.

A piece of work (a step, the loading) is attempted; if memory runs out its traces are taken back, the next rung is
taken that can help, and it is attempted again with the same data and the same draws. Nothing is loaded anew for it
but a base that is packed to fewer bits. Every rung taken is told, as a warning and as an event, and written into the
run's folder before it counts, with the step it counts from: a resumed run computes each step as this one did (where
the disk refuses it that is told, and written once it can be). Rungs that change no bit count from its first step.

With several processes there is no ladder: the others would wait in the step that one of them broke off.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from engine.blocks.transformer import Checkpointing
from engine.config import RunConfig
from engine.config_memory import Rung
from engine.errors import DiskError, EngineError, RunError
from engine.events import EventLog, Log, SteppedDown
from engine.files import RunFolder
from engine.memory.exhaustion import first_line, ran_out
from engine.memory.offload import Offloader
from engine.memory.placement import stream_more
from engine.memory.rungs import NEUTRAL, Footing, Taken, footing_of, read_taken, rungs_of, write_taken
from engine.text import safe_text
from engine.training.device import Compute
from engine.training.kit import Kit
from engine.training.lean import repack
from engine.training.prepare import Base

PATIENCE = 100
"""Steps that must have been made since the cache was last emptied: doing so at every step is no cure."""

RETRY_S = 30.0
"""How often it is tried again to write down what was taken, where the disk refuses."""

LOADING = frozenset({"empty_cache", "blocks_to_swap", "precision"})
"""Rungs that help before a step is made."""

T = TypeVar("T")


class Exhausted(RunError):
    """Memory ran out and no rung is left; what was attempted has left no trace."""


class Ladder:
    """One run's ladder and where it stands on it.

    Args:
        config: the run's, as written.
        base: its model files.
        folder: where taken rungs are written down.
        first_step: the step that the run begins or goes on with.

    Attributes:
        footing: the settings as they are now.
        kit: what a rung is carried out on, once it is built.
    """

    kit: Kit | None = None

    def __init__(
        self, config: RunConfig, base: Base, compute: Compute, folder: RunFolder, events: EventLog, first_step: int
    ) -> None:
        self._config = config
        self._base = base
        self._compute = compute
        self._path = folder.memory
        self._events = events
        self.first_step = first_step
        self.footing = footing_of(config)
        self._rungs = rungs_of(config, base.blocks)
        self._tried: list[str] = []
        self._emptied: int | None = None
        self._taken: list[Taken] = []
        self._coming: list[Taken] = []
        self._kept = True
        """Whether what was taken is written down."""
        self._kept_at = 0.0
        if compute.processes == 1:
            self._take_up()

    @property
    def config(self) -> RunConfig:
        """The configuration to build the kit with."""
        return self.footing.applied_to(self._config)

    def load(self, build: Callable[[], Kit]) -> Kit:
        """Build the kit, by :attr:`config` as it is at each attempt; rungs are carried out on it from then on.

        Raises:
            Exhausted: no rung is left.
        """
        kit = self.kit = self.attempt(build, "loading", self.first_step - 1)
        kit.micro_batch = self.footing.micro_batch
        return kit

    def begin(self, step: int) -> None:
        """Take what an earlier sitting took at ``step``, so that it is computed as it was then.

        Raises:
            EngineError: the base cannot be packed.
        """
        if not self._kept and time.monotonic() - self._kept_at >= RETRY_S:
            self._keep()
        while self._coming and self._coming[0].step <= step:
            rung = self._coming.pop(0).rung
            below = self.footing.below(rung)
            if below is not None:
                self.footing = self._carry_out(rung, below)

    def attempt(self, work: Callable[[], T], stage: str, step: int, undo: Callable[[], None] | None = None) -> T:
        """Do ``work``, on a lower rung as often as memory runs out in it.

        Args:
            stage, step: as :class:`~engine.events.SteppedDown` has them.
            undo: takes back what work that broke off has left.

        Raises:
            Exhausted: no rung is left.
        """
        while True:
            try:
                if self.kit is not None:
                    self.kit.lean.source.come_back()  # there already, unless a rung could not make room for the ring
                return work()
            except RuntimeError as err:
                if self._compute.processes > 1 or not ran_out(err):
                    raise
                reason = first_line(err)
                if undo is not None:
                    undo()
            # Only here, without the error, is the memory free that its frames held.
            self._step_down(stage, step, reason)

    def _step_down(self, stage: str, step: int, reason: str) -> None:
        """Take the next rung that can help."""
        self._free()
        for rung in self._rungs:
            if stage == "loading" and rung.setting not in LOADING:
                continue
            if rung.setting == "empty_cache":
                if self._emptied is not None and step - self._emptied < PATIENCE:
                    continue
                self._emptied = step
                self._tell(stage, step, Taken(step, rung.setting, "", ""), reason)
                return
            below = self.footing.below(rung)
            if below is not None and self._take(rung, below, stage, step, reason):
                return
        raise self._exhausted(stage, step, reason)

    def _take(self, rung: Rung, below: Footing, stage: str, step: int, reason: str) -> bool:
        """Write a rung down and carry it out; False if this machine cannot."""
        before, words = self.footing, ""
        try:
            reached = self._carry_out(rung, below)
        except EngineError as err:
            reached, words = before, f"{err.title}: {err.detail}"
        except RuntimeError as err:
            if not ran_out(err):
                raise
            # Blocks have left the GPU, only their ring found no room yet: attempting again makes it.
            reached, words = below, first_line(err)
            if rung.setting == "blocks_to_swap" and self.kit is not None:
                reached = replace(below, blocks_to_swap=len(self.kit.lean.source.plan.streamed))
        if rung.setting == "precision" and words:
            # There is no base any more, wide or narrow.
            self._tried.append(f"{rung} ({safe_text(words, 300)})")
            raise self._exhausted(stage, step, reason)
        if reached == before:
            if words:
                self._tried.append(f"{rung} ({safe_text(words, 300)})")
            return False
        # A step that broke off is done again by it; after anything else it counts from the next step on.
        first = step if stage == "training" else step + 1
        taken = Taken(first, rung.setting, before.value(rung.setting), reached.value(rung.setting))
        self._taken.append(taken)
        self._keep()
        self.footing = reached
        self._tell(stage, step, taken, reason)
        return True

    def _keep(self) -> None:
        """Write down what was taken; where the disk refuses, that is told once, and tried again with later steps.

        The run goes on meanwhile: it may be loading, with nothing yet to hold it, and what it does now is right.
        """
        self._kept_at = time.monotonic()
        try:
            write_taken(self._path, self._taken)
            self._kept = True
        except DiskError as err:
            if self._kept:
                text = (
                    f"{err.title}: {err.detail}. Resumed before that stands, the run begins with memory as configured"
                )
                self._events.append(Log("warning", safe_text(text, 2000)))
            self._kept = False

    def _carry_out(self, rung: Rung, below: Footing) -> Footing:
        """Bring the kit to ``below``; where there is none yet, the next one is built there.

        Returns:
            The footing reached: the host may have room for fewer blocks; the one before where nothing is gained.
        """
        kit = self.kit
        if kit is None:
            return below
        if kit.recorded is not None and rung.setting != "precision":
            kit.recorded = None  # what is recorded neither streams nor offloads, and holds memory of its own
        match rung.setting:
            case "gradient_checkpointing":
                _keep_less(kit, rung.value)
            case "blocks_to_swap":
                source = kit.lean.source
                plan = stream_more(source.plan, rung.number, kit.lean.pool.free_bytes())
                if plan is source.plan:
                    return self.footing
                below = replace(below, blocks_to_swap=len(plan.streamed))
                source.restream(plan, kit.lean.pool)
            case "micro_batch":
                kit.micro_batch = rung.number
            case "precision":
                kit.recorded = None
                repack(kit.lean, below.applied_to(self._config), self._base, self._compute, self._say)
        return below

    def _free(self) -> None:
        """Give back what hangs on no step."""
        gc.collect()  # graphs that broke off hold their tensors in circles
        if self.kit is not None:
            if self.kit.recorded is not None:
                self.kit.recorded.forget()
            if isinstance(offload := self.kit.transformer.offload, Offloader):
                offload.leave()
        self._compute.free_unused()

    def _take_up(self) -> None:
        """Stand where the run stood."""
        self._taken, wrong = read_taken(self._path)
        if wrong:
            text = f"{safe_text(self._path, 400)} {wrong}: memory is used as the configuration says"
            self._events.append(Log("warning", text))
        for taken in self._taken:
            if taken.setting not in NEUTRAL and taken.step > self.first_step:
                self._coming.append(taken)
            elif (below := self.footing.below(taken.rung)) is not None:
                self.footing = below
        if self._taken:
            self._say("Memory as the run left it: " + "; ".join(map(str, self._taken)))

    def _tell(self, stage: str, step: int, taken: Taken, reason: str) -> None:
        what = str(taken) if taken.after else "the cache is emptied"
        self._tried.append(what)
        self._events.append(SteppedDown(stage, step, taken.setting, taken.before, taken.after, reason))
        where = f"at step {step}" if stage == "training" else f"while {stage}"
        self._events.append(Log("warning", f"Out of memory {where}: {what}, and on with the same work ({reason})"))

    def _say(self, text: str) -> None:
        self._events.append(Log("info", text))

    def _exhausted(self, stage: str, step: int, reason: str) -> Exhausted:
        tried = "; ".join(self._tried) if self._tried else "nothing (memory.ladder is off)"
        where = f"at step {step}" if stage == "training" else f"while {stage}"
        hint = "Close other programs that use the GPU, or lower dataset.resolution, lora.rank or training.batch_size."
        if not self._config.memory.allow_lower_precision:
            hint += " memory.allow_lower_precision = true lets the base be packed to fewer bits."
        done = step - 1 if stage == "training" else step
        if done:
            hint += f" The state of step {done} is saved: the run can be resumed once there is room."
        return Exhausted("The GPU is out of memory", f"{where}: {reason}; tried: {tried}", hint)


def _keep_less(kit: Kit, keeping: str) -> None:
    """Let blocks keep less between the passes.

    Raises:
        RunError: the host has no room for the blocks' inputs.
    """
    transformer = kit.transformer
    if keeping == "offload" and transformer.offload is None:
        kit.lean.pool.require(_input_bytes(kit), "the inputs of all blocks")
        transformer.offload = kit.lean.offloader()
    transformer.checkpointing = cast(Checkpointing, keeping)


def _input_bytes(kit: Kit) -> int:
    """Bytes of all blocks' inputs in the run's largest micro-batch."""
    family, config, order = kit.base.family, kit.painter.config, kit.prepared.order
    side = family.downscale * family.patch
    text = family.text_length(kit.base.variant, config.model)
    tokens = max(
        min(len(micro.items), kit.micro_batch or len(micro.items))
        * (micro.items[0].view.placement.bucket_w * micro.items[0].view.placement.bucket_h // side**2 + text)
        for step in order.epoch_steps(1)
        for micro in step
    )
    transformer = kit.transformer
    blocks = transformer.params.depth + transformer.params.depth_single_blocks
    return tokens * transformer.params.hidden_size * transformer.dtype.itemsize * blocks

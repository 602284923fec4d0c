"""What a run leaves on disk while it goes: LoRA files, training states, sample pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.config import RunConfig
from engine.errors import RunError
from engine.events import EventLog, Log
from engine.files import RunFolder
from engine.training.checkpoint import TrainingState, load_newest, save_state
from engine.training.export import export_lora
from engine.training.kit import Kit
from engine.training.ledger import Ledger
from engine.training.optimizer import eval_weights
from engine.training.optimizer_state import load_optimizer_state, optimizer_state

STATE_EVERY_S = 300.0
"""A training state is written at least this often, so that an accident costs at most this much."""


class Keeper:
    """Saves and samples for one run, in its main process; in the others saving and sampling do nothing.

    Args:
        enter: enters a state of the run and returns the one before.

    Attributes:
        last_lora: the newest LoRA file, "" before the first.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        events: EventLog,
        kit: Kit,
        ledger: Ledger,
        enter: Callable[[str], str],
    ) -> None:
        self.config = config
        self.folder = folder
        self.events = events
        self.kit = kit
        self.ledger = ledger
        self.enter = enter
        self.last_lora = ""
        self._state_clock = time.monotonic()

    def restore(self) -> None:
        """Take up the newest state that verifies, if there is one.

        Raises:
            RunError: no state verifies although there are some, or the base model is another one.
        """
        state, damaged = load_newest(self.folder.states)
        for line in damaged:
            self.events.append(Log("warning", f"Damaged training state passed over: {line}"))
        if state is None:
            return
        self._check_identity(state)
        self.kit.lora.load_state(state.lora)
        load_optimizer_state(self.kit.optimizer, state.optimizer, state.optimizer_json)
        self.ledger.start(state.place)

    def _check_identity(self, state: TrainingState) -> None:
        now = self.kit.prepared.identity
        changed = [name for name, digest in now.items() if state.identity.get(name) != digest]
        if "base model" in changed:
            raise RunError(
                "The base model is another one than before",
                f"{self.config.model.transformer} differs from the file this run was trained on",
                "Put the old file back, or start a new run with lora.resume_from.",
            )
        for name in changed:
            self.events.append(Log("warning", f"The {name} changed since the run stopped: it goes on differently"))

    def save(self, kind: str) -> None:
        """Write the LoRA and the training state.

        Raises:
            DiskError: something could not be written; what stood there before is unharmed.
        """
        place = self.ledger.snapshot()
        if not self.kit.compute.is_main:
            return
        with self._during("saving"):
            with eval_weights(self.kit.optimizer, self.kit.lora):
                self.last_lora = export_lora(self.config, self.folder, self.kit, place, kind, self.events)
            self.save_state()

    def save_state(self) -> None:
        """Write the training state alone.

        Raises:
            DiskError: it could not be written; earlier states are unharmed.
        """
        if not self.kit.compute.is_main:
            return
        tensors, plain = optimizer_state(self.kit.optimizer)
        place, lora = self.ledger.snapshot(), self.kit.lora.state()
        state = TrainingState(place, lora, tensors, plain, self.kit.prepared.identity)
        save_state(self.folder.states, state, self.config.saving.keep_states)
        self._state_clock = time.monotonic()

    def state_due(self) -> bool:
        """Whether it is time for a state, by steps or by the clock."""
        every = self.config.training.state_every_steps
        by_steps = bool(every) and self.ledger.place.step % every == 0
        return by_steps or time.monotonic() - self._state_clock > STATE_EVERY_S

    def sample(self) -> None:
        """Draw the sample prompts with the adapter as it stands.

        Raises:
            DiskError: a picture could not be written.
        """
        if not self.kit.compute.is_main:
            return
        if not self.config.sampling.prompts:
            self.events.append(Log("info", "No sample prompts are set ([[sampling.prompts]])"))
            return
        place = self.ledger.snapshot()
        began = time.monotonic()
        with self._during("sampling"), eval_weights(self.kit.optimizer, self.kit.lora):
            stem = f"step{place.step:06d}"
            drawn = self.kit.painter.draw(self.kit.transformer, self.folder.samples, place.step, place.epoch, stem)
        self.events.append(Log("info", f"{len(drawn)} samples drawn in {time.monotonic() - began:.1f} s"))

    @contextmanager
    def _during(self, state: str) -> Iterator[None]:
        before = self.enter(state)
        yield
        self.enter(before)

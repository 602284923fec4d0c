"""Measures a run as its plan says, and tells what was found; holds up the training meanwhile and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from engine.config import RunConfig
from engine.dataset.scan import Sample
from engine.events import Advised, EventLog, Log, Measured, replay
from engine.memory.exhaustion import first_line, ran_out
from engine.training.advisor import Advice, advise
from engine.training.kit import Kit
from engine.training.measured_pictures import MeasuredPictures, caption_of, view_of
from engine.training.optimizer import eval_weights
from engine.training.validation import Drift, Known, measure_loss, update_sizes

EARLY = 100
"""The step after which the size of the update is told in any case: a LoRA that does nothing is seen there."""

NOTHING = 1e-6
"""A smaller update is lost in the rounding of the base's weights, whatever they are."""


class Measurer:
    """Measures one run, in its main process; in the others it does nothing.

    Attributes:
        found: everything measured so far, oldest first.
    """

    def __init__(
        self,
        config: RunConfig,
        kit: Kit,
        chosen: MeasuredPictures,
        events: EventLog,
        enter: Callable[[str], str],
    ) -> None:
        self.config = config
        self.kit = kit
        self.chosen = chosen
        self.events = events
        self.enter = enter
        self.found: list[Measured] = []
        # Taken once: a picture that is edited or removed while the run goes on is measured as it was.
        self._names = {sample.path: sample.content_hash for sample in (*chosen.held_out, *chosen.train)}
        self._advice = Advice("unclear")
        self._drift: Drift | None = None

    def begin(self, events: Path, step: int) -> None:
        """Measure the base model before the first step; after ``step`` steps, take up what the run's ``events`` say.

        Raises:
            OSError: the events cannot be read.
        """
        plan = self.chosen.plan
        if not self.kit.compute.is_main or not (plan.every_epochs or plan.every_steps):
            return
        if step and events.exists():
            told = [entry.event for entry in replay(events, Measured)]
            # A step that was done again was measured again: the newest counts.
            found = {one.step: one for one in told if isinstance(one, Measured) and one.step <= step and one.train}
            self.found = [one for _, one in sorted(found.items())]
            self._advice = advise(self.found, self.config.stop)
        elif not step:
            self.measure(0, 0)

    def advise(self) -> Advice:
        """The advice as things stand, told if it is another one than before."""
        before, self._advice = self._advice, advise(self.found, self.config.stop)
        advice, newest = self._advice, self.found[-1]
        if self.config.stop.mode != "off" and advice.gist != before.gist:
            self.events.append(
                Advised(
                    newest.step,
                    newest.epoch,
                    advice.verdict,
                    advice.first,
                    advice.last,
                    advice.best,
                    advice.text,
                    advice.over,
                )
            )
        return advice

    def after(self, step: int, epoch: int, epoch_over: bool, flush: Callable[[], None]) -> bool:
        """Measure and advise where that is due; True if the best epochs are over since now and the run is to stop.

        Since now: a run that was stopped for that and goes on is not stopped for it again.

        Args:
            flush: has every step told before a measurement that comes after it.
        """
        self._tell_size(step)
        if not (self.kit.compute.is_main and self.chosen.plan.due(step, epoch, epoch_over)):
            return False
        flush()
        over_before = self._advice.over
        if self.measure(step, epoch) is None:
            return False
        return self.advise().over and not over_before and self.config.stop.mode == "stop"

    def measure(self, step: int, epoch: int) -> Measured | None:
        """Measure the LoRA as it stands; None where memory does not suffice, which is told."""
        began = time.monotonic()
        before = self.enter("measuring")
        try:
            with eval_weights(self.kit.optimizer, self.kit.lora):
                found = self._measure(step, epoch, began)
        except RuntimeError as err:
            if not ran_out(err):
                raise
            reason = first_line(err)
        else:
            self.found.append(found)
            self.events.append(found)
            return found
        finally:
            self.enter(before)
        self.kit.compute.free_unused()
        self.events.append(
            Log("warning", f"The measurement at step {step} is left out, memory does not suffice: {reason}")
        )
        return None

    def _tell_size(self, step: int) -> None:
        """The size of the update alone, once, at :data:`EARLY`: costs nothing."""
        if step != EARLY or not self.kit.compute.is_main:
            return
        sizes = update_sizes(self.kit.lora)
        self.events.append(Measured(step, 0, update=sizes))
        if sum(size for _, size in sizes) < NOTHING:
            text = f"After {step} steps the LoRA still changes nothing: is optimizer.learning_rate too low?"
            self.events.append(Log("warning", text))

    def _measure(self, step: int, epoch: int, began: float) -> Measured:
        plan, kit = self.chosen.plan, self.kit
        held, train = (self._known(samples) for samples in (self.chosen.held_out, self.chosen.train))
        held_loss = measure_loss(kit, held, plan.sigmas, plan.seeds, self.config.seed)
        train_loss = measure_loss(kit, train, plan.sigmas, 1, self.config.seed)
        return Measured(
            step=step,
            epoch=epoch,
            held_out=held_loss.by_seed,
            held_out_bands=held_loss.by_band,
            held_out_pictures=held_loss.by_picture,
            train=train_loss.by_seed,
            train_bands=train_loss.by_band,
            drift=self._drift_of(held or train),
            update=update_sizes(kit.lora),
            seconds=round(time.monotonic() - began, 3),
        )

    def _drift_of(self, known: list[Known]) -> float | None:
        if not self.chosen.prompts or not known:
            return None
        if self._drift is None:
            texts = [self.kit.objective.entries.batch_text([prompt]) for prompt in self.chosen.prompts]
            self._drift = Drift(texts, tuple(known[0].latents.shape), self.config.seed)
        return self._drift.measure(self.kit)

    def _known(self, samples: tuple[Sample, ...]) -> list[Known]:
        entries = self.kit.objective.entries
        known = []
        for sample in samples:
            latents = entries.mean_latents(view_of(sample, self.config.dataset))
            known.append(
                Known(self._names[sample.path], latents, entries.batch_text([caption_of(sample, self.config)]))
            )
        return known

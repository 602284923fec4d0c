"""Measures a run as its plan says, and tells what was found; holds up the training meanwhile and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from engine.config import RunConfig
from engine.events import Advised, EventLog, Log, Measured, replay
from engine.memory.exhaustion import first_line, ran_out
from engine.training.advisor import Advice, advise, on_disk
from engine.training.checkpoint import Place
from engine.training.control import Control
from engine.training.fixed_losses import figures_told, measure_pictures, pictures_of
from engine.training.gauge import Gauge
from engine.training.kit import Kit
from engine.training.measured_pictures import MeasuredPictures
from engine.training.optimizer import eval_weights
from engine.training.validation import Subject, update_sizes

Found = TypeVar("Found")

EARLY = 100
"""The step after which the size of the update is told in any case: a LoRA that does nothing is seen there."""

NOTHING = 1e-6
"""A smaller update is lost in the rounding of the base's weights, whatever they are."""


class Measurer:
    """Measures one run, in its main process; in the others it does nothing.

    Args:
        saved: the epochs of which a LoRA file stands.

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
        saved: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self.saved = saved
        self.config = config
        self.kit = kit
        self.chosen = chosen
        self.events = events
        self.enter = enter
        self.found: list[Measured] = []
        self.gauge = Gauge(config, chosen)
        self._advice = Advice("unclear")

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
            self._advice = self._think()
        elif not step:
            self.measure(0, 0)

    def advise(self) -> Advice:
        """The advice as things stand, told if it is another one than before."""
        before, self._advice = self._advice, self._think()
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

    def told(self) -> Advice:
        """The advice in force; an unclear one where nothing is advised."""
        return self._advice if self.config.stop.mode != "off" else Advice("unclear")

    def may_be_best(self, epoch: int) -> bool:
        """Whether ``epoch``, just over, may turn out to be the one to recommend: it is wanted on the disk then."""
        plan, advising = self.chosen.plan, self.config.stop.mode != "off" and bool(self.chosen.held_out)
        every = plan.every_epochs or bool(plan.every_steps)
        return self.kit.compute.is_main and advising and bool(every) and epoch % every == 0

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

    def _think(self) -> Advice:
        """What the measurements say, of epochs that can be had: the newest one's file is about to be written."""
        return on_disk(advise(self.found, self.config.stop), {*self.saved(), *(one.epoch for one in self.found[-1:])})

    def measure(self, step: int, epoch: int) -> Measured | None:
        """Measure the LoRA as it stands; None where memory does not suffice, which is told."""
        found = self._somehow(lambda: self.gauge.measure(self.subject(), step, epoch), step)
        if found is not None:
            self.found.append(found)
            self.events.append(found)
        return found

    def serve(self, control: Control, place: Place) -> None:
        """Measure every training picture if that was asked for, or as many as there is patience for."""
        wanted, control.measure_now = control.measure_now, False
        if not (wanted and self.kit.compute.is_main):
            return
        order, entries = self.kit.prepared.order, self.kit.objective.entries
        epoch = max(place.epoch, 1)
        asked = pictures_of(order, entries.latents, epoch, self.config.seed)

        def ending() -> bool:
            return control.stopping() or control.measure_now

        found = self._somehow(lambda: measure_pictures(self.subject(), asked, self.events, ending), place.step)
        control.measure_now = False  # asked for again meanwhile: enough of it
        if found:
            for event in figures_told(place.step, place.epoch, asked, found):
                self.events.append(event)

    def _somehow(self, work: Callable[[], Found], step: int) -> Found | None:
        """What ``work`` finds with the weights as they are judged; None where memory does not suffice."""
        before = self.enter("measuring")
        try:
            with eval_weights(self.kit.optimizer, self.kit.lora):
                return work()
        except RuntimeError as err:
            if not ran_out(err):
                raise
            reason = first_line(err)
        finally:
            self.enter(before)
        self.kit.compute.free_unused()
        text = f"The measurement at step {step} is left out, memory does not suffice: {reason}"
        self.events.append(Log("warning", text))
        return None

    def subject(self) -> Subject:
        """The run's model as it stands."""
        kit, objective = self.kit, self.kit.objective
        ahead = kit.painter.conditioning
        return Subject(objective.config, kit.base, kit.compute, kit.transformer, kit.lora, objective.entries, ahead)

    def _tell_size(self, step: int) -> None:
        """The size of the update alone, once, at :data:`EARLY`: costs nothing."""
        if step != EARLY or not self.kit.compute.is_main:
            return
        sizes = update_sizes(self.kit.lora)
        self.events.append(Measured(step, 0, update=sizes))
        if sum(size for _, size in sizes) < NOTHING:
            text = f"After {step} steps the LoRA still changes nothing: is optimizer.learning_rate too low?"
            self.events.append(Log("warning", text))

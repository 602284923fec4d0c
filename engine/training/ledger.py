"""Where the run stands and what its steps gave: the place, the clock, and losses read late.

A step's loss is still on its way from the GPU when the next step is launched; reading it at once would make every
step wait. So a step is told when its numbers are there, at the latest when two more have been launched (on a CPU at
once), and before anything is saved. The device itself sees to it that a step whose numbers are broken, and the ones
after it, change nothing (:mod:`engine.training.gate`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from engine.batches import Turn
from engine.events import EpochDone, EventLog, StepDone
from engine.memory.meter import Spent
from engine.training.checkpoint import Place
from engine.training.gate import AHEAD
from engine.training.nonfinite import NonFinite
from engine.training.spikes import Spike, Spikes
from engine.training.step_losses import StepLosses
from engine.training.stopwatch import Stopwatch
from engine.training.watch import Watch

SKIPS_WITHIN = 50
"""Steps left out count against the run's patience this long."""


@dataclass(frozen=True)
class Told:
    """A step done.

    Attributes:
        names: the pictures it saw, for messages.
        numbers: loss, gradient norm, how many steps were held back, and the samples' own losses (3 + N,) on the host;
            valid once ``watch`` has been waited for.
        late: whether they may still be on their way.
        undo: takes back what the host counted of steps held back.
        tokens: what the transformer saw, text and image, in this process.
        spent: copies between host and device, and waits for them.
    """

    turn: Turn
    names: str
    numbers: Tensor
    watch: Stopwatch
    lr: float
    late: bool
    undo: Callable[[], object]
    tokens: int = 0
    spent: Spent = field(default_factory=Spent)


class Ledger:
    """The run's place, kept step by step.

    Attributes:
        place: what a state saved now would say.
        told: the newest step whose numbers were read and are finite.
        watch: looks at every step that is told; None where nobody watches.
        spiked: told of losses that jumped.
        pictures: takes the samples' own losses; None where nobody wants them.
    """

    def __init__(self, events: EventLog) -> None:
        self.events = events
        self.place = Place()
        self.told = 0
        self.watch: Watch | None = None
        self.spiked: Callable[[Spike], None] = lambda spike: None
        self.pictures: StepLosses | None = None
        self._spikes = Spikes()
        self._untold: deque[tuple[Told, Place]] = deque()
        self._clock = time.monotonic()

    def start(self, place: Place) -> None:
        """Begin (or go on) at ``place``; the clock of training time starts here."""
        self.place = place
        self.told = place.step
        self._clock = time.monotonic() - place.elapsed_s
        if self.pictures is not None:
            self.pictures.begin(place.step)

    def forget(self) -> None:
        """Take back what the host counted of steps still untold: another state takes the place of theirs."""
        if self._untold:
            self._untold[0][0].undo()
        self._untold.clear()

    def elapsed_s(self) -> float:
        """Training time in seconds over all sittings, pauses left out."""
        return time.monotonic() - self._clock

    def leave_out(self, seconds: float) -> None:
        """Do not count ``seconds`` just spent in a pause."""
        self._clock += seconds

    def snapshot(self) -> Place:
        """The place with its time, every loss told."""
        self.flush()
        return replace(self.place, elapsed_s=self.elapsed_s())

    def add(self, told: Told) -> None:
        """Book a step that is done, and tell what can be told; waits where more than two would be left untold.

        Raises:
            NonFinite: a step's loss or gradient norm is not a number; the place is that before it.
        """
        self._untold.append((told, self.place))
        turn = told.turn
        self.place = replace(self.place, step=turn.step, epoch=turn.epoch, index=turn.index + 1)
        while self._untold and (len(self._untold) > AHEAD or not told.late or self._untold[0][0].watch.ready()):
            self._tell_first()

    def flush(self) -> None:
        """Tell every step that is still untold, waiting for its numbers.

        Raises:
            NonFinite: a step's loss or gradient norm is not a number; the place is that before it.
        """
        while self._untold:
            self._tell_first()

    def _tell_first(self) -> None:
        told, before = self._untold.popleft()
        told.watch.wait()
        loss, grad_norm, held, *each = told.numbers.tolist()
        if held or not math.isfinite(loss) or not math.isfinite(grad_norm):
            # Neither this step nor those launched since have changed anything.
            self._untold.clear()
            self.place = replace(before, loss_sum=self.place.loss_sum)
            told.undo()
            raise NonFinite(told.turn, loss, grad_norm, told.names)
        self._tell(told, loss, grad_norm)
        if self.pictures is not None:
            self.pictures.add(told.turn, each)

    def skip(self, turn: Turn) -> None:
        """Leave a step out: the place moves on, its pictures count as seen.

        Raises:
            NonFinite: as :meth:`flush`.
        """
        self.flush()
        place = self.place
        kept = turn.step - max(turn.index + 1, SKIPS_WITHIN)
        self.place = replace(
            place,
            step=turn.step,
            epoch=turn.epoch,
            index=turn.index + 1,
            loss_sum=0.0 if turn.index == 0 else place.loss_sum,
            skipped=(*(step for step in place.skipped if step > kept), turn.step),
        )

    def tell_epoch(self) -> None:
        """Tell the end of an epoch, with the mean loss of the steps that were not left out.

        Raises:
            NonFinite: as :meth:`flush`.
        """
        self.flush()
        place = self.place
        made = place.index - sum(step > place.step - place.index for step in place.skipped)
        self.events.append(EpochDone(place.epoch, place.step, place.loss_sum / made if made else math.nan))
        if self.pictures is not None:
            self.pictures.tell(place.step, place.epoch)

    def _tell(self, told: Told, loss: float, grad_norm: float) -> None:
        turn = told.turn
        before = 0.0 if turn.index == 0 else self.place.loss_sum
        self.place = replace(self.place, loss_sum=before + loss)
        self.told = turn.step
        spent = told.watch.seconds()
        forward_s, backward_s = spent.get("forward", 0.0), spent.get("backward", 0.0)
        self.events.append(
            StepDone(
                step=turn.step,
                epoch=turn.epoch,
                loss=loss,
                lr=told.lr,
                grad_norm=grad_norm,
                step_s=sum(spent.values()),
                data_s=spent.get("data", 0.0),
                model_s=forward_s + backward_s + spent.get("recorded", 0.0),
                optimizer_s=spent.get("optimizer", 0.0),
                forward_s=forward_s,
                backward_s=backward_s,
                stall_s=told.spent.stall_s(),
                tokens=told.tokens,
                moved_mb=told.spent.moved_mb(),
            )
        )
        if self.watch is not None:
            self.watch.look(self.events)
        spike = self._spikes.add(turn.step, loss, told.names)
        if spike is not None:
            self.spiked(spike)

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
from engine.errors import RunError
from engine.events import EpochDone, EventLog, StepDone
from engine.memory.meter import Spent
from engine.training.checkpoint import Place
from engine.training.gate import AHEAD
from engine.training.stopwatch import Stopwatch
from engine.training.watch import Watch


@dataclass(frozen=True)
class Told:
    """A step done.

    Attributes:
        names: the pictures it saw, for messages.
        numbers: loss, gradient norm and how many steps were held back (3,) on the host; valid once ``watch`` has been
            waited for.
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
        watch: looks at every step that is told; None where nobody watches.
    """

    def __init__(self, events: EventLog) -> None:
        self.events = events
        self.place = Place()
        self.watch: Watch | None = None
        self._untold: deque[tuple[Told, Place]] = deque()
        self._clock = time.monotonic()

    def start(self, place: Place) -> None:
        """Begin (or go on) at ``place``; the clock of training time starts here."""
        self.place = place
        self._clock = time.monotonic() - place.elapsed_s

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
            RunError: a step's loss or gradient norm is not a number; the place is that before it.
        """
        self._untold.append((told, self.place))
        turn = told.turn
        self.place = replace(self.place, step=turn.step, epoch=turn.epoch, index=turn.index + 1)
        while self._untold and (len(self._untold) > AHEAD or not told.late or self._untold[0][0].watch.ready()):
            self._tell_first()

    def flush(self) -> None:
        """Tell every step that is still untold, waiting for its numbers.

        Raises:
            RunError: a step's loss or gradient norm is not a number; the place is that before it.
        """
        while self._untold:
            self._tell_first()

    def tell_epoch(self) -> None:
        """Tell that the epoch of the last step is over, every loss of it told.

        Raises:
            RunError: a step's loss or gradient norm is not a number; the place is that before it.
        """
        self.flush()
        place = self.place
        self.events.append(EpochDone(place.epoch, place.step, place.loss_sum / place.index))

    def _tell_first(self) -> None:
        told, before = self._untold.popleft()
        told.watch.wait()
        loss, grad_norm, held = told.numbers.tolist()
        try:
            refuse_nonfinite(told.turn.step, loss, grad_norm, told.names, held > 0)
        except RunError:
            # Neither this step nor those launched since have changed anything.
            self._untold.clear()
            self.place = replace(before, loss_sum=self.place.loss_sum)
            told.undo()
            raise
        self._tell(told, loss, grad_norm)

    def _tell(self, told: Told, loss: float, grad_norm: float) -> None:
        turn = told.turn
        before = 0.0 if turn.index == 0 else self.place.loss_sum
        self.place = replace(self.place, loss_sum=before + loss)
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


def refuse_nonfinite(step: int, loss: float, grad_norm: float, names: str, held: bool = False) -> None:
    """Stop a run whose numbers have broken down, or whose step the device ``held`` back for that.

    Raises:
        RunError: the loss or the gradient norm is infinite or not a number.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm) and not held:
        return
    raise RunError(
        "The loss is no longer a number",
        f"step {step}: loss {loss}, gradient norm {grad_norm}, on {names}",
        "The last saved state is intact. Lower optimizer.learning_rate, then start again.",
    )

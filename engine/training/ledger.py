"""Where the run stands and what its steps gave: the place, the clock, and losses read late.

A step's loss is still on its way from the GPU when the next step is launched; reading it at once would make every
step wait. So a step is told when the next one has been launched (on a CPU at once), and before anything is saved.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from torch import Tensor

from engine.batches import Turn
from engine.errors import RunError
from engine.events import EventLog, StepDone
from engine.training.checkpoint import Place
from engine.training.stopwatch import Stopwatch


@dataclass(frozen=True)
class Told:
    """A step done.

    Attributes:
        names: the pictures it saw, for messages.
        numbers: loss and gradient norm (2,) on the host; valid once ``watch`` has been waited for.
        late: whether they may still be on their way.
    """

    turn: Turn
    names: str
    numbers: Tensor
    watch: Stopwatch
    lr: float
    late: bool


class Ledger:
    """The run's place, kept step by step.

    Attributes:
        place: what a state saved now would say.
    """

    def __init__(self, events: EventLog) -> None:
        self.events = events
        self.place = Place()
        self._untold: Told | None = None
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
        """Book a step that is done; tell the one before, or this one if its numbers are here already."""
        before, self._untold = self._untold, told
        turn = told.turn
        self.place = replace(self.place, step=turn.step, epoch=turn.epoch, index=turn.index + 1)
        if before is not None:
            self._tell(before)
        if not told.late:
            self.flush()

    def flush(self) -> None:
        """Tell the step that is still untold, waiting for its numbers.

        Raises:
            RunError: its loss or gradient norm is not a number.
        """
        told, self._untold = self._untold, None
        if told is not None:
            self._tell(told)

    def _tell(self, told: Told) -> None:
        told.watch.wait()
        loss, grad_norm = told.numbers.tolist()
        turn = told.turn
        refuse_nonfinite(turn.step, loss, grad_norm, told.names)
        before = 0.0 if turn.index == 0 else self.place.loss_sum
        self.place = replace(self.place, loss_sum=before + loss)
        spent = told.watch.seconds()
        self.events.append(
            StepDone(
                step=turn.step,
                epoch=turn.epoch,
                loss=loss,
                lr=told.lr,
                grad_norm=grad_norm,
                step_s=sum(spent.values()),
                data_s=spent.get("data", 0.0),
                model_s=spent.get("model", 0.0),
                optimizer_s=spent.get("optimizer", 0.0),
            )
        )


def refuse_nonfinite(step: int, loss: float, grad_norm: float, names: str) -> None:
    """Stop a run whose numbers have broken down.

    Raises:
        RunError: the loss or the gradient norm is infinite or not a number.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    raise RunError(
        "The loss is no longer a number",
        f"step {step}: loss {loss}, gradient norm {grad_norm}, on {names}",
        "The last saved state is intact. Lower optimizer.learning_rate, then start again.",
    )

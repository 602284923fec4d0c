"""Where the run stands and what its steps gave: the place, the clock, and losses read late.

A step's loss is still on its way from the GPU when the next step is launched; reading it at once would make every
step wait. So a step is told when the next one is done (on a CPU at once), and before anything is saved.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.batches import Turn
from engine.errors import RunError
from engine.events import EventLog, StepDone
from engine.training.checkpoint import Place


@dataclass(frozen=True)
class Told:
    """A step done, its loss and gradient norm perhaps still on the device; times in seconds."""

    turn: Turn
    names: str
    loss: Tensor
    grad_norm: Tensor
    lr: float
    step_s: float
    data_s: float
    model_s: float
    optimizer_s: float


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
        self.flush()
        turn = told.turn
        self.place = replace(self.place, step=turn.step, epoch=turn.epoch, index=turn.index + 1)
        self._untold = told
        if told.loss.device.type == "cpu":
            self.flush()

    def flush(self) -> None:
        """Tell the step that is still untold, waiting for its numbers.

        Raises:
            RunError: its loss or gradient norm is not a number.
        """
        told, self._untold = self._untold, None
        if told is None:
            return
        refuse_nonfinite(told.turn.step, told.loss, told.grad_norm, told.names)
        loss, turn = float(told.loss), told.turn
        before = 0.0 if turn.index == 0 else self.place.loss_sum
        self.place = replace(self.place, loss_sum=before + loss)
        self.events.append(
            StepDone(
                step=turn.step,
                epoch=turn.epoch,
                loss=loss,
                lr=told.lr,
                grad_norm=float(told.grad_norm),
                step_s=told.step_s,
                data_s=told.data_s,
                model_s=told.model_s,
                optimizer_s=told.optimizer_s,
            )
        )


def refuse_nonfinite(step: int, loss: Tensor, grad_norm: Tensor, names: str) -> None:
    """Stop a run whose numbers have broken down.

    Raises:
        RunError: the loss or the gradient norm is infinite or not a number.
    """
    if bool(torch.isfinite(loss)) and bool(torch.isfinite(grad_norm)):
        return
    raise RunError(
        "The loss is no longer a number",
        f"step {step}: loss {float(loss)}, gradient norm {float(grad_norm)}, on {names}",
        "The last saved state is intact. Lower optimizer.learning_rate, then start again.",
    )

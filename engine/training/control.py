"""What the user has asked for, as the loop sees it: commands folded into a few flags.

The loop calls :meth:`Control.poll` between steps and acts on the flags; long stages in between ask
:meth:`Control.stopping`. Commands are folded in the order they came, so that a resume takes back a pause and a
cancelled stop leaves nothing behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.commands import (
    CancelStop,
    Command,
    CommandQueue,
    Keep,
    MeasurePictures,
    Pause,
    Remove,
    Resume,
    SampleNow,
    SaveNow,
    StopAfterEpoch,
    StopAtEpoch,
    StopNow,
)
from engine.events import EpochDone, EventLog, Kept, Log, RunDone, RunStarted, StopPlanned, replay

MOST_EPOCHS = 10**6
"""A number of an epoch beyond it is none."""

_FLAGS = ("pause", "stop_now", "stop_epoch", "save_now", "sample_now", "measure_now", "remove")


class Control:
    """The commands in force."""

    def __init__(self, commands: CommandQueue, events: EventLog) -> None:
        self.commands = commands
        self.events = events
        self.epoch = 0
        """The epoch in progress; the loop sets it, 0 before the first."""
        self.pause: Pause | None = None
        self.stop_now = False
        self.stop_epoch = 0
        """Epoch at whose end to stop; 0 is none."""
        self._later = 0
        self.save_now = False
        self.sample_now: SampleNow | None = None
        self.measure_now = False
        self.remove: tuple[str, ...] = ()
        """What the user marked of the files that could go."""
        self.kept: tuple[int, ...] = ()
        """Epochs that the user starred."""

    def poll(self) -> None:
        """Fold every waiting command into the flags; never waits."""
        for command in self.commands.take_all():
            self.fold(command)

    def wait(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` for a command and fold it."""
        command = self.commands.wait(timeout_s)
        if command is not None:
            self.fold(command)

    def flags(self) -> dict[str, Any]:
        """Everything in force, as plain values for other processes to :meth:`adopt`."""
        return {name: getattr(self, name) for name in _FLAGS}

    def adopt(self, flags: dict[str, Any]) -> None:
        """Take over another process's flags: all processes of a run obey the main one's user."""
        for name in _FLAGS:
            setattr(self, name, flags[name])

    def stopping(self) -> bool:
        """Whether the stage in progress should end early; called often, from this thread only."""
        self.poll()
        return self.stop_now

    def stop_due(self, epoch: int) -> bool:
        """Whether the run ends at the end of ``epoch``."""
        return 0 < self.stop_epoch <= epoch

    def fold(self, command: Command) -> None:
        """Take one command into force."""
        match command:
            case Pause():
                self.pause = command
            case Resume():
                self.pause = None
            case StopNow():
                self.stop_now = True
                self.pause = None
            case StopAfterEpoch():
                self._plan(max(self.epoch, 1))
            case StopAtEpoch(epoch=epoch):
                self._plan_at(epoch)
            case CancelStop():
                self._plan(0)
            case SaveNow():
                self.save_now = True
            case SampleNow(strengths=strengths):
                before = self.sample_now.strengths if self.sample_now else ()
                self.sample_now = SampleNow(tuple(dict.fromkeys((*before, *strengths))))
            case MeasurePictures():
                self.measure_now = True
            case Remove(paths=paths):
                self.remove += paths
            case Keep(epochs=epochs):
                self.kept = tuple(sorted({epoch for epoch in epochs if 0 < epoch < MOST_EPOCHS}))
                self.events.append(Kept(self.kept))

    def take_up_plan(self, path: Path) -> None:
        """Plan the stop that was planned when the run broke off, or was stopped before it, and know what was starred.

        ``path`` has the run's events. The loop tells the plan again once the run's outline is told.

        Raises:
            OSError: the events cannot be read.
        """
        self.stop_epoch, self.kept = planned_and_kept(path)

    def plan_stop(self, epoch: int) -> None:
        """Plan a stop at the end of ``epoch``, unless an earlier one is planned."""
        if not 0 < self.stop_epoch <= epoch:
            later = self.stop_epoch
            self._plan(epoch)
            self._later = later

    def plan_again(self) -> None:
        """The run stops: one that the user planned for later, and that the run's own came before, stands again."""
        if self._later:
            self._plan(self._later)

    def _plan_at(self, epoch: int) -> None:
        if epoch < self.epoch:
            self.events.append(Log("warning", f"Epoch {epoch} is over; stopping after epoch {self.epoch} instead"))
        self._plan(max(epoch, self.epoch, 1))

    def _plan(self, epoch: int) -> None:
        self.stop_epoch, self._later = epoch, 0
        self.events.append(StopPlanned(epoch))


def planned_and_kept(path: Path) -> tuple[int, tuple[int, ...]]:
    """What the events in ``path`` leave in force, in one reading: the log of a long run is large.

    Returns:
        The epoch of the planned stop, 0 where it was carried out or none is; the epochs that were starred last.

    Raises:
        OSError: the events cannot be read.
    """
    plan, over = 0, [(0, 0)]
    kept: tuple[int, ...] = ()
    if not path.exists():
        return plan, kept
    for entry in replay(path, RunStarted, EpochDone, StopPlanned, RunDone, Kept):
        match entry.event:
            case RunStarted(resumed_step=step):
                over = [(done, at) for done, at in over if at <= step]
            case EpochDone(epoch=done, step=at):
                over.append((done, at))
            case StopPlanned(epoch=planned):
                plan = planned
            case RunDone() if over[-1][0] >= plan:
                plan = 0
            case Kept(epochs=epochs):
                kept = epochs
    return plan, kept

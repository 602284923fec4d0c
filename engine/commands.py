"""What a user can ask of a run. Commands are plain values in a queue that the loop empties between steps."""

from __future__ import annotations

import queue
from dataclasses import dataclass


@dataclass(frozen=True)
class Pause:
    """Hold after the step in progress; with ``release`` the GPU's memory is given back meanwhile."""

    release: bool = False


@dataclass(frozen=True)
class Resume:
    """Go on after a pause."""


@dataclass(frozen=True)
class StopNow:
    """Save and stop after the step in progress."""


@dataclass(frozen=True)
class StopAfterEpoch:
    """Save and stop at the end of the epoch in progress."""


@dataclass(frozen=True)
class StopAtEpoch:
    """Save and stop when ``epoch`` (counted from 1) is complete."""

    epoch: int


@dataclass(frozen=True)
class CancelStop:
    """Forget a planned stop."""


@dataclass(frozen=True)
class SaveNow:
    """Write the LoRA and the training state after the step in progress."""


@dataclass(frozen=True)
class SampleNow:
    """Draw the sample prompts after the step in progress, at ``strengths`` instead of the configured ones if any."""

    strengths: tuple[float, ...] = ()


@dataclass(frozen=True)
class MeasurePictures:
    """Measure the loss of every training picture under the same noise, after the step in progress."""


@dataclass(frozen=True)
class Remove:
    """Remove these of the files that :class:`~engine.events.DiskTight` named, to make room on the disk."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class Keep:
    """Keep the LoRA files of ``epochs`` whatever ``saving.keep_loras`` says; takes the place of earlier ones."""

    epochs: tuple[int, ...]


Command = (
    Pause
    | Resume
    | StopNow
    | StopAfterEpoch
    | StopAtEpoch
    | CancelStop
    | SaveNow
    | SampleNow
    | MeasurePictures
    | Remove
    | Keep
)


class CommandQueue:
    """Commands on their way to the loop; safe to fill from any thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def submit(self, command: Command) -> None:
        """Append a command; never blocks."""
        self._queue.put(command)

    def take_all(self) -> list[Command]:
        """Return every waiting command, oldest first, without waiting."""
        taken: list[Command] = []
        while True:
            try:
                taken.append(self._queue.get_nowait())
            except queue.Empty:
                return taken

    def wait(self, timeout_s: float) -> Command | None:
        """Wait up to ``timeout_s`` for one command; None if none came."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

"""What a run tells: small plain values with a sequence number, in a ring and as JSON lines.

The engine appends and never waits; readers poll :meth:`EventLog.since`. Events hold only numbers, strings and tuples
of them, so a JSON line replays to the same event, and a view folded from a file equals the one folded live.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from engine.events_faults import HostMemoryLow as HostMemoryLow
from engine.events_faults import LossSpiked as LossSpiked
from engine.events_faults import StepBroken as StepBroken
from engine.events_memory import Foreseen as Foreseen
from engine.events_memory import MemoryHeld as MemoryHeld
from engine.events_memory import MemorySampled as MemorySampled
from engine.events_memory import Probed as Probed
from engine.events_memory import Slowed as Slowed

RING_SIZE = 20_000


@dataclass(frozen=True)
class RunStarted:
    """The run's outline, once its folder exists."""

    name: str
    folder: str
    family: str
    variant: str
    epochs: int
    steps: int
    images: int
    resumed_step: int = 0


@dataclass(frozen=True)
class StateChanged:
    """The run entered a state; ``reason`` says why in a few words."""

    state: str
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """Advance of a stage before or between steps ("cache latents", "load transformer", "sample"...)."""

    stage: str
    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True)
class StepDone:
    """One optimizer step. ``loss`` belongs to this step; times in seconds; step and epoch count from 1.

    ``model_s`` is forward and backward together. ``stall_s`` is the part of them in which the device waited for
    weights or activations on their way from the host, ``moved_mb`` what was copied between host and device in
    1e6 bytes, ``tokens`` what the transformer saw, text and image. Files of earlier versions lack these.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    step_s: float
    data_s: float
    model_s: float
    optimizer_s: float
    forward_s: float = 0.0
    backward_s: float = 0.0
    stall_s: float = 0.0
    tokens: int = 0
    moved_mb: float = 0.0


@dataclass(frozen=True)
class EpochDone:
    """An epoch is complete; ``loss`` is the mean over its steps."""

    epoch: int
    step: int
    loss: float


@dataclass(frozen=True)
class CheckpointSaved:
    """A LoRA file stands on disk; ``kind`` is "epoch", "step", "manual", "stop" or "final"."""

    path: str
    step: int
    epoch: int
    kind: str
    size_bytes: int


@dataclass(frozen=True)
class SampleSaved:
    """A sample picture stands on disk."""

    path: str
    step: int
    epoch: int
    index: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class SteppedDown:
    """Memory ran out, and a setting was changed so that the run goes on; no step is lost or made twice.

    ``stage`` is "loading", "probing", "training" or "sampling"; ``step`` the optimizer step that is done
    again, or the last one done where it was none. ``setting`` is what was changed, from ``before`` to ``after``
    ("empty_cache" with both empty: memory that torch kept was given back). ``reason`` is what torch said.
    """

    stage: str
    step: int
    setting: str
    before: str
    after: str
    reason: str


@dataclass(frozen=True)
class StopPlanned:
    """A stop is planned at the end of ``epoch``; 0 means that none is planned any more."""

    epoch: int


@dataclass(frozen=True)
class CaptionsTaken:
    """Captions edited while the run is live count from ``epoch`` on; ``names`` are paths of pictures, as they are.

    Many pictures are told in several events, so that no line of the file grows beyond what a reader looks back.
    """

    epoch: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Log:
    """A line for the log; ``level`` is "info", "warning" or "error"."""

    level: str
    text: str


@dataclass(frozen=True)
class RunFailed:
    """The run ended with an error; ``traceback`` is for the log file, title, detail and hint for the user."""

    title: str
    detail: str
    hint: str
    traceback: str


@dataclass(frozen=True)
class RunDone:
    """The run ended; ``reason`` is "finished" or "stopped"; ``lora`` the last file written."""

    reason: str
    step: int
    epoch: int
    lora: str
    elapsed_s: float


Event = (
    RunStarted
    | StateChanged
    | Progress
    | StepDone
    | EpochDone
    | CheckpointSaved
    | SampleSaved
    | MemorySampled
    | MemoryHeld
    | Probed
    | Foreseen
    | Slowed
    | SteppedDown
    | StepBroken
    | LossSpiked
    | HostMemoryLow
    | StopPlanned
    | CaptionsTaken
    | Log
    | RunFailed
    | RunDone
)

EVENT_TYPES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        RunStarted, StateChanged, Progress, StepDone, EpochDone, CheckpointSaved, SampleSaved, MemorySampled,
        MemoryHeld, SteppedDown, Probed, Foreseen, Slowed, StepBroken, LossSpiked, HostMemoryLow, StopPlanned,
        CaptionsTaken, Log, RunFailed, RunDone,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """An event with its sequence number (from 1, gapless) and its wall-clock time (Unix seconds)."""

    seq: int
    time: float
    event: Event

    def to_json(self) -> str:
        """One JSON line without the line feed: seq, time, type and the event's own fields."""
        record = {"seq": self.seq, "time": round(self.time, 3), "type": type(self.event).__name__}
        return json.dumps(record | asdict(self.event), ensure_ascii=True, allow_nan=True)


def entry_from_json(line: str) -> Entry:
    """Read back :meth:`Entry.to_json`; unknown fields are ignored so that newer files replay.

    Raises:
        ValueError: the line is not JSON, or names no event known here.
    """
    record = json.loads(line)
    if not isinstance(record, dict) or record.get("type") not in EVENT_TYPES:
        raise ValueError("not an event line")
    kind = EVENT_TYPES[record["type"]]
    values = {
        # JSON knows no tuples; an event holds no lists.
        field.name: tuple(value) if isinstance(value := record[field.name], list) else value
        for field in fields(kind)
        if field.name in record
    }
    try:
        return Entry(int(record["seq"]), float(record["time"]), kind(**values))
    except (KeyError, TypeError) as err:
        raise ValueError(f"an incomplete {record['type']} event") from err


class EventLog:
    """The ring that readers poll and the JSON-lines file that keeps everything.

    Writers take turns; the ring has a lock of its own, held for microseconds, so that a disk that hangs in the middle
    of a line stops no reader. A write error of the file (a full disk) is kept in :attr:`write_error` and does not
    stop the ring: the loop looks at it between steps.

    Args:
        path: the file to go on in, if any yet.
        ring_size: most events kept in memory.
        clock: tells the wall-clock time of an event, in Unix seconds.
    """

    def __init__(
        self, path: Path | None = None, ring_size: int = RING_SIZE, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._ring: deque[Entry] = deque(maxlen=ring_size)
        self._lock = threading.Lock()
        self._ring_lock = threading.Lock()
        self._file: TextIO | None = None
        self._seq = 0
        self.write_error: OSError | None = None
        if path is not None:
            self.open_file(path)

    @property
    def seq(self) -> int:
        """Sequence number of the newest event; 0 before the first."""
        return self._seq

    def open_file(self, path: Path) -> None:
        """Go on in ``path``: numbering continues after its last whole line; a torn last line is ended.

        Events appended before are written first, so nothing said while the folder was being made is lost.
        """
        tail = last_entry(path)
        with self._lock:
            early = list(self._ring)
            self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - closed in close()
            if tail.torn:
                self._file.write("\n")
            offset = tail.seq
            moved = deque((Entry(e.seq + offset, e.time, e.event) for e in early), maxlen=self._ring.maxlen)
            with self._ring_lock:
                self._ring = moved
                self._seq += offset
            for entry in self._ring:
                self._write(entry)

    def append(self, event: Event) -> int:
        """Append an event; returns its sequence number. Never blocks on a reader."""
        with self._lock:
            entry = Entry(self._seq + 1, self._clock(), event)
            with self._ring_lock:
                self._seq += 1
                self._ring.append(entry)
            self._write(entry)
            return entry.seq

    def since(self, seq: int) -> list[Entry]:
        """Entries of the ring newer than ``seq``, oldest first."""
        with self._ring_lock:
            missing = self._seq - seq
            if missing <= 0:
                return []
            if missing >= len(self._ring):
                return list(self._ring)
            newest = [entry for _, entry in zip(range(missing), reversed(self._ring), strict=False)]
        return newest[::-1]

    def close(self) -> None:
        """Close the file; the ring stays readable."""
        with self._lock:
            file, self._file = self._file, None
            try:
                if file is not None:
                    file.close()
            except OSError as err:
                self.write_error = err

    def _write(self, entry: Entry) -> None:
        if self._file is None:
            return
        try:
            self._file.write(entry.to_json() + "\n")
        except OSError as err:
            self.write_error = err


@dataclass(frozen=True)
class LogTail:
    """The end of an event file: its last sequence number, and whether its last line is torn."""

    seq: int
    torn: bool


def last_entry(path: Path) -> LogTail:
    """Read the end of an event file; (0, False) where there is none."""
    if not path.exists():
        return LogTail(0, False)
    with open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 65_536))
        lines = file.read().split(b"\n")
    torn = lines[-1] != b""
    for line in reversed(lines[:-1]):
        try:
            return LogTail(entry_from_json(line.decode()).seq, torn)
        except ValueError:
            continue
    return LogTail(0, torn)


def replay(path: Path) -> Iterator[Entry]:
    """Yield every whole event line of a file; torn or foreign lines are passed over.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield entry_from_json(line)
            except ValueError:
                continue

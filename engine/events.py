"""What a run tells: small plain values with a sequence number, in a ring and as JSON lines.

The engine appends and never waits; readers poll :meth:`EventLog.since`. Events hold only numbers, strings and tuples
of them, so a JSON line replays to the same event, and a view folded from a file equals the one folded live.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.event_values import checked, hints_of
from engine.events_faults import HostMemoryLow as HostMemoryLow
from engine.events_faults import LossSpiked as LossSpiked
from engine.events_faults import StepBroken as StepBroken
from engine.events_measured import BANDS as BANDS
from engine.events_measured import Advised as Advised
from engine.events_measured import Measured as Measured
from engine.events_measured import PictureLosses as PictureLosses
from engine.events_memory import DiskTight as DiskTight
from engine.events_memory import Foreseen as Foreseen
from engine.events_memory import MemoryHeld as MemoryHeld
from engine.events_memory import MemorySampled as MemorySampled
from engine.events_memory import Probed as Probed
from engine.events_memory import Slowed as Slowed
from engine.events_memory import SteppedDown as SteppedDown
from engine.events_steps import CheckpointRemoved as CheckpointRemoved
from engine.events_steps import CheckpointSaved as CheckpointSaved
from engine.events_steps import EpochDone as EpochDone
from engine.events_steps import Kept as Kept
from engine.events_steps import NearCopy as NearCopy
from engine.events_steps import SampleSaved as SampleSaved
from engine.events_steps import Scored as Scored
from engine.events_steps import StepDone as StepDone
from engine.files import disk_error, open_to_read
from engine.line_file import LineFile, flush_descriptor
from engine.sealed import sealed, unsealed
from engine.text import safe_text

RING_SIZE = 4_096
"""Events kept in memory: what a reader that polls can miss. Older ones are read from the file."""

LONGEST_LINE = 2**22
"""Bytes of a line that is read as one; a failure with its traceback has a hundredth of it."""


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
class Changed:
    """Something is not as it was when the state was saved that a run goes on from.

    ``meaning`` is "refused" (it cannot go on with it), "course" (what it learns changes), "later" (it counts from a
    later epoch), "rounding", "length", "speed" or "saved" (what is written and shown); ``name`` says what, a setting
    by its dotted name.
    """

    meaning: str
    name: str
    before: str
    after: str

    def __str__(self) -> str:
        """In one line."""
        sides = [side for side in (self.before, self.after) if side]
        return f"{self.name}: {' -> '.join(sides)}"


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
    | Changed
    | StateChanged
    | Progress
    | StepDone
    | EpochDone
    | CheckpointSaved
    | CheckpointRemoved
    | Kept
    | SampleSaved
    | Scored
    | NearCopy
    | MemorySampled
    | MemoryHeld
    | Probed
    | Foreseen
    | Slowed
    | SteppedDown
    | DiskTight
    | StepBroken
    | LossSpiked
    | HostMemoryLow
    | StopPlanned
    | CaptionsTaken
    | Measured
    | Advised
    | PictureLosses
    | Log
    | RunFailed
    | RunDone
)

EVENT_TYPES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        RunStarted, Changed, StateChanged, Progress, StepDone, EpochDone, CheckpointSaved, CheckpointRemoved, Kept,
        SampleSaved, MemorySampled, MemoryHeld, SteppedDown, Probed, Foreseen, Slowed, DiskTight, StepBroken,
        LossSpiked, HostMemoryLow, StopPlanned, CaptionsTaken, Measured, Advised, PictureLosses, Scored, NearCopy,
        Log, RunFailed, RunDone,
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
    """Read back :meth:`Entry.to_json`, sealed or not; unknown fields are ignored so that newer files replay.

    Raises:
        ValueError: the line is not JSON, not what was sealed, names no event known here, or holds what no such
            event does.
    """
    record = unsealed(line.encode("utf-8", "surrogatepass"))
    name = record.get("type") if isinstance(record, dict) else None
    if not isinstance(name, str) or name not in EVENT_TYPES:
        raise ValueError("not an event line")
    kind = EVENT_TYPES[name]
    values = {key: checked(hint, record[key]) for key, hint in hints_of(kind).items() if key in record}
    try:
        return Entry(checked(int, record["seq"]), checked(float, record["time"]), kind(**values))
    except (KeyError, TypeError) as err:
        raise ValueError(f"an incomplete {name} event") from err


class EventLog:
    """The ring that readers poll and the JSON-lines file that keeps everything.

    Writers take turns; the ring has a lock of its own, held for microseconds, so that a disk that hangs in the middle
    of a line stops no reader. A write error of the file (a full disk) is kept in :attr:`write_error` and does not
    stop the ring: the loop looks at it between steps. What could not be written follows when there is room again.

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
        self._file: LineFile | None = None
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
            self._file = LineFile(path)
            if tail.torn:
                self._file.append("")
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

    def flush(self) -> None:
        """Wait until all that was told is on the disk, holding up no writer; failing is :attr:`write_error`."""
        try:
            with self._lock:
                copy = self._file.duplicate() if self._file is not None else None
            if copy is not None:
                flush_descriptor(copy)
        except OSError as err:
            self.write_error = err

    def close(self) -> None:
        """Close the file; the ring stays readable."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.close()
                self.write_error = file.error

    def settle(self) -> None:
        """Write what could not be written when it was told.

        Raises:
            DiskError: it still cannot; everything is kept.
        """
        with self._lock:
            if (file := self._file) is None:
                return
            file.write()
            self.write_error = file.error
            if file.error is not None:
                raise disk_error(file.error, file.path) from file.error
            lost, file.lost = file.lost, 0
        if lost:
            text = f"{lost} events are not in {safe_text(file.path.name)}: the disk was full for too long"
            self.append(Log("warning", text))

    def _write(self, entry: Entry) -> None:
        if self._file is not None:
            self._file.append(sealed(entry.to_json()))
            self.write_error = self._file.error


@dataclass(frozen=True)
class LogTail:
    """The end of an event file: its last sequence number, and whether its last line is torn."""

    seq: int
    torn: bool


def last_entry(path: Path) -> LogTail:
    """Read the end of an event file; (0, False) where there is none."""
    if not path.exists():
        return LogTail(0, False)
    with open_to_read(path) as file:
        size, back = file.seek(0, 2), 65_536
        while True:
            file.seek(max(0, size - back))
            lines = file.read().split(b"\n")
            for line in reversed(lines):  # the last one may lack no more than its end
                with contextlib.suppress(ValueError):
                    return LogTail(entry_from_json(line.decode()).seq, lines[-1] != b"")
            if back >= size:
                return LogTail(0, lines[-1] != b"")
            back *= 8


def replay(path: Path, *only: type[Event]) -> Iterator[Entry]:
    """Yield every whole event line of a file, or those of the kinds ``only``; torn or foreign lines are passed over.

    Raises:
        OSError: the file cannot be read.
    """
    names = [f'"type": "{kind.__name__}"'.encode() for kind in only] or [b""]
    with open_to_read(path) as file:
        while line := file.readline(LONGEST_LINE):  # pieces of a longer one are no events
            if any(name in line for name in names):
                with contextlib.suppress(ValueError):
                    yield entry_from_json(line.decode("utf-8", "replace"))

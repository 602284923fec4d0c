"""What is known of a run, as plain data: the fold of its events.

:func:`fold` takes one event at a time and changes a :class:`RunView`; it looks at nothing else (no clock, no file),
so a view folded live equals the one folded from the run's JSON lines. The screen, the headless progress bar and the
report all read this one state. Nothing here imports a terminal library.

Units: seconds, GiB, steps and epochs counted from 1.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import fmean, median

from engine.events import (
    Advised,
    CaptionsTaken,
    Changed,
    CheckpointRemoved,
    CheckpointSaved,
    DiskTight,
    Entry,
    EpochDone,
    Foreseen,
    HostMemoryLow,
    Log,
    LossSpiked,
    Measured,
    MemoryHeld,
    MemorySampled,
    NearCopy,
    PictureLosses,
    Probed,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    SampleSaved,
    Scored,
    Slowed,
    StateChanged,
    StepBroken,
    StepDone,
    SteppedDown,
    StopPlanned,
)
from engine.text import safe_text
from tui.courses import SMOOTHINGS as SMOOTHINGS
from tui.courses import Courses
from tui.courses import Smoothed as Smoothed
from tui.disk import FEW_SAVES, disk_words
from tui.units import duration
from tui.view_back import fold_broken, fold_file, go_back
from tui.view_pictures import PictureFigures, fold_pictures
from tui.view_samples import fold_sample
from tui.view_words import NEARLY_FULL_GB, comparison

LOG_LINES = 2000
MEMORY_POINTS = 3600
RECENT_STEPS = 40
"""Steps whose median is the step time: robust against the slow first step after a load or a pause."""

LONGEST_SILENCE_S = 60.0
"""A longer gap between two events is a process that was not there (a crash, a suspended machine): not counted."""

RESUMABLE_STATES = frozenset({"stopped", "failed", "interrupted"})
"""How a run that can be gone on with has ended; interrupted is one that did not say so."""

LIVE_STATES = frozenset(
    {"new", "preparing", "caching", "loading", "training", "paused", "released", "sampling", "measuring", "saving"}
)
BUSY_STATES = frozenset({"training", "sampling", "measuring", "saving", "finished", "stopped", "failed"})
"""States that come and go with every epoch, or that another line tells of: not worth a log line of their own."""

HELD_STATES = frozenset({"paused", "released"})


@dataclass(frozen=True)
class Stage:
    """A stage's advance, as last told."""

    name: str
    done: int
    total: int
    detail: str

    @property
    def complete(self) -> bool:
        """Whether all of it is done."""
        return self.total > 0 and self.done >= self.total


@dataclass(frozen=True)
class LogLine:
    """One line of the log pane; ``text`` has passed the gate for foreign text."""

    time: float
    level: str
    text: str


@dataclass(frozen=True)
class MemoryPoint:
    """Memory at one time; ``time`` in Unix seconds, the rest in GiB."""

    time: float
    vram: float
    host: float
    process: float


@dataclass
class RunView:
    """All a reader needs to show a run. Change it through :func:`fold` only."""

    seq: int = 0
    name: str = ""
    folder: str = ""
    family: str = ""
    variant: str = ""
    epochs: int = 0
    steps: int = 0
    images: int = 0
    resumed_step: int = 0

    state: str = "new"
    state_reason: str = ""
    told_state: str = ""
    """The state that the log told of last."""
    stages: dict[str, Stage] = field(default_factory=dict)
    stage: str = ""
    """The stage told of last; "" once steps are being made."""

    step: int = 0
    epoch: int = 0
    last_step: StepDone | None = None
    courses: Courses = field(default_factory=Courses)
    epoch_marks: list[EpochDone] = field(default_factory=list)
    checkpoints: list[CheckpointSaved] = field(default_factory=list)
    samples: list[SampleSaved] = field(default_factory=list)
    sample_places: set[tuple[int, int, float]] = field(default_factory=set)
    """Steps, prompts and strengths of which there is a picture."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """What scoring models say of a sample, by its path and the score's name."""
    near_copies: dict[str, NearCopy] = field(default_factory=dict)
    """Samples that are nearly copies of training pictures, by their paths."""
    measured: list[Measured] = field(default_factory=list)
    """What was measured of the LoRA, by steps; the sizes told early have no losses."""
    advised: Advised | None = None
    """The advisor's newest word."""

    memory: MemorySampled | None = None
    memory_held: MemoryHeld | None = None
    stepped_down: list[SteppedDown] = field(default_factory=list)
    """What was changed when memory ran out, oldest first; a setting's last entry is what counts."""
    """How the run's own memory splits up, as last told."""
    probed: Probed | None = None
    foreseen: Foreseen | None = None
    """What had been forecast for that which the probe measured."""
    skipped: list[int] = field(default_factory=list)
    """Steps left out because they were not finite."""
    slowed: Slowed | None = None
    """Why steps take longer than they did; None while they do not."""
    disk: DiskTight | None = None
    """How few saves the disk has room for; None while there is room for many."""
    memory_course: deque[MemoryPoint] = field(default_factory=lambda: deque(maxlen=MEMORY_POINTS))
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES))

    log_total: int = 0
    """Lines ever logged; more than ``log`` keeps."""
    stop_epoch: int = 0
    captions_taken: dict[str, int] = field(default_factory=dict)
    """Epoch from which a picture's edited caption counts, by the picture's path; a resumed run tells it again."""
    pictures: PictureFigures = field(default_factory=PictureFigures)
    failure: RunFailed | None = None
    done: RunDone | None = None

    started_at: float = 0.0
    last_time: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent in each state."""
    overhead_s: float = 0.0
    """Time in sampling and saving since this session's first step."""
    session_epochs: int = 0
    recent: deque[StepDone] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))

    @property
    def live(self) -> bool:
        """Whether the run has neither ended nor failed."""
        return self.state in LIVE_STATES and self.done is None and self.failure is None

    @property
    def held(self) -> bool:
        """Whether it is paused, with or without its memory."""
        return self.state in HELD_STATES

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch, 0 while unknown; the first epoch mark is exact, before it the plan is used."""
        if self.epoch_marks and self.epoch_marks[0].epoch == 1:
            return self.epoch_marks[0].step
        return math.ceil(self.steps / self.epochs) if self.epochs else 0

    @property
    def goal_step(self) -> int:
        """The step at which the run ends: its last, or that of a planned stop."""
        if self.stop_epoch and self.steps_per_epoch:
            return min(self.steps, self.stop_epoch * self.steps_per_epoch)
        return self.steps

    @property
    def step_s(self) -> float | None:
        """Typical time of a step: the median of the recent ones; pauses are not in it."""
        return median(step.step_s for step in self.recent) if self.recent else None

    @property
    def step_parts(self) -> tuple[float, float, float] | None:
        """Medians of the recent steps' data, model and optimizer times."""
        if not self.recent:
            return None
        return (
            median(step.data_s for step in self.recent),
            median(step.model_s for step in self.recent),
            median(step.optimizer_s for step in self.recent),
        )

    @property
    def step_halves(self) -> tuple[float, float, float] | None:
        """Medians of the recent steps' forward and backward times and of their waits for copies; None if untold."""
        if not self.recent or not self.recent[-1].forward_s:
            return None
        return (
            median(step.forward_s for step in self.recent),
            median(step.backward_s for step in self.recent),
            median(step.stall_s for step in self.recent),
        )

    @property
    def eta_s(self) -> float | None:
        """Time to :attr:`goal_step` when the run is not held, with an epoch's share of sampling and saving."""
        if not self.live or self.step_s is None or not self.steps:
            return None
        left = max(0, self.goal_step - self.step)
        overhead = 0.0
        if self.session_epochs and self.steps_per_epoch:
            overhead = self.overhead_s / self.session_epochs * (left // self.steps_per_epoch)
        return left * self.step_s + overhead

    @property
    def active_s(self) -> float:
        """Time the run has worked, pauses left out."""
        return sum(spent for state, spent in self.seconds.items() if state in LIVE_STATES - HELD_STATES)

    @property
    def loss_change(self) -> tuple[float, float] | None:
        """Mean loss of the first and of the last epoch; of the first and last tenth of the steps before that."""
        if len(self.epoch_marks) >= 2:
            return self.epoch_marks[0].loss, self.epoch_marks[-1].loss
        losses = [loss for loss in self.courses.loss if math.isfinite(loss)]
        if len(losses) < 2:
            return None
        part = max(1, len(losses) // 10)
        return fmean(losses[:part]), fmean(losses[-part:])


def fold(view: RunView, entry: Entry) -> None:
    """Bring ``view`` up to date with one entry. Entries must come in order; unknown kinds only move the clock."""
    at = round(entry.time, 3)  # the precision of a JSON line
    spend(view, at)
    view.seq = entry.seq
    event = entry.event
    if isinstance(event, StepDone):
        _fold_step(view, event)
    elif isinstance(event, MemorySampled):
        view.memory = event
        view.memory_course.append(MemoryPoint(at, event.vram_used_gb, event.host_used_gb, event.process_gb))
    elif isinstance(event, MemoryHeld):
        view.memory_held = event
    elif isinstance(event, Progress):
        view.stages[event.stage] = Stage(event.stage, event.done, event.total, event.detail)
        view.stage = event.stage
    elif isinstance(event, RunStarted):
        _fold_start(view, event, at)
    elif isinstance(event, EpochDone):
        view.epoch_marks.append(event)
        view.session_epochs += 1
        _log(view, at, "info", f"epoch {event.epoch} done at step {event.step}, loss {event.loss:.4f}")
    else:
        _fold_rare(view, event, at)


def spend(view: RunView, at: float) -> None:
    """Count the time since the event before to the state that it was spent in."""
    spent = at - view.last_time if view.last_time else 0.0
    if 0 < spent <= LONGEST_SILENCE_S:
        view.seconds[view.state] = view.seconds.get(view.state, 0.0) + spent
        if view.state in ("sampling", "measuring", "saving") and view.recent:
            view.overhead_s += spent
    view.last_time = at


def _fold_step(view: RunView, event: StepDone) -> None:
    view.step, view.epoch = event.step, event.epoch
    view.last_step = event
    view.recent.append(event)
    view.courses.add(event)
    view.stage = ""


def _fold_start(view: RunView, event: RunStarted, at: float) -> None:
    view.name, view.folder = event.name, event.folder
    view.family, view.variant = event.family, event.variant
    view.epochs, view.steps, view.images = event.epochs, event.steps, event.images
    view.resumed_step = view.step = event.resumed_step
    view.started_at = view.started_at or at
    view.failure = view.done = view.slowed = view.disk = None
    view.stop_epoch = view.session_epochs = 0
    view.overhead_s = 0.0
    view.recent.clear()
    after = event.resumed_step
    go_back(view, after)
    how = f"resumed at step {after}" if after else f"{event.images} pictures, {event.steps} steps"
    _log(view, at, "info", f"run {event.name}: {how}")


def _fold_rare(view: RunView, event: object, at: float) -> None:
    if isinstance(event, StateChanged):
        if event.state in LIVE_STATES:  # a resumed run is live long before its outline is known
            view.failure = view.done = None
        if event.state == "preparing":
            view.stages.clear()
        view.state, view.state_reason = event.state, event.reason
        view.stage = ""
        # Samples at the start are a state within another: coming back to that one is no news.
        news = event.state not in BUSY_STATES and event.state != view.told_state
        if event.reason or news:
            _log(view, at, "info", f"{event.state}: {event.reason}" if event.reason else event.state)
        if news or event.state == "training":
            view.told_state = event.state
    elif isinstance(event, CheckpointSaved | CheckpointRemoved):
        _log(view, at, "info", fold_file(view, event))
    elif isinstance(event, SampleSaved | Scored | NearCopy):
        if line := fold_sample(view, event):
            _log(view, at, *line)
    elif isinstance(event, SteppedDown):
        view.stepped_down.append(event)  # the log has it in words of its own
    elif isinstance(event, StepBroken | LossSpiked | HostMemoryLow):
        if isinstance(event, StepBroken):
            fold_broken(view, event)
        _log(view, at, "warning", event.text)
    elif isinstance(event, StopPlanned):
        view.stop_epoch = event.epoch
        _log(view, at, "info", f"stop planned after epoch {event.epoch}" if event.epoch else "no stop planned")
    elif isinstance(event, CaptionsTaken | PictureLosses):
        if words := fold_pictures(view, event):
            _log(view, at, "info", words)
    elif isinstance(event, Measured | Advised | Log):
        _fold_told(view, event, at)
    elif isinstance(event, Changed):
        _log(view, at, "warning" if event.meaning == "course" else "info", f"changed since the last state: {event}")
    elif isinstance(event, Probed):
        view.probed, view.foreseen = event, None
    elif isinstance(event, Foreseen):
        view.foreseen = event
        if view.probed is not None:
            full = 0 < view.probed.total_gb < view.probed.peak_gb + NEARLY_FULL_GB
            words = "; the card is full" if full else ""
            _log(view, at, "warning" if full else "info", comparison(view.probed, event) + words)
    elif isinstance(event, Slowed):
        view.slowed = event if event.factor > 1 else None
        _log(view, at, "warning" if view.slowed else "info", event.text)
    elif isinstance(event, DiskTight):
        view.disk = event if event.saves <= FEW_SAVES else None
        _log(view, at, "warning" if view.disk else "info", disk_words(event))
    elif isinstance(event, RunFailed):
        view.failure = event
        view.state = "failed"
        _log(view, at, "error", f"{event.title}: {event.detail}" if event.detail else event.title)
    elif isinstance(event, RunDone):
        view.done = event
        view.state = event.reason
        _log(view, at, "info", f"{event.reason} at step {event.step} after {duration(event.elapsed_s)}")


def _fold_told(view: RunView, event: Measured | Advised | Log, at: float) -> None:
    if isinstance(event, Measured):
        view.measured = [*(one for one in view.measured if one.step != event.step), event]
        return
    if isinstance(event, Advised):
        view.advised = event
    _log(view, at, event.level, event.text)


def _log(view: RunView, at: float, level: str, text: str) -> None:
    view.log_total += 1
    view.log.append(LogLine(at, level, safe_text(text, limit=1000)))

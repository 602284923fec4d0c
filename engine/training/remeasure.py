"""Measures LoRA files as their run measured itself: a blend, another trainer's file, an epoch that was not measured.

No training state is read or touched. The pictures are chosen again as the run chose them, from what lies in its
folders now: what changed since is told, for then the figures no longer compare.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.config import RunConfig
from engine.dataset.history import load_history
from engine.errors import RunError
from engine.events import EventLog, Log, Measured, PictureLosses, Progress
from engine.files import RunFolder
from engine.lora.adapter import LoraSet, make_adapters
from engine.lora.formats import load_lora
from engine.lora.metadata import read_metadata
from engine.text import safe_text
from engine.training.changes import COURSE, REFUSED
from engine.training.device import Compute, compute_for
from engine.training.fixed_losses import figures_told, measure_pictures, pictures_of
from engine.training.gauge import Gauge
from engine.training.kit import note
from engine.training.lean import Lean, build_lean
from engine.training.outlook import look_ahead
from engine.training.prepare import Base, Prepared, Stopped, check_base, prepare
from engine.training.products import take_products
from engine.training.validation import Subject


def measure_files(
    config: RunConfig,
    folder: RunFolder,
    files: Sequence[Path],
    events: EventLog,
    should_stop: Callable[[], bool],
) -> list[Measured]:
    """What each of ``files`` measures, in their order; fewer where it was stopped.

    Raises:
        RunError: the run measures nothing.
        EngineError: a file cannot be loaded, or as when a run starts.
    """
    try:
        base, compute, prepared = _ready(config, folder, events, should_stop)
    except Stopped:
        return []
    plan = prepared.measured.plan
    if not (plan.every_epochs or plan.every_steps):
        raise RunError(
            "The run measures nothing",
            f"validation.every_epochs and every_steps are 0 in {safe_text(folder.config)}",
            'There is nothing to compare with: measure while training ([validation] every_epochs = "auto").',
        )
    gauge, found = Gauge(config, prepared.measured), list[Measured]()
    with contextlib.closing(_Model(config, folder, base, compute, prepared, events)) as model:
        for file in files:
            if should_stop():
                break
            events.append(Progress("measure", len(found), len(files), safe_text(file.name, 200)))
            found.append(gauge.measure(model.with_lora(file), *_place(file)))
        events.append(Progress("measure", len(found), len(files)))
    return found


def measure_pictures_of(
    config: RunConfig, folder: RunFolder, file: Path, events: EventLog, should_stop: Callable[[], bool]
) -> list[PictureLosses]:
    """How ``file`` does with each training picture, with its own caption and with others', told in the run's events.

    Raises:
        EngineError: it cannot be loaded, or as when a run starts.
    """
    try:
        base, compute, prepared = _ready(config, folder, events, should_stop)
    except Stopped:
        return []
    order = prepared.order
    asked = pictures_of(order, prepared.latents, order.total_epochs, config.seed)
    with contextlib.closing(_Model(config, folder, base, compute, prepared, events)) as model:
        found = measure_pictures(model.with_lora(file), asked, events, should_stop)
    if len(found) < len(asked):
        return []
    told = figures_told(*_place(file), asked, found)
    with contextlib.closing(EventLog(folder.events)) as log:
        for event in told:
            log.append(event)
    return [event for event in told if isinstance(event, PictureLosses)]


def _ready(
    config: RunConfig, folder: RunFolder, events: EventLog, should_stop: Callable[[], bool]
) -> tuple[Base, Compute, Prepared]:
    """What the run itself began with, its captions as it used them last.

    Raises:
        Stopped: on request.
        EngineError: as when a run starts.
    """
    _tell_changes(config, folder, events)
    base, compute = check_base(config), compute_for(config)
    return base, compute, prepare(config, base, compute, events, should_stop, load_history(folder.captions))


def _tell_changes(config: RunConfig, folder: RunFolder, events: EventLog) -> None:
    """Say what is not as it was when the run was made: its figures were measured on that."""
    with contextlib.suppress(RunError):  # no state that can be read is no reason not to measure
        for change in look_ahead(folder, config).changes:
            if change.meaning in (REFUSED, COURSE):
                text = f"Not as it was, so figures may not compare with the run's own: {change}"
                events.append(Log("warning", safe_text(text, 1000)))


def _place(file: Path) -> tuple[int, int]:
    """The step and the epoch that a file says it was saved at; 0 where it does not."""
    said = read_metadata(file)
    step, epoch = (said.get(key, "")[:9] for key in ("ss_steps", "ss_epoch"))
    return int(step) if step.isdecimal() else 0, int(epoch) if epoch.isdecimal() else 0


class _Model:
    """The run's base with one LoRA file after another on it; loaded again only for one on other layers."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, base: Base, compute: Compute, prepared: Prepared, events: EventLog
    ) -> None:
        self._config = config
        self._folder = folder
        self._base = base
        self._compute = compute
        self._entries = prepared.entries(config)
        self._events = events
        self._lora: LoraSet | None = None
        self._lean: Lean | None = None

    def close(self) -> None:
        """Let the base go."""
        if self._lean is not None:
            self._lean.close()

    def with_lora(self, file: Path) -> Subject:
        """The base with ``file`` on it."""
        state, targets = load_lora(file)
        if self._lean is None or self._lora is None or self._lora.targets != tuple(targets):
            self.close()
            self._lora = make_adapters(targets, self._config.lora, self._config.seed, self._compute.device)
            self._lean = self._load(self._lora)
        self._lora.load_state(state)
        ahead = self._lean.conditioning if self._config.memory.modulation_cache else None
        transformer = self._lean.transformer
        return Subject(self._config, self._base, self._compute, transformer, self._lora, self._entries, ahead)

    def _load(self, lora: LoraSet) -> Lean:
        events = self._events
        events.append(Progress("load transformer", 0, 1))
        lean = build_lean(self._config, self._base, self._compute, lora.adapters, say=lambda text: note(events, text))
        # As the run computed, wherever the file lies.
        for text in (*lean.notes, take_products(lean, self._folder.root / "its.safetensors")):
            if text:
                note(events, text)
        events.append(Progress("load transformer", 1, 1))
        return lean

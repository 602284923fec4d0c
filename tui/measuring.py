"""Follows a run beside whoever shows it: tells what had been forecast for its probe, and keeps what it measured.

A thread of its own polls the run's events, as a screen does; the engine knows nothing of forecasts and never waits.
What is kept serves later plans on this machine (:mod:`profiles.measured`). Processes that only watch a run that
another one trains measure nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.events import Entry, Event, Foreseen, Log, MemoryHeld, Probed, RunStarted, Slowed, StepDone, SteppedDown
from engine.text import safe_text

if TYPE_CHECKING:
    from engine.config import RunConfig
    from profiles.foresee import Foresight
    from profiles.measured import Measured, Measurement
    from tui.bridge import RunLike

POLL_S = 0.25
SKIPPED = 5
"""First steps of a run, in which kernels are chosen and clocks come up."""

MOST_STEPS = 500
"""Newest steps that are looked at when the run is over."""


class Measuring:
    """One run's events on their way to measurements.

    Args:
        foresight: makes the forecasts.
    """

    def __init__(self, foresight: Foresight) -> None:
        self._foresight = foresight
        self._probed: Probed | None = None
        self._steps: deque[StepDone] = deque(maxlen=MOST_STEPS)
        self._held: deque[MemoryHeld] = deque(maxlen=MOST_STEPS)
        self._seen = 0
        self._disturbed = False

    def take(self, entry: Entry) -> list[Event]:
        """Take one entry; what there is to tell of it."""
        event = entry.event
        if isinstance(event, StepDone):
            self._seen += 1
            if self._seen > SKIPPED:
                self._steps.append(event)
        elif isinstance(event, MemoryHeld):
            if self._seen > SKIPPED:  # in the first of all, states that came meanwhile count twice
                self._held.append(event)
        elif isinstance(event, Probed):
            return self._take_probe(event)
        elif isinstance(event, Slowed):
            self._disturbed = self._disturbed or event.factor > 1
        elif isinstance(event, SteppedDown):
            self._step_down(event)
        elif isinstance(event, RunStarted):
            self._steps.clear()
        return []

    def finish(self) -> list[Event]:
        """The run is over: keep what its steps say, unless something disturbed them."""
        if self._disturbed:
            return []
        try:
            found = self._foresight.of_steps(self._steps, self._held, self._probed)
        except (EngineError, OSError):  # said at the probe; the run is over, and nobody waits for this
            return []
        return self._keep(found) if found is not None else []

    def _take_probe(self, event: Probed) -> list[Event]:
        self._probed = event
        try:
            foreseen, measurement = self._foresight.of_probe(event)
        except EngineError as err:
            return [Foreseen(0.0, 0.0, safe_text(f"{err.title}: {err.detail}", 300))]
        except OSError as err:
            return [Foreseen(0.0, 0.0, safe_text(f"a model file cannot be read ({err.strerror})", 300))]
        return [foreseen] if self._disturbed else [foreseen, *self._keep(measurement)]

    def _step_down(self, event: SteppedDown) -> None:
        """Another footing: steps and memory before it are not those after it."""
        from profiles.foresee import stepped_down

        if event.after and event.stage not in ("sampling", "caching"):
            self._foresight.config = stepped_down(self._foresight.config, event.setting, event.after)
            self._disturbed = self._disturbed or event.setting == "micro_batch"
            self._steps.clear()
            self._held.clear()
            self._probed = None

    def _keep(self, measurement: Measurement) -> list[Event]:
        """Keep a measurement; what went wrong with it, to be said."""
        from dataclasses import replace

        foresight = self._foresight
        try:
            foresight.measured.add(foresight.machine, replace(measurement, at=round(time.time(), 3)))
        except EngineError as err:
            return [Log("warning", safe_text(f"The measurement is not kept: {err.title}: {err.detail}", 400))]
        remarks, foresight.measured.remarks = foresight.measured.remarks, []
        return [Log("warning", remark) for remark in remarks]


def measure(run: RunLike, measured: Measured | None = None) -> threading.Thread | None:
    """Follow a run that was just started, in a thread that ends with it; None for one without a configuration.

    A run that once stepped down its ladder and is resumed is not followed: it does not stand where it says.
    """
    config = getattr(run, "config", None)
    if config is None or (run.folder is not None and run.folder.memory.exists()):
        return None
    thread = threading.Thread(target=_follow, args=(run, config, measured), name="measuring", daemon=True)
    thread.start()
    return thread


def _follow(run: RunLike, config: RunConfig, measured: Measured | None) -> None:
    from profiles.foresee import Foresight, machine_of
    from profiles.measured import Measured

    try:
        machine = machine_of(config)
    except EngineError:  # no such GPU: the run itself says so
        return
    measuring = Measuring(Foresight(config, machine, measured or Measured()))
    seq, ended = 0, False
    while not ended:
        ended = run.join(POLL_S)
        entries = run.events.since(seq)
        # A resumed run goes on in the numbers of its file once it holds that: what it told before is told again,
        # and none of it is measured.
        for entry in entries:
            seq = entry.seq
            for event in measuring.take(entry):
                run.events.append(event)
    for event in measuring.finish():
        run.events.append(event)

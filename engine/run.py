"""One training run as the outside sees it: a state, events out, commands in.

``Run`` owns the thread in which the trainer works, the run's folder and its lock. The screen and the command line
drive it and nothing else of the engine. Importing this module does not import torch; the thread does.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands import Command, CommandQueue
from engine.config import RunConfig
from engine.config_file import load_config, save_config
from engine.errors import EngineError, RunError
from engine.events import EventLog, Log, RunDone, RunFailed, StateChanged
from engine.explain import explain
from engine.files import (
    RunFolder,
    create_run_folder,
    default_cache_dir,
    disk_error,
    keep_code_in,
    opened_here,
    others_may_write,
)
from engine.hardware.lost import is_lost
from engine.hardware.monitor import MemorySampler
from engine.hardware.scarcity import to_lower
from engine.locks import lock_folder
from engine.text import safe_text
from engine.training.generations import next_step
from engine.training.trackers import require_trackers, track

if TYPE_CHECKING:
    from engine.trainer import Outcome
    from engine.training.outlook import Outlook as Outlook
    from engine.training.tracking import Tracking

ENDED = ("finished", "stopped", "failed")
"""States after which nothing more happens."""


class Run:
    """A run, new or resumed.

    States and what leads from one to the next::

        new ─start()─> preparing ──> caching ──> loading ──> training ──last step──> finished
                           │            │           │         │ ▲ │ │
                           │            │           │         │ │ │ └─StopNow, planned epoch over──> stopped
                           └── StopNow ─┴──> stopped          │ │ │
                                                              │ │ └─SampleNow, by cadence──> sampling ─┐
                                                              │ │   SaveNow, by cadence────> saving ───┤
                                                              │ └──────────────────────────────────────┘
                                                              ├─captions edited─> caching ──> training
                                                              ├─disk refuses────> paused    (a reason is given)
                                                              ├─Pause───────────> paused    (held on the GPU)
                                                              └─Pause(release)──> released  (GPU memory freed)
        paused, released ──Resume──> training     paused, released ──StopNow──> stopped
        paused by the disk ──it takes what is written──> the state before
        any state ──error──> failed

    ``finished``, ``stopped`` and ``failed`` are final; a stopped or failed run goes on through :func:`open_run`.

    Args:
        config: the configuration.
        resume_from: the folder of an earlier run to go on with; None makes a new folder.

    Attributes:
        events: everything the run tells; readable from any thread, at any time.
        folder: the run's folder, None before the thread made it.
        state: one of the states above.
    """

    def __init__(self, config: RunConfig, resume_from: Path | None = None) -> None:
        self.config = config
        self.events = EventLog()
        self.folder: RunFolder | None = RunFolder(resume_from) if resume_from else None
        self.state = "new"
        self._commands = CommandQueue()
        self._tracking: Tracking | None = None
        # Not a daemon: a thread inside torch when the interpreter ends aborts the process.
        self._thread = threading.Thread(target=self._main, name="engine", daemon=False)

    def start(self) -> None:
        """Start the engine's thread; returns at once.

        Raises:
            RuntimeError: the run was started before.
        """
        self._thread.start()

    def submit(self, command: Command) -> None:
        """Ask for something; it is done between steps. Never blocks, from any thread."""
        self._commands.submit(command)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; True if the run has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the engine's thread works."""
        return self._thread.is_alive()

    @property
    def exit_reason(self) -> str | None:
        """ "finished", "stopped" or "failed"; None while the run goes on."""
        return self.state if self.state in ENDED else None

    def _enter(self, state: str, reason: str = "") -> str:
        before = self.state
        if state != before:
            self.state = state
            self.events.append(StateChanged(state, reason))
        return before

    def _main(self) -> None:
        lost = False
        try:
            outcome = self._work()
        except EngineError as err:
            lost = is_lost(err)
            self._fail(err.title, err.detail, err.hint)
        except BaseException as err:  # the edge of the engine's thread: everything becomes an event
            lost = is_lost(err)
            self._fail(*explain(err, self.folder))
        else:
            self.events.append(
                RunDone(outcome.reason, outcome.step, outcome.epoch, outcome.lora, round(outcome.elapsed_s, 3))
            )
            self._enter(outcome.reason)
        finally:
            if self._tracking is not None:
                self._tracking.close()
            self.events.close()
            if not lost:  # else every further call into CUDA fails, or hangs
                _free_gpu()

    def _work(self) -> Outcome:
        if helper_rank():
            # The main process owns the folder; this one computes its share and learns the folder from it.
            with tempfile.TemporaryDirectory(prefix="lorakiln-") as scratch:
                return self._train(RunFolder(Path(scratch)))
        require_trackers(self.config)
        if self.folder is None:
            self.folder = create_run_folder(
                self.config.runs_dir, self.config.name, lambda folder: save_config(self.config, folder.config)
            )
        with lock_folder(self.folder), log_to(self.folder.log, self.events):
            try:
                self.events.open_file(self.folder.events)
            except OSError as err:
                raise disk_error(err, self.folder.events) from err
            self._tracking = track(self.config, self.events)
            if who := others_may_write(self.folder.root):
                text = f"Others may change what this run goes on from in {safe_text(self.folder.root, 400)}: {who}"
                self.events.append(Log("warning", text))
            return self._train(self.folder)

    def _train(self, folder: RunFolder) -> Outcome:
        self._enter("preparing")
        # torch and its companions take seconds to import: here, while the screen is already up.
        keep_code_in((self.config.cache_dir or default_cache_dir()) / "code")
        from engine.trainer import Trainer
        from engine.training.control import Control

        control = Control(self._commands, self.events)
        trainer = Trainer(self.config, folder, self.events, control, self._enter)
        sampler = MemorySampler(
            self.events, peak=trainer.peak_gb, uuid=trainer.gpu_uuid, hint=lambda: to_lower(self.config)
        )
        sampler.start()
        try:
            return trainer.train()
        finally:
            sampler.stop()

    def _fail(self, title: str, detail: str, hint: str) -> None:
        trace = traceback.format_exc()
        if self.folder is not None:
            # A full disk is a likely reason to be here; the event in the ring says the same.
            with (
                contextlib.suppress(OSError),
                open(self.folder.log, "a", encoding="utf-8", opener=opened_here) as log,
            ):
                log.write(safe_text(trace, 100_000, newlines=True) + "\n")
        self.events.append(
            RunFailed(
                safe_text(title, 500),
                safe_text(detail, 8000, newlines=True),
                safe_text(hint, 2000, newlines=True),
                safe_text(trace, 20_000, newlines=True),
            )
        )
        self._enter("failed")


def helper_rank() -> int:
    """This process's number among those that share a run (``accelerate launch``, ``torchrun``); 0 is the main one."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0


def open_run(folder: Path) -> Run:
    """Take up a run that was stopped or broke off, from its folder.

    Raises:
        RunError: the folder holds no run, or one whose parts lead out of it.
        ConfigError: its configuration cannot be read.
    """
    place = RunFolder(folder.resolve())
    place.refuse_links()
    if not place.config.is_file():
        raise RunError(
            "No run stands there",
            f"{safe_text(place.config)} is missing",
            "`kiln runs` lists the runs of the folder `runs`; name one of their folders.",
        )
    return Run(load_config(place.config), resume_from=place.root)


def last_saved_step(folder: RunFolder) -> int:
    """The step that the newest training state is named for, 0 without one; whether it is whole is not looked at."""
    return next_step(folder.states) - 1


def made_with(folder: Path) -> dict[str, str]:
    """Versions, device and precision that the run in ``folder`` was last trained with; empty where unknown."""
    from engine.training.record import newest_versions

    return newest_versions(RunFolder(folder).records)


def outlook(folder: Path) -> Outlook:
    """What resuming the run in ``folder`` would do; nothing is changed. Reads the disk: not for a thread that draws.

    Raises:
        EngineError: of the kind of what stands in the way, see :func:`engine.training.outlook.look_ahead`; a
            RunError where the folder holds no run.
    """
    from engine.training.outlook import look_ahead

    run = open_run(folder)
    assert run.folder is not None
    return look_ahead(run.folder, run.config)


@contextlib.contextmanager
def log_to(path: Path, events: EventLog) -> Iterator[None]:
    """Send what is logged (warnings and worse) to ``path`` meanwhile, and what our own modules log to the user too.

    Escape sequences are made harmless and secrets hidden; in messages that libraries print by handlers of their own
    too.
    """
    try:
        handler = _LogFile(path, events)
    except OSError as err:
        raise disk_error(err, path) from err
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, ours, teller = logging.getLogger(), logging.getLogger("engine"), _Teller(events)
    root.addHandler(handler)
    ours.addHandler(teller)
    former = logging.getLogRecordFactory()
    logging.setLogRecordFactory(_SafeRecord)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.setLogRecordFactory(former)
        ours.removeHandler(teller)
        root.removeHandler(handler)
        handler.close()


class _LogFile(logging.FileHandler):
    """A log file that tells of a disk which refuses it, instead of printing a traceback over the screen."""

    def __init__(self, path: Path, events: EventLog) -> None:
        super().__init__(path, encoding="utf-8")
        self.events = events
        self.refused = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell once."""
        if not self.refused:
            self.refused = True
            self.events.append(Log("warning", safe_text(f"{self.baseFilename} cannot be written any more", 2000)))


class _Teller(logging.Handler):
    def __init__(self, events: EventLog) -> None:
        super().__init__(logging.WARNING)
        self.events = events

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(Log("warning", safe_text(record.getMessage(), 2000)))


class _SafeRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return safe_text(super().getMessage(), 20_000, newlines=True)


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return safe_text(super().format(record), 20_000, newlines=True)


def _free_gpu() -> None:
    """Give back what torch keeps: the screen stays open over night, and others want the card."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        # The run has told its end; a card that is lost only now is the next one's to tell.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()

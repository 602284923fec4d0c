"""A run that trains nothing: the interface and the kind of stream of the engine's, in a fraction of the time.

Used by the screen's tests and to try the screen by hand: ``python -m tests.tui.fake_run --runs-dir DIR``.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.commands import (
    CancelStop,
    Command,
    CommandQueue,
    Pause,
    Resume,
    SampleNow,
    SaveNow,
    StopAfterEpoch,
    StopAtEpoch,
    StopNow,
)
from engine.events import (
    CheckpointSaved,
    EpochDone,
    EventLog,
    Log,
    MemorySampled,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    SampleSaved,
    StateChanged,
    StepDone,
    StopPlanned,
)
from engine.files import RunFolder, create_run_folder

PROMPTS = (
    "a red glorb on a green meadow, bottom left",
    "a blue star over the sea, centre",
)
STAGES = ("scan pictures", "cache latents", "cache text", "load transformer")


class FakeRun:
    """Emits a realistic stream and obeys every command; ``fail_at`` ends it with an error at that step."""

    def __init__(
        self,
        runs_dir: Path,
        name: str = "glorb",
        epochs: int = 6,
        steps_per_epoch: int = 16,
        step_s: float = 0.004,
        gpu: bool = False,
        fail_at: int = 0,
        hostile: str = "",
    ) -> None:
        self.events = EventLog()
        self.folder: RunFolder | None = None
        self.state = "new"
        self.commands: list[Command] = []
        self.exit_reason: str | None = None
        self._runs_dir = runs_dir
        self._name = name
        self._epochs, self._per_epoch, self._step_s = epochs, steps_per_epoch, step_s
        self._gpu, self._fail_at, self._hostile = gpu, fail_at, hostile
        self._queue = CommandQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._random = random.Random(7)
        self._step = self._epoch = self._stop_epoch = 0
        self._stop = False
        self._began = 0.0

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, command: Command) -> None:
        """Queue a command and remember it for the test."""
        self.commands.append(command)
        self._queue.submit(command)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; True when it came."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self.alive

    def _run(self) -> None:
        self._began = time.time()
        try:
            self._prepare()
            self._train()
        finally:
            self.events.close()

    def _enter(self, state: str, reason: str = "") -> None:
        self.state = state
        self.events.append(StateChanged(state, reason))

    def _prepare(self) -> None:
        self._enter("preparing")
        self.folder = create_run_folder(self._runs_dir, self._name)
        self.events.open_file(self.folder.events)
        steps = self._epochs * self._per_epoch
        self.events.append(
            RunStarted(self.folder.name, str(self.folder.root), "flux1", "dev", self._epochs, steps, self._per_epoch)
        )
        self._memory()
        for state, stage in zip(("preparing", "caching", "caching", "loading"), STAGES, strict=True):
            if state != self.state:
                self._enter(state)
            for done in range(1, min(self._per_epoch, 20) + 1):
                self.events.append(
                    Progress(stage, done, min(self._per_epoch, 20), self._hostile or f"img_{done:04d}.png")
                )
                time.sleep(self._step_s / 4)
        self.events.append(Log("info", "248 modules, rank 16, 1.9 M parameters"))
        self.events.append(Log("warning", f"img_0007.png: no caption {self._hostile}".strip()))

    def _train(self) -> None:
        self._sample()
        self._enter("training")
        while self._step < self._epochs * self._per_epoch and not self._stop:
            self._one_step()
            if self._step == self._fail_at:
                self._fail()
                return
            if self._step % self._per_epoch == 0:
                self._end_epoch()
            for command in self._queue.take_all():
                self._obey(command)
        reason = "finished" if self._step == self._epochs * self._per_epoch else "stopped"
        path = self._save("final" if reason == "finished" else "stop")
        self.exit_reason = reason
        self._enter(reason)
        self.events.append(RunDone(reason, self._step, self._epoch, path, time.time() - self._began))

    def _one_step(self) -> None:
        time.sleep(self._step_s)
        self._step += 1
        self._epoch = (self._step - 1) // self._per_epoch + 1
        part = self._step / (self._epochs * self._per_epoch)
        loss = 0.3 + 0.6 * math.exp(-4 * part) + self._random.gauss(0, 0.12) * (1 - 0.5 * part)
        loss += 1.2 if self._random.random() < 0.01 else 0.0
        rate = 1e-4 * min(1.0, part * 10) * (0.55 + 0.45 * math.cos(math.pi * part))
        wall = 0.42 + self._random.gauss(0, 0.02)
        self.events.append(
            StepDone(self._step, self._epoch, max(0.05, loss), rate, 0.4 + self._random.random() / 3, wall,
                     wall * 0.03, wall * 0.86, wall * 0.08)
        )  # fmt: skip
        if self._step % 4 == 0:
            self._memory()

    def _end_epoch(self) -> None:
        part = self._epoch / self._epochs
        self.events.append(EpochDone(self._epoch, self._step, 0.3 + 0.6 * math.exp(-4 * part)))
        self._save("epoch")
        self._sample()
        self._enter("training")
        if self._stop_epoch and self._epoch >= self._stop_epoch:
            self._stop = True

    def _obey(self, command: Command) -> None:
        if isinstance(command, Pause):
            self._hold(command)
        elif isinstance(command, StopNow):
            self._stop = True
        elif isinstance(command, SaveNow):
            self._save("manual")
            self._enter("training")
        elif isinstance(command, SampleNow):
            self._sample()
            self._enter("training")
        elif isinstance(command, CancelStop):
            self._plan(0)
        elif isinstance(command, StopAfterEpoch):
            self._plan(self._epoch)
        elif isinstance(command, StopAtEpoch):
            self._plan(command.epoch)

    def _plan(self, epoch: int) -> None:
        self._stop_epoch = epoch
        self.events.append(StopPlanned(epoch))

    def _hold(self, command: Pause) -> None:
        self._enter("released" if command.release else "paused")
        while True:
            waiting = self._queue.wait(0.02)
            if isinstance(waiting, Resume):
                break
            if isinstance(waiting, Pause) and waiting.release:
                self._enter("released")
            if isinstance(waiting, StopNow):
                self._stop = True
                return
        self._enter("training")

    def _save(self, kind: str) -> str:
        assert self.folder is not None
        self._enter("saving")
        path = self.folder.lora(self._epoch, self._step, kind)
        path.write_bytes(b"\0" * 1024)
        self.events.append(CheckpointSaved(str(path), self._step, self._epoch, kind, 38_400_000))
        return str(path)

    def _sample(self) -> None:
        assert self.folder is not None
        self._enter("sampling")
        for index, prompt in enumerate(PROMPTS):
            path = self.folder.samples / f"s{self._step:06d}-{index}.png"
            write_picture(path, index, self._step / (self._epochs * self._per_epoch))
            text = self._hostile or prompt
            self.events.append(SampleSaved(str(path), self._step, self._epoch, index, text, 42 + index))
            self.events.append(Progress("sample", index + 1, len(PROMPTS), ""))

    def _memory(self) -> None:
        used = 11.2 + self._random.random() / 2
        card = (18.9, 24.0, 20.3, 96.0, 71.0, 402.0) if self._gpu else ()
        self.events.append(MemorySampled(used, 32.0, 2.1 + self._random.random() / 10, *card))

    def _fail(self) -> None:
        self.exit_reason = "failed"
        self.state = "failed"
        detail = f"24.1 GB wanted, 23.6 free {self._hostile}".strip()
        self.events.append(
            RunFailed("The GPU's memory is full", detail, "Lower resolution or rank.", "Traceback ...")
        )


def write_picture(path: Path, index: int, part: float, side: int = 64) -> None:
    """A small PNG without any library: a disc on a meadow, sharper the further training is."""
    rows = bytearray()
    centre = (side * 0.34, side * 0.62) if index == 0 else (side * 0.5, side * 0.4)
    noise = random.Random(index)
    for y in range(side):
        rows.append(0)
        for x in range(side):
            inside = math.hypot(x - centre[0], y - centre[1]) < side * 0.22
            ground = (70, 150, 70) if y > side * 0.55 else (130, 180, 230)
            color = ((210, 50, 40), (50, 80, 210))[index] if inside else ground
            rows += bytes(
                max(0, min(255, round(part * c + (1 - part) * noise.randrange(256)))) for c in color
            )  # fmt: skip
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 1)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(data)


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> bool:
    """Wait for ``condition``; False when it did not come true in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def main() -> int:
    """Show a fake run full screen."""
    from tui.foreground import run_foreground

    parser = argparse.ArgumentParser()
    parser.add_argument("--runs-dir", type=Path, required=True)
    parser.add_argument("--step-s", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--fail-at", type=int, default=0)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--noise", action="store_true", help="write to descriptors 1 and 2 while it runs")
    parser.add_argument("--crash", choices=CRASHES, help="raise an error in the screen")
    args = parser.parse_args()
    run = FakeRun(
        args.runs_dir, epochs=args.epochs, steps_per_epoch=args.steps, step_s=args.step_s, gpu=args.gpu,
        fail_at=args.fail_at,
    )  # fmt: skip
    if args.noise:
        make_noise(run)
    if args.crash:
        plan_crash(args.crash)
    return run_foreground(run)


def make_noise(run: FakeRun) -> None:
    """Have ``run`` write to descriptors 1 and 2 while it runs, as libraries do."""
    memory = run._memory

    def noisy() -> None:
        os.write(1, b"written by C\n")
        os.write(2, b"\x1b[2Jwritten by C\n")
        print("printed by Python")
        memory()

    run._memory = noisy  # type: ignore[method-assign]


CRASHES = ("yes", "paint", "handler", "worker", "compose")
"""Where an error of the screen can be raised; "yes" is while it is painted."""

SECRET = "-".join(("no", "local", "variable", "is", "told"))
"""What a local variable holds where the screen breaks; never in the source as it is."""


def plan_crash(where: str = "paint") -> None:
    """Have the screen break as soon as the run trains: while it is painted, or in another part of it."""
    from tui.screens.feed import Feed
    from tui.widgets.status import StatusLine

    def broken() -> None:
        token = SECRET
        raise RuntimeError("a crash for the test" + token[:0])

    paint, poll = StatusLine.paint, Feed.poll

    def broken_paint(line: StatusLine, width: int, height: int) -> object:
        if line.view.step:
            broken()
        return paint(line, width, height)

    def broken_poll(feed: Feed) -> None:
        poll(feed)
        if not feed.place.view.step:
            return
        if where == "handler":
            broken()
        elif where == "worker":
            feed.screen.run_worker(broken, thread=True)
        else:
            feed.app.push_screen(_broken_screen(broken))

    if where in ("yes", "paint"):
        StatusLine.paint = broken_paint  # type: ignore[method-assign,assignment]
    else:
        Feed.poll = broken_poll  # type: ignore[method-assign]


def _broken_screen(broken: Callable[[], None]) -> Any:
    """A screen that cannot be composed."""
    from textual.screen import Screen

    class Broken(Screen[None]):
        """Raises when composed."""

        def compose(self) -> Any:
            """Break."""
            broken()
            return []

    return Broken()


if __name__ == "__main__":
    raise SystemExit(main())

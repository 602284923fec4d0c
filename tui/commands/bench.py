"""`kiln bench CONFIG`: train some steps, measure them, leave nothing behind.

Tells machine, settings, median and quartiles of a step's time and where it goes, tokens a second, how close it is to
what its products alone would take, the memory held at most, and the bytes between host and device. CONFIG is a
configuration file, or `demo` for the pocket model. The run's folder is temporary; a cache folder that stands is used
and filled as training would, else the cache is temporary too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from engine.commands import StopNow
from engine.config import RunConfig
from engine.config_file import load_config
from engine.events import Entry, RunStarted, StepDone
from engine.files import default_cache_dir
from engine.hardware.machine import Machine, this_machine
from engine.hardware.rates import measured_tflops, rates_of
from engine.models.detect import expect
from engine.models.flux_work import FluxWork
from engine.text import safe_text
from tui.bench import Figures, Floor, memory_of, settings_of, shares_of, spread_of, text_of, walls_of
from tui.bridge import RunLike
from tui.error_text import error_text
from tui.exit_codes import FINISHED, exit_code
from tui.headless import POLL_S, event_lines
from tui.progress import Progress
from tui.signals import StopSignals, exit_code_of
from tui.view import RunView, fold

WARM_UP = 5
"""Steps not counted: kernels are chosen, compiled and warmed in them."""


def add_parser(subparsers: Any) -> None:
    """Add `kiln bench` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench", help="measure training steps and leave nothing behind", description=__doc__
    )
    parser.add_argument("config", metavar="CONFIG", help="a configuration file, or demo")
    parser.add_argument("--steps", type=_steps, default=20, help="steps to measure (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder, called NAME-bench, in runs_dir")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Measure.

    Raises:
        EngineError: as when a run starts.
    """
    with tempfile.TemporaryDirectory(prefix="lorakiln-bench-") as folder, event_lines(args.json):
        config = _shortened(_config(args.config, Path(folder)), Path(folder), args.steps, args.keep)
        info = expect(config.model.transformer, "transformer")
        from engine.run import Run

        job = Run(config)
        code, entries = _follow(job)
        if code != FINISHED:
            return code
        figures = _figures(config, entries, FluxWork.of(info.params), args.steps)
    print(json.dumps(figures.to_dict()) if args.json else text_of(figures))
    return FINISHED


def _config(name: str, folder: Path) -> RunConfig:
    if name != "demo" or Path(name).exists():
        return load_config(Path(name))
    from profiles.starters import demo_config

    return demo_config(folder)


def _shortened(config: RunConfig, folder: Path, steps: int, keep: bool) -> RunConfig:
    """The same training, so many steps of it, without pictures and files in between."""
    cache = config.cache_dir or default_cache_dir()
    values = config.model_dump()
    values["name"] = f"{config.name[:74]}-bench"
    values["cache_dir"] = cache if cache.is_dir() else folder / "cache"
    values["runs_dir"] = config.runs_dir if keep else folder / "runs"
    values["training"] |= {"epochs": 0, "steps": WARM_UP + steps}
    values["sampling"] |= {"prompts": (), "at_start": False}
    values["validation"] |= {"every_epochs": 0, "every_steps": 0}
    values["saving"] |= {"every_epochs": 0, "every_steps": 0}
    return RunConfig.model_validate(values)


def _follow(job: RunLike) -> tuple[int, list[Entry]]:
    """Run to the end with a progress bar on stderr; the exit code, and all that was told."""
    progress, view = Progress(sys.stderr), RunView()
    entries: list[Entry] = []
    with _stopping(job) as signals:
        job.start()
        ended = False
        while not ended:
            ended = job.join(POLL_S)
            for entry in job.events.since(view.seq):
                fold(view, entry)
                entries.append(entry)
            progress.update(view)
    progress.close()
    if view.failure is not None:
        print(error_text(view.failure), file=sys.stderr)
        # The log that it names goes with the folder.
        print(safe_text(view.failure.traceback, newlines=True), file=sys.stderr)
    return exit_code(view.state, signals.exit_code), entries


@contextlib.contextmanager
def _stopping(job: RunLike) -> Iterator[StopSignals]:
    def on_signal(signum: int) -> None:
        if signals.count > 1:
            os._exit(exit_code_of(signum))
        job.submit(StopNow())

    with StopSignals(on_signal) as signals:
        yield signals


def _figures(config: RunConfig, entries: Sequence[Entry], work: FluxWork, steps: int) -> Figures:
    machine = this_machine()
    walls = walls_of(entries, WARM_UP)
    spread = spread_of([wall for wall, _ in walls])
    done = [step for _, step in walls]
    started = next(entry.event for entry in entries if isinstance(entry.event, RunStarted))
    peak, held = memory_of(entries)
    on_gpu = bool(machine.gpu) and config.training.device != "cpu"
    return Figures(
        machine=machine if on_gpu else Machine(**(vars(machine) | {"gpu": "", "driver": "", "vram_gb": 0.0})),
        settings=settings_of(config, started.variant),
        steps=steps,
        warm_up=WARM_UP,
        step=spread,
        shares=shares_of(done, median(step.step_s for step in done)),
        tokens=round(median(step.tokens for step in done)),
        floor=_floor(config, work, done, started.variant, machine.gpu if on_gpu else "", machine.vram_gb),
        peak_gb=peak,
        held=held,
        moved_mb=median(step.moved_mb for step in done),
    )


def _floor(
    config: RunConfig, work: FluxWork, done: Sequence[StepDone], variant: str, gpu: str, vram_gb: float = 0.0
) -> Floor | None:
    """Products of the step over the card's rate; None where the step did not tell its tokens."""
    samples = config.training.batch_size * config.training.accumulation
    text = config.model.t5_length or (256 if variant.startswith("schnell") else 512)
    image = median(step.tokens for step in done) / samples - text
    if image <= 0:
        return None
    kept, packed = config.training.gradient_checkpointing, config.memory.precision
    linear, attention = (flop / 1e12 for flop in work.step(round(image), text, samples, kept))
    rates = rates_of(gpu, vram_gb) if gpu else None
    if rates is not None:
        in_eight_bit = packed in ("int8", "fp8") and config.memory.compute != "wide" and getattr(rates, packed) > 0
        wide = "bf16" if rates.bf16 else "float32"
        kind = packed if in_eight_bit else wide
        return Floor(linear, attention, getattr(rates, kind), rates.wide, f"published {kind} rate of the card")
    dtype = config.model.dtype if config.model.dtype != "auto" else ("bfloat16" if gpu else "float32")
    device = ("cuda" if config.training.device == "auto" else config.training.device) if gpu else "cpu"
    rate = measured_tflops(device, dtype)
    return Floor(linear, attention, rate, rate, f"a {dtype} product of this machine, timed")


def _steps(text: str) -> int:
    value = int(text)
    if not 2 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"{value} is not in 2 to 10000")
    return value

"""`kiln sweep RUN.toml`: train a configuration at several rates, ranks, seeds or other values, and compare the runs.

Without options the rates 5e-5, 1e-4 and 2e-4 are tried. Every combination of the values given is a run; all of them
lie in one folder, share their caches, and are measured on the same held-out pictures, so that they compare. SIGINT
and SIGTERM save and stop the run at work; `kiln sweep --resume FOLDER` goes on with what is not done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config_file import load_config
from engine.errors import ConfigError, EngineError
from engine.text import safe_text
from tui.commands import compare
from tui.exit_codes import BAD_INPUT, FAILED, FINISHED
from tui.signals import exit_code_of
from tui.sweep import RANK, RATE, SEED, Axis, PlannedRun, axis_of, measures, plan_sweep, words
from tui.sweep_file import Sweep, create_sweep, next_sweep_folder, read_sweep
from tui.sweep_run import Runner, result_of, tell
from tui.units import duration


def add_parser(subparsers: Any) -> None:
    """Add `kiln sweep` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "sweep", help="train a configuration at several rates, ranks or seeds", description=__doc__
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="RUN.toml")
    for name, key, kind, metavar in (
        ("--rates", RATE, _rates, "5e-5,1e-4"),
        ("--ranks", RANK, _whole(1), "8,16"),
        ("--seeds", SEED, _whole(0), "1,2"),
    ):
        parser.add_argument(name, type=kind, metavar=metavar, help=f"values of {key}")
    parser.add_argument(
        "--set", action="append", default=[], type=_axis, metavar="KEY=V1,V2",
        help="values of any other setting, for example lora.dropout=0,0.1; may be repeated",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say which runs there would be, and train none")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with the sweep in this folder")
    parser.add_argument(
        "--yes", action="store_true", help="begin without asking; go on with runs although something changed"
    )


def run(args: argparse.Namespace) -> int:
    """Plan and train, or go on; then compare.

    Raises:
        EngineError: the configuration or the folder cannot be used, or another process works on the sweep.
    """
    axes = [*(Axis(key, found) for key, found in _given(args)), *args.set]
    if (args.file is None) == (args.resume is None):
        raise ConfigError("Which sweep?", "give RUN.toml for a new one, or --resume FOLDER")
    if args.resume is not None:
        if axes or args.dry_run:
            raise ConfigError("The sweep is planned already", "--resume takes no values and no --dry-run")
        return _work(read_sweep(args.resume), args.yes)
    config = load_config(args.file)
    folder = next_sweep_folder(config)
    runs = plan_sweep(config, axes, folder)
    for line in plan_lines(runs, folder):
        print(line)
    if args.dry_run:
        return FINISHED
    if not args.yes and not _agreed():
        return BAD_INPUT
    return _work(create_sweep(folder, runs), args.yes)


def plan_lines(runs: Sequence[PlannedRun], folder: Path) -> list[str]:
    """The runs, and how long they will take."""
    width = max(len(run.name) for run in runs)
    lines = [f"{len(runs)} runs in {safe_text(folder)}:"]
    lines += [f"  {run.name:{width}}  {words(run.changes)}" for run in runs]
    try:
        from tui.sweep_forecast import sweep_seconds

        seconds = sweep_seconds([run.config for run in runs])
        lines.append(f"About {duration(seconds)} in all, measuring apart.")
    except EngineError as err:
        lines.append(f"How long that takes cannot be told: {err.title}.")
    if not all(measures(run.config) for run in runs):
        lines.append("The configuration says that nothing is measured on held-out pictures: nothing will rank them.")
        lines.append("--set validation.every_epochs=auto turns it on.")
    if len({run.config.seed for run in runs}) > 1:
        lines.append("Runs of different seeds are measured with different noise: each seed is ranked for itself.")
    return lines


def _agreed() -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("Not begun: --yes begins without asking.", file=sys.stderr)
        return False
    print("Train them? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _work(sweep: Sweep, consent: bool) -> int:
    runner = Runner(sweep, tell, consent)
    runner.work()
    folders, left = result_of(sweep)
    if len(folders) > 1:
        print()
        compare.show(folders)
    if left:
        tell(f"Not done: {', '.join(left)}")
        tell(f"Go on with: kiln sweep --resume {sweep.folder}")
    if runner.stop_signal:
        return exit_code_of(runner.stop_signal)
    return FAILED if left else FINISHED


def _given(args: argparse.Namespace) -> list[tuple[str, tuple[Any, ...]]]:
    found = ((RATE, args.rates), (RANK, args.ranks), (SEED, args.seeds))
    return [(key, values) for key, values in found if values]


def _axis(text: str) -> Axis:
    try:
        return axis_of(text)
    except ConfigError as err:
        raise argparse.ArgumentTypeError(f"{err.title}: {err.detail}. {err.hint}") from err


def _rates(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (0.0,)
    if not all(0 < rate < 1e6 for rate in found):
        raise argparse.ArgumentTypeError(f"{text!a} is no list of rates like 5e-5,1e-4")
    return found


def _whole(least: int) -> Any:
    def parse(text: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isascii() and part.isdigit() and least <= int(part[:18]) for part in parts):
            raise argparse.ArgumentTypeError(f"{text!a} is no list of whole numbers from {least} on")
        return tuple(map(int, parts))

    return parse

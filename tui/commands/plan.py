"""`kiln plan`: say beforehand what a run will hold and take, and choose settings.

With RUN.toml the job is that file's: its model files (headers alone), its
pictures, its sampling. Without one it is described by options. The machine is
this one, or one that --gpu, --vram and --ram describe: no GPU is needed to
plan. Every setting comes with its reason and with what its other values would
cost. Nothing is changed unless --write is given, which puts the chosen settings
into RUN.toml and keeps its comments.

exit codes: 0 it fits, 1 it does not, 2 bad input
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.config_file import update_config
from engine.errors import ConfigError
from engine.text import safe_text
from profiles.chooser import Estimate
from profiles.estimate import forecast
from profiles.job import MODELS
from profiles.measured import Measured
from profiles.schema import Fit
from profiles.solve import learned, solve
from tui.exit_codes import FAILED, FINISHED
from tui.headless import can_unicode
from tui.plan_question import known_tiers, question_of, tier_lines
from tui.plan_report import Planned, report
from tui.plan_text import plan_text

AIMS = ("balanced", "fastest", "quality")


def add_parser(subparsers: Any) -> None:
    """Add `kiln plan` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plan",
        help="what a run will hold and take, and the settings that make it fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="RUN.toml", help="take the job from a run's file")
    job = parser.add_argument_group("the job, where no file is given")
    job.add_argument("--model", choices=tuple(MODELS), help="default: flux1-dev")
    job.add_argument("--resolution", type=_whole(64, 4096), metavar="N", help="pixels; default: 1024")
    job.add_argument("--images", type=_whole(1, 10**6), metavar="N", help="default: the recipe's best, or 20")
    job.add_argument("--repeats", type=_whole(1, 10**4), metavar="N", help="how often an epoch shows each")
    job.add_argument("--epochs", type=_whole(1, 10**6), metavar="N", help="default: the recipe's, or 100")
    job.add_argument("--rank", type=_whole(1, 1024), metavar="N", help="default: the recipe's, or 16")
    job.add_argument("--batch", type=_whole(1, 4096), metavar="N", help="pictures of a step; default: 1")
    parser.add_argument("--tiers", action="store_true", help="list the tiers, those that ship and your own")
    parser.add_argument("--recipe", metavar="NAME", help="character, style, product, concept, or one of your own")
    machine = parser.add_argument_group("the machine, where it is not this one")
    machine.add_argument("--gpu", default="", metavar="NAME", help='a known card, for example "RTX 3060"')
    machine.add_argument("--vram", type=_amount, default=0.0, metavar="GB", help="memory of the card")
    machine.add_argument("--ram", type=_amount, default=0.0, metavar="GB", help="host memory")
    machine.add_argument(
        "--tier", metavar="NAME", help="that of a tier, for example 12gb; a tier of your own fixes its settings too"
    )
    wishes = parser.add_argument_group("wishes")
    wishes.add_argument("--aim", choices=AIMS, default="balanced", help="default: %(default)s")
    wishes.add_argument("--leave", type=_amount, default=0.0, metavar="GB", help="leave others so much of the card")
    wishes.add_argument("--done-by", type=_clock, metavar="HH:MM", help="the run should be over by then")
    wishes.add_argument("--no-nf4", action="store_true", help="rather not at all than in nf4")
    wishes.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="KEY=VALUE",
        help="fix a setting, for example memory.blocks_to_swap=20; the rest is solved around it; may be repeated",
    )  # fmt: skip
    parser.add_argument("--price", type=_amount, default=0.0, metavar="P", help="of an hour of the machine")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")
    parser.add_argument("--write", action="store_true", help="put the chosen settings into RUN.toml")


def run(args: argparse.Namespace) -> int:
    """Plan and print; write where asked to.

    Raises:
        EngineError: something given cannot be used, or is not known.
    """
    if args.tiers:
        print("\n".join(tier_lines(known_tiers())))
        return FINISHED
    if args.write and args.file is None:
        raise ConfigError("Nothing to write to", "--write puts settings into RUN.toml, and none was given")
    asked = question_of(args)
    estimate: Estimate = forecast
    machine = asked.machine
    if not (args.gpu or args.vram or args.tier):  # this machine: what runs needed on it is known
        measured = Measured()
        estimate, told = learned(measured.correction_for), (measured.words(machine), *measured.remarks)
        machine = replace(machine, remarks=(*machine.remarks, *filter(None, told)))
    fit = solve(asked.job, machine, asked.wishes, asked.fixed, asked.start, estimate=estimate)
    planned = Planned(fit, asked.job, machine, asked.title, args.price, asked.advice)
    if args.json:
        print(json.dumps(report(planned), ensure_ascii=True, indent=1))
    else:
        columns = shutil.get_terminal_size((80, 24)).columns
        print(plan_text(planned, columns, can_unicode(sys.stdout)))
    if args.write and asked.config is not None:
        _write(args.file, asked.config, fit, quiet=args.json)
    return FINISHED if fit.fits else FAILED


# Writing


def _write(path: Path, config: RunConfig, fit: Fit, quiet: bool) -> None:
    """Put what was chosen into the file, where it says otherwise.

    Raises:
        ConfigError: it does not fit, so there is nothing worth writing; or the changed file would not be valid.
        DiskError: nothing was changed.
    """
    if not fit.fits:
        raise ConfigError("Nothing was written", f"{safe_text(path.name)}: no settings fit this machine")
    changes = changed(config, fit.changes())
    if changes:
        update_config(path, changes)
    if not quiet:
        words = ", ".join(f"{key} = {_plain(value)}" for key, value in changes.items())
        print(f"\n{safe_text(path.name)}: {words or 'says all of it already'}")


def changed(config: RunConfig, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Of the chosen settings those that the configuration has otherwise."""
    return {key: value for key, value in chosen.items() if _lookup(config, key) != value}


def _lookup(config: RunConfig, dotted: str) -> Any:
    value: Any = config
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# Options


def _whole(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most:
            raise argparse.ArgumentTypeError(f"{text!a} is no whole number from {least} to {most}")
        return int(text)

    return parse


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!a} is no amount from 0 on")
    return value


def _clock(text: str) -> datetime:
    """The next time that the clock shows ``text``."""
    try:
        at = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!a} is no time of day like 07:00") from None
    now = datetime.now()
    then = now.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    return then if then > now else then + timedelta(days=1)


def _setting(text: str) -> tuple[str, Any]:
    """``key=value`` with a value as in TOML; a bare word is text."""
    key, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!a} is not of the form KEY=VALUE")
    try:
        return key.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except (ValueError, RecursionError):
        return key.strip(), value.strip()

"""`kiln doctor`: look at everything that a run needs, judge each line, and say what to do about every problem.

Reads Python and its packages (in a process of its own, so that a broken one harms nobody), driver and cards, host
memory, disks and the terminal; changes nothing. Exit code 0 where nothing keeps a run from working, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.files import default_cache_dir
from engine.hardware.disks import network_type
from engine.hardware.gpu import probe_gpus
from engine.hardware.host import free_disk_gb, on_one_disk, read_memory, standing_parent, usable_cores
from engine.hardware.others import nvidia_on_bus, other_graphics
from engine.hardware.software import ask_software, installed
from tui.doctor.finding import Finding, text_of, worst
from tui.doctor.graphics import Graphics, cards_in_json, graphics_findings
from tui.doctor.host import CACHE_GB, LEAST_CACHE_GB, LEAST_RUNS_GB, RUNS_GB, Host, Place, host_findings
from tui.doctor.software import Software, software_findings
from tui.doctor.terminal import terminal_findings
from tui.exit_codes import FAILED, FINISHED
from tui.glyphs import ASCII, UNICODE, terminal_is_ascii
from tui.version import VERSION


def add_parser(subparsers: Any) -> None:
    """Add `kiln doctor` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor", help="check this machine, and say what to do about each problem", description=__doc__
    )
    parser.add_argument(
        "--cache-dir", type=Path, default=None, metavar="DIR", help="where caches go (the user's cache folder)"
    )
    parser.add_argument(
        "--runs-dir", type=Path, default=RunConfig.model_fields["runs_dir"].default, metavar="DIR",
        help="where runs go (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the report as one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Look, judge and print."""
    if sys.stderr.isatty() and not args.json:
        print("Looking at the machine; torch takes some seconds to answer.", file=sys.stderr)
    gpus, reason = probe_gpus()
    software = _software()
    graphics = Graphics(
        gpus=gpus,
        reason=reason,
        others=other_graphics(),
        torch=software.answers["torch"].values,
        devices=software.answers["cuda"].values.get("devices", ()),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        nvidia_on_bus=nvidia_on_bus(),
    )
    findings = [
        *software_findings(software, gpus),
        *graphics_findings(graphics),
        *host_findings(_host(args.cache_dir or default_cache_dir(), args.runs_dir)),
        *_terminal(args.json),
    ]
    verdict = worst(findings)
    if args.json:
        told = {
            "lorakiln": VERSION,
            "verdict": verdict,
            "findings": [finding.to_dict() for finding in findings],
            "gpus": cards_in_json(gpus),
        }
        print(json.dumps(told))
    else:
        print(f"lorakiln {VERSION}\n\n{text_of(findings, ASCII if terminal_is_ascii() else UNICODE)}")
    return FAILED if verdict == "bad" else FINISHED


def _software() -> Software:
    compilers = [shutil.which(name) for name in (os.environ.get("CC", ""), "gcc", "clang") if name]
    compiler = next(filter(None, compilers), "")
    return Software(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        answers=ask_software(),
        xformers=installed("xformers"),
        compiler=Path(compiler).name,
        linux=platform.system() == "Linux",
    )


def _host(cache_dir: Path, runs_dir: Path) -> Host:
    return Host(
        memory=read_memory(),
        cores=usable_cores(),
        all_cores=os.cpu_count() or 1,
        places=[
            _place("caches", cache_dir, CACHE_GB, LEAST_CACHE_GB),
            _place("runs", runs_dir, RUNS_GB, LEAST_RUNS_GB),
        ],
        one_disk=on_one_disk(cache_dir, runs_dir),
        wsl="microsoft" in platform.uname().release.lower(),
    )


def _place(name: str, path: Path, enough_gb: float, least_gb: float) -> Place:
    standing = standing_parent(path)
    writable = standing is not None and os.access(standing, os.W_OK | os.X_OK)
    return Place(name, path.absolute(), free_disk_gb(path), writable, enough_gb, least_gb, network_type(path))


def _terminal(quiet: bool) -> list[Finding]:
    """Ask the terminal, where there is one at both ends and nothing else is written to it."""
    from tui.terminal.modes import forget_typed, give_back, make_raw, settings_of
    from tui.terminal.probe import probe
    from tui.terminal.traits import Traits

    if quiet or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return terminal_findings(None, answered=False)
    term = os.environ.get("TERM", "")
    if term in ("", "dumb"):  # it would print the questions
        return terminal_findings(Traits(term=term), answered=False)
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    before = settings_of(keyboard)
    make_raw(keyboard, signals=True)
    try:
        probed = probe(keyboard, screen)
    finally:
        forget_typed(keyboard)  # a late answer must not end up on the command line
        if before is not None:
            give_back(keyboard, before)
    return terminal_findings(probed.traits, probed.answered)

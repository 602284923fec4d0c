"""Starts a run for a command: full screen or headless, as asked for and as the terminal allows."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from tui.terminal import orders

if TYPE_CHECKING:
    import argparse


def add_display_options(parser: argparse.ArgumentParser) -> None:
    """Add what `kiln train` and `kiln resume` share: how the run is shown."""
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--ui", action="store_true", help="show the full screen; the run goes on when you detach")
    shown.add_argument("--json", action="store_true", help="write events to stdout as JSON lines, nothing else")
    shown.add_argument("--detach", action="store_true", help="begin in the background; `kiln attach` shows it")
    parser.add_argument(
        "--foreground", action="store_true", help="with --ui: in this process, which ends with the screen"
    )


def add_stop(parser: argparse.ArgumentParser) -> None:
    """Add the option that plans an end."""
    parser.add_argument(
        "--stop-after", type=_epoch, default=0, metavar="EPOCH", help="save and stop when this epoch is complete"
    )


def _epoch(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**6:
        raise ValueError
    return int(text)


def add_consent(parser: argparse.ArgumentParser) -> None:
    """Add the option that answers the question ahead."""
    parser.add_argument(
        "--yes", action="store_true", help="resume although something changed that changes what it learns"
    )


def launch(order: dict[str, Any], args: argparse.Namespace) -> int:
    """Carry out ``order`` as the display options say; returns the exit code.

    Raises:
        ConfigError: a screen is asked for where there is none.
    """
    if args.detach:
        from tui.terminal.attach import begin_unseen

        return begin_unseen(order)
    if args.ui:
        return full_screen(order, args.foreground)
    return headless(order, args.json)


def headless(order: dict[str, Any], json_lines: bool) -> int:
    """Carry out ``order`` here, with a progress bar or event lines."""
    from tui.headless import run_headless

    run = orders.run_for(order)
    assert run is not None
    return run_headless(run, json_lines)


def full_screen(order: dict[str, Any], foreground: bool = False) -> int:
    """Carry out ``order`` in the host of the current folder and show it, or in this process.

    Raises:
        ConfigError: there is no terminal to show it on.
    """
    if (lack := lacking()) is not None:
        raise lack
    if foreground:
        from tui.foreground import run_foreground
        from tui.settings import load_settings

        settings = load_settings()
        return run_foreground(orders.run_for(order), settings)
    from tui.terminal.attach import attach

    return attach(order)


def has_terminal() -> bool:
    """Whether a full-screen display can be shown: both ends are a terminal that can move its cursor."""
    return lacking() is None


def lacking() -> ConfigError | None:
    """What a full-screen display lacks here; None if nothing."""
    hint = "Leave out --ui, or use --headless: a progress bar needs no more than lines."
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return ConfigError("No terminal for the full screen", "stdin or stdout is no terminal", hint)
    if os.environ.get("TERM", "dumb") in ("", "dumb"):
        detail = f"TERM is {os.environ.get('TERM', '')!a}: it cannot move its cursor"
        return ConfigError("This terminal cannot show the full screen", detail, hint)
    return None

"""Starts a run for a command: full screen, or headless, as asked for and as the terminal allows."""

from __future__ import annotations

import os
import sys

from engine.errors import ConfigError
from tui.bridge import RunLike


def has_terminal() -> bool:
    """Whether a full-screen display can be shown: both ends are a terminal that can move its cursor."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def launch(run: RunLike, ui: bool, json_lines: bool) -> int:
    """Run to the end; returns the exit code.

    Raises:
        ConfigError: a screen is asked for where there is none.
    """
    if not ui:
        from tui.headless import run_headless

        return run_headless(run, json_lines)
    if not has_terminal():
        raise ConfigError("No terminal for the full screen", "stdin or stdout is no terminal", "Leave out --ui.")
    from tui.app import run_app

    return run_app(run)

"""Starts a run for a command: full screen, or headless, as asked for and as the terminal allows."""

from __future__ import annotations

import os
import sys

from engine.errors import ConfigError
from engine.text import safe_text
from tui.bridge import RunLike, view_of
from tui.places import lora_in


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
    from tui.settings import load_settings

    code = run_app(run, load_settings().keymap)
    print(last_words(run), end="")
    return code


def last_words(run: RunLike) -> str:
    """What remains in the terminal after the full screen: where the run lies, and how to go on."""
    if run.folder is None or not run.folder.events.exists():
        return ""
    view = view_of(run.folder.events)
    text = f"Run {safe_text(view.name)} {view.state} at step {view.step} of {view.steps}.\n"
    if view.checkpoints:
        text += f"LoRA   {safe_text(lora_in(run.folder.root, view.checkpoints[-1].path))}\n"
    if view.state == "stopped":
        text += f"Go on  kiln resume {safe_text(run.folder.root)}\n"
    return text

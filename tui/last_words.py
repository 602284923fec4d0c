"""What remains in the terminal after the full screen: where the run lies, and how to come back or go on."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.text import safe_text
from tui.bridge import RunLike, view_of
from tui.places import lora_in
from tui.view import RunView

if TYPE_CHECKING:
    from tui.workplace import Workplace

_LOGIND = ("/etc/systemd/logind.conf", "/etc/systemd/logind.conf.d", "/run/systemd/logind.conf.d")
_LINGER = Path("/var/lib/systemd/linger")


NOTHING = "Nothing is running here; `kiln` opens this folder again.\n"


def run_words(run: RunLike | None) -> str:
    """Of a run that is over; nothing where it was never begun."""
    view = _told_by(run) if run is not None else None
    if run is None:
        return NOTHING
    if run.folder is None or view is None:
        return ""
    text = f"Run {safe_text(view.name)} {view.state} at step {view.step} of {view.steps}.\n"
    if view.failure is not None:
        text += f"Why    {safe_text(view.failure.title)}\n"
    if view.checkpoints:
        text += f"LoRA   {safe_text(lora_in(run.folder.root, view.checkpoints[-1].path))}\n"
    if view.state in ("stopped", "failed"):
        text += f"Go on  kiln resume {safe_text(run.folder.root)}\n"
    return text


def away_words(workplace: Workplace, how: str) -> str:
    """Of a run that goes on without this terminal.

    Args:
        workplace: where it is trained.
        how: why the screen ended: "replaced", "detach"...
    """
    run, view = workplace.run, workplace.view
    name = safe_text(view.name or (run.folder.name if run is not None and run.folder is not None else ""))
    goes = "begins" if workplace.pending is not None else "goes on"
    there = "on another terminal" if how == "replaced" else "without a terminal"
    text = f"The run {name} {goes} {there}, in the process {os.getpid()}.\n".replace("  ", " ")
    if how != "replaced":
        text += f"Back   kiln attach {safe_text(workplace.folder)}\n"
        text += f"Stop   kill {os.getpid()}   (saves first)\n"
    return text + _logout_warning()


def idle_words(how: str) -> str:
    """Where no run is live."""
    return "The workstation went on to another terminal.\n" if how == "replaced" else NOTHING


def end_state(workplace: Workplace, run: RunLike) -> str:
    """How ``run`` ended, as told by its last events."""
    if workplace.run is run and workplace.bridge is not None:
        workplace.bridge.finish()
        return workplace.view.state
    view = _told_by(run)
    return view.state if view is not None else "failed"


def _told_by(run: RunLike) -> RunView | None:
    """What a run's events tell; None where they cannot be read: it has none yet, or its folder was taken away."""
    try:
        return view_of(run.folder.events) if run.folder is not None else None
    except OSError:
        return None


def _logout_warning() -> str:
    """On systems that end all of a user's processes at logout: how to be spared."""
    if not _kills_at_logout() or (_LINGER / getpass.getuser()).exists():
        return ""
    return "This system ends it when you log out; `loginctl enable-linger` spares it.\n"


def _kills_at_logout() -> bool:
    kills = False
    for place in map(Path, _LOGIND):
        for path in sorted(place.glob("*.conf")) if place.is_dir() else [place]:
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            for line in text.splitlines():
                key, _, value = line.partition("=")
                if key.strip() == "KillUserProcesses":
                    kills = value.strip().lower() in ("yes", "true", "1", "on")
    return kills

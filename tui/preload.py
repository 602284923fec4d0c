"""Imports what the screen may need later, in a thread after the first frame.

A host may live for days, and lorakiln may be updated under it: what was imported is of one version, and a screen
that was imported only when it is opened would be of another. What begins a run is left out: it brings torch.
"""

from __future__ import annotations

import importlib

LATER = (
    "engine.config_file",
    "engine.config_writer",
    "engine.dataset.applying",
    "engine.dataset.decoder",
    "engine.dataset.prompts",
    "engine.jobs",
    "profiles.presets",
    "profiles.prompts",
    "profiles.starters",
    "tui.captioning",
    "tui.keymap",
    "tui.keys.active",
    "tui.batch",
    "tui.machine",
    "tui.opening",
    "tui.palette",
    "tui.plan",
    "tui.reporting.writing",
    "tui.run_shelf",
    "tui.screens.balance",
    "tui.screens.blend",
    "tui.screens.blind",
    "tui.screens.compare",
    "tui.screens.conflict",
    "tui.screens.crop",
    "tui.screens.dialogs",
    "tui.screens.epoch_pair",
    "tui.screens.epochs",
    "tui.screens.filling",
    "tui.screens.findings",
    "tui.screens.help",
    "tui.screens.jump",
    "tui.screens.large_picture",
    "tui.screens.machine",
    "tui.screens.outside",
    "tui.screens.pick",
    "tui.screens.replace",
    "tui.screens.resume",
    "tui.screens.review",
    "tui.screens.runs",
    "tui.screens.setup",
    "tui.screens.take",
    "tui.screens.verdict",
    "tui.screens.wizard",
    "tui.screens.words",
    "tui.terminal.lending",
    "tui.widgets.braille",
    "tui.wizard.profiles",
)


def load_rest() -> None:
    """Import it all."""
    for name in LATER:
        importlib.import_module(name)

"""Exports pictures of the real screens on a real run: ``python -m tests.screenshot DIR [WORK_FOLDER]``.

The wizard is shown on a card that is described, with model files of FLUX.1-dev's sizes: its plan is the solver's own.
The pictures name the work folder, and the folder that the program lies in.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from engine.commands import Pause, StopNow
from engine.config import RunConfig
from engine.models.autoencoder_layout import AutoencoderSizes, autoencoder_layout
from engine.models.flux import FluxParams
from engine.models.flux_layout import flux_layout
from engine.models.text_layout import ClipSizes, T5Sizes, clip_layout, t5_layout
from engine.run import Run
from profiles.machine import imagined_machine
from profiles.starters import demo_config
from tui.app import KilnApp
from tui.screens.epochs import EpochsScreen
from tui.screens.wizard import WizardScreen
from tui.setup.folders import lay_out
from tui.terminal.traits import Traits
from tui.view import RunView
from tui.wizard.planner import Place
from tui.wizard.profiles import Profiles
from tui.workplace import Workplace

WIDE, SMALL = (160, 45), (80, 24)

SHOTS: tuple[tuple[str, tuple[int, int], tuple[str, ...]], ...] = (
    ("workbench", WIDE, ("1", "down", "down")),
    ("training", WIDE, ("3", "z")),
    ("dataset-80x24", SMALL, ("z", "1")),
    ("caption-80x24", SMALL, ("2",)),
    ("training-80x24", SMALL, ("3",)),
    ("setup", WIDE, ("ctrl+n",)),
    ("runs", WIDE, ("escape", "escape", "3", "r")),
    ("epochs", WIDE, ("escape", "3", "e")),
)
"""Name, size and the keys pressed on the way from the picture before."""

FIT = ("pagedown",) * 4

WIZARD: tuple[tuple[str, tuple[int, int], tuple[str, ...]], ...] = (
    ("wizard", WIDE, (*FIT, *("tab",) * 5)),
    ("wizard-80x24", SMALL, ("pagedown",)),
)
"""As above, from the wizard's first page on."""

CARD = "RTX 3060 12 GB"

WAITING = "░" * 20
"""What a picture that is not drawn yet looks like."""

LEFT = 0.35
"""Part of the run that is still ahead in the picture."""


def shows_concept(view: RunView) -> bool:
    """Whether the newest sample, which the screen shows, is of the concept."""
    return bool(view.samples) and "zorple" in view.samples[-1].prompt and view.state != "sampling"


def worth_a_picture(view: RunView) -> bool:
    """Whether the run is training, and far enough."""
    far = view.steps > 0 and view.step >= (1 - LEFT) * view.steps
    return far and shows_concept(view) and view.state in ("training", "paused")


async def drawn(app: KilnApp, pilot: Pilot[None]) -> str:
    """The screen as SVG, once the threads that shrink pictures have caught up."""
    for _ in range(25):
        await pilot.pause(0.2)
        svg = app.export_screenshot(title="kiln")
        read = not isinstance(app.screen, EpochsScreen) or app.screen.ready
        if read and WAITING not in svg and shows_concept(app.workplace.view):
            break
    return svg


def own_config(folder: Path) -> RunConfig:
    """The demonstration on a copy of its pictures, as the setup form lays them out: a dataset of the user's own."""
    layout = lay_out(folder, demo=True)
    values = demo_config(layout.model).model_dump() | {"name": folder.name}
    mine, others = values["dataset"]["folders"]
    values["dataset"]["folders"] = [mine | {"path": layout.image}, others | {"path": layout.classes}]
    return RunConfig.model_validate(values)


async def photograph(folder: Path, out: Path) -> None:
    """Run the demonstration and export the screens near its end."""
    run = Run(own_config(folder))
    app = KilnApp(Workplace.around(run, folder), Traits())
    async with app.run_test(size=WIDE) as pilot:
        while not worth_a_picture(app.workplace.view):
            await pilot.pause(0.1)
            if run.exit_reason is not None:
                raise SystemExit(f"the run {run.exit_reason} before there was a picture to take")
        run.submit(Pause())
        for name, size, keys in SHOTS:
            await pilot.resize_terminal(*size)
            for key in keys:
                await pilot.press(key)
                await pilot.pause(0.5)
            path = out / f"{name}.svg"
            path.write_text(await drawn(app, pilot), encoding="utf-8")
            print(path)
        run.submit(StopNow())
    run.join()


class Described(Profiles):
    """The planner of a machine that is not this one."""

    def places(self, cache_dir: Path, runs_dir: Path) -> tuple[Place, ...]:
        """A card that many have."""
        machine = replace(imagined_machine(gpu_name=CARD, ram_gb=32.0), remarks=())
        return (Place("cuda:0", CARD, "The only card; a quiet desktop holds 0.5 GB of it.", machine),)


def hollow(path: Path, layout: Mapping[str, tuple[int, ...]]) -> None:
    """A model file of full size that is all header and no data: enough to plan with."""
    at, header = 0, {}
    for name, shape in layout.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(file.tell() + at)


async def photograph_wizard(folder: Path, out: Path) -> None:
    """Export the wizard for a new run on FLUX.1-dev."""
    lay_out(folder, demo=True)
    models = folder / "models"
    models.mkdir(exist_ok=True)
    hollow(models / "flux1-dev.safetensors", flux_layout(FluxParams().to_dict()))
    hollow(models / "ae.safetensors", autoencoder_layout(AutoencoderSizes()))
    hollow(models / "clip_l.safetensors", clip_layout(ClipSizes()))
    hollow(models / "t5xxl_fp16.safetensors", t5_layout(T5Sizes()))
    app = KilnApp(Workplace(folder), Traits())
    async with app.run_test(size=WIDE) as pilot:
        screen = WizardScreen(app.workplace, Described())
        await app.push_screen(screen)
        for name, size, keys in WIZARD:
            await pilot.resize_terminal(*size)
            await pilot.pause(1.0)
            for key in keys:
                while screen.finds is None or screen.busy:
                    await pilot.pause(0.1)
                await pilot.press(key)
                await pilot.pause(0.3)
            path = out / f"{name}.svg"
            path.write_text(app.export_screenshot(title="kiln"), encoding="utf-8")
            print(path)


if __name__ == "__main__":
    destination = Path(sys.argv[1])
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        work = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(place) / "zorple"
        work.mkdir(parents=True, exist_ok=True)
        asyncio.run(photograph(work, destination))
        asyncio.run(photograph_wizard(work.parent / "portrait", destination))

"""The trackers there are, TensorBoard and Weights & Biases, through accelerate's; imported only where asked for.

Both go on where they were when a run is resumed: TensorBoard hides what it was told after the step gone on from;
Weights & Biases knows the run by an id kept in the run's folder, and keeps what it was told of a step first, which is
the same: a resumed run repeats its steps exactly.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import RunConfig
from engine.errors import RunError
from engine.files import atomic_write, open_to_read
from engine.sealed import sealed, unsealed
from engine.text import safe_text
from engine.training.tracking import LAST_S, Beginning, Make, Tracker, Tracking, settings_of

if TYPE_CHECKING:
    import numpy as np

    from engine.events import EventLog

ID_NAME = "tracking.json"
MOST_BYTES = 4096

QUIET: dict[str, Any] = {
    "console": "off", "silent": True, "disable_git": True, "disable_code": True, "save_code": False,
    "x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False,
    "finish_timeout": LAST_S, "host": "-",
}  # fmt: skip
"""What Weights & Biases is not to do: catch what is printed, look at the machine, its programs and their sources,
wait for the network without end."""

_ID = re.compile(r"[0-9a-f]{16}")


def require_trackers(config: RunConfig) -> None:
    """Check that what the configuration asks for is installed.

    Raises:
        RunError: it is not; with what to install.
    """
    wanted = {"tensorboard": config.tracking.tensorboard, "wandb": bool(config.tracking.wandb)}
    for module, asked in wanted.items():
        if asked and importlib.util.find_spec(module) is None:
            raise RunError(
                f"{module} is not installed",
                f"tracking.{module} asks for it",
                f'pip install "lorakiln[{module}]", or take it out of [tracking].',
            )


def track(config: RunConfig, events: EventLog) -> Tracking | None:
    """Begin to tell the trackers that the configuration asks for of a run; None where it asks for none."""
    makers: dict[str, Make] = {}
    if config.tracking.tensorboard:
        makers["TensorBoard"] = partial(TensorBoard, logs=config.tracking.folder)
    if config.tracking.wandb:
        makers["Weights & Biases"] = partial(WeightsAndBiases, project=config.tracking.wandb)
    if not makers:
        return None
    tracking = Tracking(events, makers, settings_of(config))
    tracking.start()
    return tracking


class TensorBoard(Tracker):
    """Logs for TensorBoard.

    Args:
        logs: the folder for those of all runs; None for the run's own.
    """

    def __init__(self, begin: Beginning, logs: Path | None = None) -> None:
        from accelerate.tracking import TensorBoardTracker

        parent, name = (begin.folder, "tensorboard") if logs is None else (logs, begin.folder.name)
        _refuse_link(parent / name)
        resumed = {"purge_step": begin.resumed_step + 1} if begin.resumed_step else {}
        self._tracker = TensorBoardTracker(name, parent, **resumed)
        self._tracker.start()
        if not begin.resumed_step:
            rows = [f"| {name} | {value} |" for name, value in begin.settings.items()]
            self._tracker.log({"settings": "\n".join(["| setting | value |", "|---|---|", *rows])}, step=0)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers."""
        self._tracker.log(dict(values), step=step)

    def picture(self, name: str, path: Path, caption: str, step: int) -> None:
        """Write a picture; its caption is its name's."""
        self._tracker.log_images({name: _pixels(path)[None]}, step=step, dataformats="NHWC")
        self._tracker.tracker.flush()

    def finish(self) -> None:
        """Close the file."""
        self._tracker.finish()


class WeightsAndBiases(Tracker):
    """A run at Weights & Biases; sends numbers, settings and pictures, and nothing of the machine or the program."""

    def __init__(self, begin: Beginning, project: str) -> None:
        # Never a question on the terminal, which may be a full screen: without a key it fails and says so.
        os.environ.setdefault("WANDB_SILENT", "true")
        # Reports of its own errors carry paths and what is installed, and no setting switches them off.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb
        from accelerate.tracking import WandBTracker

        _refuse_link(begin.folder / "wandb")
        # Versions differ in what they know.
        settings = wandb.Settings(**{name: value for name, value in QUIET.items() if name in _known(wandb.Settings)})
        self._image = wandb.Image
        self._tracker = WandBTracker(
            project,
            name=begin.name,
            id=wandb_id(begin.folder),
            resume="allow",
            dir=str(begin.folder),
            settings=settings,
        )
        self._tracker.start()
        if not begin.resumed_step:
            self._tracker.store_init_configuration(dict(begin.settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers."""
        self._tracker.log(dict(values), step=step)

    def picture(self, name: str, path: Path, caption: str, step: int) -> None:
        """Send a picture with its caption."""
        self._tracker.log({name: [self._image(_pixels(path), caption=caption)]}, step=step)

    def finish(self) -> None:
        """Send what is left."""
        self._tracker.finish()


def wandb_id(folder: Path) -> str:
    """The run's id at Weights & Biases, as kept in its folder; a new one where none is, or none that can be read.

    Raises:
        DiskError: a new one cannot be kept.
    """
    path = folder / ID_NAME
    with contextlib.suppress(OSError, ValueError):
        with open_to_read(path) as file:
            table: Any = unsealed(file.read(MOST_BYTES))
        found = table.get("wandb") if isinstance(table, dict) else None
        if isinstance(found, str) and _ID.fullmatch(found):
            return found
    made = secrets.token_hex(8)
    atomic_write(path, sealed(json.dumps({"version": 1, "wandb": made})) + "\n")
    return made


def _known(settings: Any) -> Iterable[str]:
    return getattr(settings, "model_fields", ())


def _pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture that the run has just drawn, (H, W, 3)."""
    import numpy as np
    from PIL import Image

    with open_to_read(path) as file, Image.open(file, formats=("PNG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def _refuse_link(path: Path) -> None:
    """In a folder that somebody sent a link could lead anywhere.

    Raises:
        RunError: it is one.
    """
    if path.is_symlink():
        raise RunError("The tracker's folder is a link", f"{safe_text(path)} would be written through")

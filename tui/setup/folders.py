"""Lays out a new dataset: image, log and model folders, and the demonstration's pictures when asked for.

Only makes what is not there: no file that exists is written to, moved or removed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from engine.dataset.pairs import PICTURES
from engine.errors import DatasetError
from engine.files import disk_error
from engine.text import safe_text
from profiles.presets import DEMO_CLASS_PICTURES, DEMO_PICTURES

LOG_NOTE = """\
Where the logs are, from the folder above:
  log/host.log             what the program itself prints, where kiln was started in that folder
                           (started elsewhere, it writes .kiln/host.log there)
  model/NAME/log.txt       warnings and tracebacks of the run NAME
  model/NAME/events.jsonl  everything the run told: losses, files, samples
Your own notes may lie here too; lorakiln touches nothing but host.log and host.old.
"""


@dataclass(frozen=True)
class Layout:
    """The folders of one dataset."""

    root: Path

    @property
    def image(self) -> Path:
        """Pictures and captions."""
        return self.root / "image"

    @property
    def classes(self) -> Path:
        """Pictures of the class without the concept; made only for the demonstration's."""
        return self.root / "class"

    @property
    def log(self) -> Path:
        """Notes."""
        return self.root / "log"

    @property
    def model(self) -> Path:
        """The runs, each in a folder of its own with its LoRA files."""
        return self.root / "model"


def layout_for(folder: Path) -> Layout:
    """The layout whose pictures lie in ``folder``, or that ``folder`` becomes the root of."""
    return Layout(folder.parent if folder.name == "image" else folder)


def lay_out(folder: Path, demo: bool = False) -> Layout:
    """Make the folders; with ``demo`` copy the demonstration's pictures in where no file of that name stands.

    Raises:
        DatasetError: something that is no folder stands where one is wanted.
        DiskError: a folder or file cannot be made.
    """
    layout = layout_for(folder)
    try:
        for wanted in (layout.image, layout.log, layout.model):
            wanted.mkdir(parents=True, exist_ok=True)
        note = layout.log / "README.txt"
        if not os.path.lexists(note):
            note.write_text(LOG_NOTE, encoding="utf-8")
        if demo:
            _copy(DEMO_PICTURES, layout.image)
            _copy(DEMO_CLASS_PICTURES, layout.classes)
    except FileExistsError as err:
        detail = f"{safe_text(err.filename, 400)} is no folder"
        raise DatasetError("The folders cannot be made", detail, "Choose another place.") from err
    except OSError as err:
        raise disk_error(err, layout.root) from err
    return layout


def _copy(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for file in sorted(source.iterdir()):
        place = target / file.name
        if file.suffix in (".png", ".txt") and not os.path.lexists(place):
            shutil.copyfile(file, place)


def guess_folder(work: Path) -> str:
    """The dataset folder to offer in a work folder, as typed there."""
    for name in ("image", "pictures", "images", "dataset"):
        if (work / name).is_dir():
            return name
    names = {entry.suffix.lower() for entry in work.iterdir() if entry.is_file()} if work.is_dir() else set()
    return "." if names & PICTURES else "image"

"""Taking an epoch along: its file under a name of its own, into the folder of the program that draws with it.

Comes in: a run's folder and an epoch. Goes out: a copy, never over a file that stands there unless asked to, and the
words to use it by. No screen: `kiln use` and the epochs screen both call this.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from engine.errors import DiskError, EngineError, RunError
from engine.files import atomic_path
from engine.models.header import read_header
from engine.text import safe_text
from engine.training.advisor import Advice
from tui.epochs import EpochRow
from tui.judged import Judged
from tui.usage_words import Usage, usages

ENDING = ".safetensors"
LONGEST_NAME = 200
STACKING = (
    "With other LoRAs\n  Lower each to 0.5 to 0.7, and look at both alone and together: two that learned the same\n"
    "  kind of thing (two faces, two styles) push each other away."
)

_USUAL = (
    ("ComfyUI", ("ComfyUI/models/loras", "comfyui/models/loras", "comfy/ComfyUI/models/loras")),
    (
        "Forge",
        (
            "stable-diffusion-webui-forge/models/Lora", "sd-webui-forge/models/Lora", "forge/models/Lora",
            "stable-diffusion-webui-reForge/models/Lora",
        ),
    ),
    ("SwarmUI", ("SwarmUI/Models/Lora",)),
    ("InvokeAI", ("invokeai/autoimport/lora",)),
)  # fmt: skip
"""Folders below a place where programs are installed."""

_PLACES = (".", "ai", "AI", "apps", "src", "git", "projects", "Documents")
"""Where programs are installed, below the home folder."""


class NameTaken(RunError):
    """A file of that name stands there already."""


@dataclass(frozen=True)
class Target:
    """A folder where a program looks for LoRA files."""

    program: str
    folder: Path


@dataclass(frozen=True)
class Use:
    """How a file that was taken is used: first a remark, if there is one, then program by program."""

    programs: tuple[Usage, ...]
    remark: str = ""

    @property
    def text(self) -> str:
        """All of it, to be shown or copied."""
        parts = [self.remark] if self.remark else []
        for one in self.programs:
            snippet = "\n".join(f"    {line}".rstrip() for line in one.snippet.split("\n"))
            parts.append(
                f"{one.title}\n{fill(one.words, 84, initial_indent='  ', subsequent_indent='  ')}\n\n{snippet}"
            )
        return "\n\n".join((*parts, STACKING)) + "\n"

    def snippet(self, title: str) -> str:
        """What is to be copied for one program."""
        return next(one.snippet for one in self.programs if one.title.startswith(title))


def epoch_to_take(rows: Sequence[EpochRow], judged: Judged, advice: Advice) -> int:
    """The epoch that is meant where none is named: the one taken before, the advised one, the last with a file.

    Raises:
        RunError: no epoch has a file.
    """
    saved = [row.epoch for row in rows if row.lora]
    if not saved:
        raise RunError("The run has no LoRA file", "none was saved, or all were removed", "")
    if judged.chosen in saved:
        return judged.chosen
    # The advised epoch may have no file of its own: the nearest that has one is the best guess.
    return min(saved, key=lambda epoch: abs(epoch - advice.best)) if advice.best else saved[-1]


def file_of(rows: Sequence[EpochRow], epoch: int) -> Path:
    """The LoRA file that stands for ``epoch``.

    Raises:
        RunError: it has none.
    """
    found = next((row.lora for row in rows if row.epoch == epoch), None)
    if found is None:
        saved = [str(row.epoch) for row in rows if row.lora]
        there = f"files there are of the epochs {', '.join(saved)}" if saved else "the run has no file at all"
        raise RunError(f"Epoch {epoch} has no LoRA file", there, "Take another epoch, or save more often.")
    return found


def usual_name(run: str, epoch: int, source: Path) -> str:
    """What a copy is called unless the user says otherwise: run, epoch, and the layout where it is unusual."""
    layout = ".diffusers" if source.name.endswith(f".diffusers{ENDING}") else ""
    return f"{run}-e{epoch:04d}{layout}{ENDING}"


def found_targets(home: Path, hints: Iterable[Path] = ()) -> list[Target]:
    """The folders there are: below ``home``, and of programs that one of ``hints`` (models in use) belongs to.

    Looks at the disk, at a fixed number of names.
    """
    roots = [parent for hint in hints for parent in hint.absolute().parents if parent.name.lower() == "models"]
    asked = [
        *(Target("ComfyUI", root / "loras") for root in roots),
        *(Target("Forge", root / "Lora") for root in roots),
        *(
            Target(program, home / place / name)
            for program, names in _USUAL
            for name in names
            for place in _PLACES
        ),
    ]  # fmt: skip
    found: dict[str, Target] = {}
    for target in asked:
        if target.folder.is_dir():
            found.setdefault(os.path.realpath(target.folder), Target(target.program, target.folder))
    return list(found.values())


def checked_name(name: str) -> str:
    """``name`` as a file's name, with its ending.

    Raises:
        RunError: it is none.
    """
    name = name.strip()
    name = name if name.endswith(ENDING) else name + ENDING
    wrong = name == ENDING or name.startswith(".") or "/" in name or "\\" in name or safe_text(name) != name
    if wrong or len(os.fsencode(name)) > LONGEST_NAME:
        raise RunError("That is no name for a file", safe_text(name, 100), "Letters, digits, dash and dot are safe.")
    return name


def take(source: Path, folder: Path, name: str, replace: bool = False) -> Path:
    """Copy a LoRA file into ``folder``, wholly or not at all.

    Raises:
        NameTaken: a file stands there, and ``replace`` is not asked for.
        RunError: the name is none, or the source is no LoRA file.
        DiskError: there is no such folder, or it cannot be written; nothing was changed.
    """
    target = folder / checked_name(name)
    if not folder.is_dir():
        raise DiskError("There is no such folder", safe_text(folder), "Make it first, or choose another.")
    if target.exists() and os.path.samefile(source, target):
        return target
    read_header(source)  # a damaged file is told of here, not by the program that loads it

    def free() -> None:
        if os.path.lexists(target) and not replace:
            raise NameTaken("A file of that name is there", safe_text(target), "Choose another name, or replace it.")

    free()
    with atomic_path(target) as temp:
        try:
            shutil.copyfile(source, temp)
        except FileNotFoundError as err:
            raise RunError("The LoRA file is gone", safe_text(source), "Take another epoch.") from err
        free()
    return target


def use_of(path: Path, trigger: str = "", variant: str = "dev", demo: bool = False) -> Use:
    """How the file at ``path`` is used.

    Args:
        path: the LoRA file, where it lies now.
        trigger: the run's trigger word, if it has one.
        variant: of the model it was trained on.
        demo: it was trained on the demonstration's model, which no other program has.
    """
    try:
        layout = layout_of(path)
    except EngineError:
        layout = "kohya"
    only = "This LoRA fits the demonstration's tiny model alone: `kiln sample` draws with it."
    return Use(usages(path.name, layout, trigger, variant), only if demo else "")


def layout_of(path: Path) -> str:
    """One of :data:`tui.usage_words.LAYOUTS`, by the names of the file's tensors.

    Raises:
        EngineError: the file cannot be read.
    """
    names = read_header(path).tensors
    return "diffusers" if any(name.startswith("transformer.") for name in names) else "kohya"

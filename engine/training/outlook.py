"""What resuming a run would do, looked at before anything is loaded: from where it goes on, and what changed since.

Reads the run's folder, the dataset's folders and a few pieces of the model files; changes nothing, needs no lock and
no torch. The engine's own thread compares again when it resumes, with what only it can know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.config import RunConfig
from engine.dataset.captions import read_caption
from engine.dataset.history import read_history
from engine.dataset.scan import trained_pairs
from engine.errors import DatasetError
from engine.events import Changed
from engine.files import RunFolder
from engine.models.header import file_fingerprint
from engine.text import safe_text
from engine.training.changes import LATER, REFUSED, ROUNDING, compare
from engine.training.generations import Generation, read_newest
from engine.training.record import MODEL_FILES, installed, load_record, look


@dataclass(frozen=True)
class Outlook:
    """From where a run would go on, and with what differences.

    Attributes:
        step: optimizer steps that the state to go on from has done; 0 where none was saved.
        epoch: the epoch of the last of them.
        damaged: a line for each newer state that is damaged.
        changes: what is not as it was, the gravest first.
        told_whole: whether all settings and pictures could be compared; a state of an earlier version does not say
            them.
    """

    step: int = 0
    epoch: int = 0
    damaged: tuple[str, ...] = ()
    changes: tuple[Changed, ...] = ()
    told_whole: bool = True


def look_ahead(folder: RunFolder, config: RunConfig) -> Outlook:
    """Look at what resuming the run in ``folder`` as ``config`` says would do.

    Raises:
        DatasetError: a folder of its pictures, or a picture in it, cannot be read.
        DiskError: the run's captions cannot be read.
        ModelFileError: a model file cannot be read.
        RunError: no state of it can be read although there are some.
    """
    for part in config.dataset.folders:
        if not part.path.is_dir():
            raise DatasetError(
                "The run's pictures are gone",
                f"there is no folder {safe_text(part.path)}",
                f"Put it back, or write where it is now into dataset.folders of {safe_text(folder.config)}.",
            )
    table, damaged = read_newest(folder.states, _table)
    if table is None:
        return Outlook()
    place = table["place"]
    record = load_record(folder.records, str(table.get("record", "")))
    changes = compare(record, look(config, record)) if record is not None else _by_digest(config, table["identity"])
    edited = _edited_captions(folder, config, int(place["epoch"]))
    return Outlook(
        int(place["step"]), int(place["epoch"]), tuple(damaged), (*changes, *edited), told_whole=record is not None
    )


def _table(generation: Generation) -> dict[str, Any]:
    table = generation.table
    if not isinstance(table["place"]["step"], int) or not isinstance(table["identity"], dict):
        raise ValueError("its place is not one")
    return table


def _by_digest(config: RunConfig, identity: dict[str, str]) -> list[Changed]:
    """What a state without a record tells; its settings and pictures are compared when it goes on."""
    found = []
    mark = file_fingerprint(config.model.transformer)
    if (old := identity.get("base model", mark)) != mark:
        found.append(Changed(REFUSED, MODEL_FILES["transformer"], old[:12], mark[:12]))
    torch_now = installed("torch")
    if (old := identity.get("torch version", torch_now)) != torch_now:
        found.append(Changed(ROUNDING, "torch version", old, torch_now))
    return found


def _edited_captions(folder: RunFolder, config: RunConfig, epoch: int) -> list[Changed]:
    """Captions edited while nobody trained; they count from an epoch that was neither begun nor decided."""
    history = read_history(folder.captions)
    known, edited = history.latest(), []
    for pair in trained_pairs(config.dataset):
        old = known.get(str(pair.path))
        if old is None or pair.caption is None:
            continue
        try:
            if read_caption(pair.caption) != old:
                edited.append(pair.name)
        except DatasetError:  # the run goes on with the text it had, and says so
            continue
    if not edited:
        return []
    first = max(epoch, history.decided) + 1
    names = ", ".join(edited[:3]) + (f" and {len(edited) - 3} more" if len(edited) > 3 else "")
    return [Changed(LATER, "captions edited", "", f"{names}, from epoch {first} on")]

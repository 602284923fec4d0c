"""What the setup form says under each field, and about the steps: from the values and from what was found on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engine.dataset.problems import Problem
from engine.dataset.scan import Scan
from engine.errors import EngineError
from engine.text import safe_text
from profiles.presets import preset
from tui.machine import NO_GPU
from tui.setup.fields import FILES, OWN, POCKET, SLOTS
from tui.setup.form import Checked, SetupForm
from tui.setup.models import Finds, Verdict
from tui.setup.steps import count_steps

if TYPE_CHECKING:
    from tui.workplace import Workplace


@dataclass(frozen=True)
class Note:
    """Words under a field; ``kind`` is "bad", "good", "changed" or ""."""

    text: str
    kind: str = ""


class Known(Protocol):
    """What the notes are made from."""

    form: SetupForm
    checked: Checked
    finds: Finds | None
    verdicts: dict[str, Verdict]
    scan: Scan | EngineError | None
    workplace: Workplace


def notes_of(known: Known) -> dict[str, Note]:
    """The note of every field that has one."""
    notes = _optimizer_note(known)
    notes |= {name: Note("changed as advised", "changed") for name in known.form.changed}
    notes |= _model_notes(known) | _preset_note(known)
    notes |= {name: Note(text, "bad") for name, text in known.checked.problems.items() if name not in SLOTS}
    if "folder" not in known.checked.problems:
        notes |= _dataset_notes(known)
    return notes


def _model_notes(known: Known) -> dict[str, Note]:
    if known.form.values["base"] == FILES:
        told = {slot: known.verdicts[slot] for slot in SLOTS if slot in known.verdicts}
        return {slot: Note(verdict.text, "good" if verdict.good else "bad") for slot, verdict in told.items()}
    if known.finds is None:
        return {"base": Note("looking for FLUX.1 files on this machine...")}
    missing = [slot for slot in SLOTS if not known.finds[slot]]
    if not missing:
        return {"base": Note("FLUX.1 was found on this machine: right arrow takes it")}
    return {"base": Note("Trains in about a minute without a GPU. FLUX.1 itself: right arrow says what is needed")}


def _preset_note(known: Known) -> dict[str, Note]:
    base, name = known.form.values["base"], known.form.values["preset"]
    notes = [*known.form.notes, *known.checked.others]
    kind = "bad" if known.checked.others else "changed"
    if notes:
        return {"preset": Note("; ".join(notes), kind)}
    if name != OWN and (base == POCKET) != (name == POCKET):
        other = "pocket demo" if base == POCKET else "character, style or concept"
        model = "The pocket model" if base == POCKET else "FLUX.1"
        return {"preset": Note(f"{model} goes with the preset {other}", "changed")}
    return {} if name == OWN else {"preset": Note(preset(name).about)}


def _optimizer_note(known: Known) -> dict[str, Note]:
    """bitsandbytes has kernels for a processor too: right, but slower than torch's own."""
    config, name = known.checked.config, known.form.values["optimizer"]
    no_gpu = known.workplace.machine == NO_GPU or (config is not None and config.training.device == "cpu")
    if not no_gpu or not ("8bit" in name or name.startswith("paged")):
        return {}
    return {"optimizer": Note("No GPU: it works on a processor too, but adamw is quicker there")}


def _dataset_notes(known: Known) -> dict[str, Note]:
    scan = known.scan
    if scan is None:
        return {"folder": Note("counting the pictures...")}
    if isinstance(scan, EngineError):
        return {"folder": Note(f"{scan.title}: {scan.detail}. {scan.hint}", "bad")}
    inside = safe_text(known.form.folder / known.form.values["class_folder"].strip())
    class_given = bool(known.form.values["class_folder"].strip())
    of_class = [found for found in scan.problems if class_given and found.path.startswith(inside)]
    own = [found for found in scan.problems if found not in of_class]
    notes = {"folder": _folder_note(scan, own)}
    if class_given:
        count = sum(sample.regularization for sample in scan.samples)
        worst = next((found for found in of_class if found.severity == "error"), None)
        notes["class_folder"] = Note(worst.message, "bad") if worst else Note(f"{count} pictures", "good")
    return notes | _mask_notes(known, scan)


def _mask_notes(known: Known, scan: Scan) -> dict[str, Note]:
    """How many pictures have a mask, where they come from files: one that has none counts in full."""
    if known.form.values["masks"] != "folder" or not scan.samples:
        return {}
    count = sum(sample.mask is not None for sample in scan.samples)
    told = f"{count} of {len(scan.samples)} pictures have a mask"
    return {"mask_folder": Note(told, "good") if count else Note(f"{told}: all of them counts", "changed")}


def _folder_note(scan: Scan, found: list[Problem]) -> Note:
    samples = [sample for sample in scan.samples if not sample.regularization]
    errors = [problem for problem in found if problem.severity == "error"]
    if any(problem.code == "missing-folder" for problem in errors):
        return Note("There is no such folder. F6 lays it out, with example pictures if you like", "bad")
    if errors:
        first = errors[0]
        name = first.path.rpartition("/")[2]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        return Note(f"{name}: {first.message}{more}. {first.hint}", "bad")
    if not samples:
        return Note("No pictures there yet. Copy some in, or F6 lays out folders with example pictures", "bad")
    bare = sum(not sample.caption for sample in samples)
    words = f"{len(samples)} pictures, {len(samples) - bare} captions"
    words += f", {scan.excluded} excluded" if scan.excluded else ""
    warnings = len(found)
    return Note(words + (f", {warnings} warnings" if warnings else ""), "good")


def steps_line(known: Known) -> str:
    """How many steps the run will have, or why that is not known yet."""
    config, scan = known.checked.config, known.scan
    if config is None:
        return "Steps: once the fields are right"
    if not isinstance(scan, Scan):
        return "Steps: counting the pictures..." if scan is None else "Steps: once the dataset is right"
    if not scan.samples:
        return "Steps: once there are pictures"
    try:
        return count_steps(scan.samples, config).text()
    except EngineError as err:
        return f"{err.title}: {err.detail}"

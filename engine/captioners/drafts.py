"""Captions that a machine made, beside the pictures and apart from their captions, until somebody decides.

One file for each picture and model, ``.lorakiln/captions-by-machine/MODEL/PICTURE.json`` in the picture's own folder:
the text, the model, the prompt, when it was made, the picture's size on disk at that time, and what was decided of
it. A folder whose name begins with a dot is no part of a dataset, so nothing in it is taken for a caption. The files
may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from engine.captioners.answers import cleaned
from engine.dataset.regular import read_limited
from engine.errors import DatasetError
from engine.files import atomic_write, slug
from engine.sealed import sealed, unsealed
from engine.text import safe_text

HOME = ".lorakiln"
PLACE = "captions-by-machine"
MAX_DRAFT_BYTES = 256 * 1024
LONGEST_NAME = 200

TAKEN, IN_PART, REFUSED = "taken", "in part", "refused"
VERDICTS = ("", TAKEN, IN_PART, REFUSED)


@dataclass(frozen=True)
class Draft:
    """A text for one picture.

    Attributes:
        text: the caption, if it is taken.
        model: what made it.
        prompt: what was asked, trigger word and thresholds included.
        made_at: Unix seconds.
        picture_bytes: size of the picture's file then: another one is another picture.
        verdict: "" while nobody has decided; else one of :data:`VERDICTS`.
    """

    text: str
    model: str
    prompt: str
    made_at: float
    picture_bytes: int
    verdict: str = ""


def draft_path(picture: Path, model: str) -> Path:
    """Where the text that ``model`` made for ``picture`` is kept."""
    name = picture.name
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return picture.parent / HOME / PLACE / slug(model, "model") / f"{name}.json"


def save_draft(picture: Path, draft: Draft) -> None:
    """Keep ``draft`` for ``picture``, in place of an earlier one of that model.

    Raises:
        DatasetError: a link stands where the folder should be: what is written must stay with the pictures.
        DiskError: it could not be written.
    """
    path = draft_path(picture, draft.model)
    for folder in (path.parent.parent.parent, path.parent.parent, path.parent):
        if folder.is_symlink():
            raise DatasetError(
                "Machine captions cannot be kept there", f"{safe_text(folder)} is a link", "Remove the link."
            )
    atomic_write(path, sealed(json.dumps({"version": 1, **asdict(draft)}, ensure_ascii=True)) + "\n")


def load_draft(path: Path) -> Draft | None:
    """The draft that a file holds; None where there is no file.

    Raises:
        DatasetError: it cannot be read, or is damaged.
    """
    if not os.path.lexists(path):
        return None
    data = read_limited(path, MAX_DRAFT_BYTES)
    try:
        if len(data) > MAX_DRAFT_BYTES:
            raise ValueError("it is too large")
        table = unsealed(data)
        if not isinstance(table, dict) or table.get("version") != 1:
            raise ValueError("it is of another version")
        values = {field.name: table.get(field.name) for field in fields(Draft)}
        if not all(isinstance(values[name], str) for name in ("text", "model", "prompt")):
            raise ValueError("text, model or prompt is missing")
        if not all(isinstance(values[name], int | float) for name in ("made_at", "picture_bytes")):
            raise ValueError("time or size is missing")
        if values["verdict"] not in VERDICTS:
            raise ValueError("what was decided makes no sense")
        if cleaned(str(values["text"])) != values["text"] or safe_text(values["model"], 400) != values["model"]:
            raise ValueError("it holds what no such file does")
    except ValueError as err:
        hint = "Delete it: the text is made anew when it is asked for."
        raise DatasetError(
            "A machine's caption is damaged", f"{safe_text(path)}: {safe_text(err, 200)}", hint
        ) from err
    return Draft(**values)  # type: ignore[arg-type]


def size_of(picture: Path) -> int:
    """Bytes of the picture's file; -1 where there is none."""
    try:
        return os.stat(picture).st_size
    except OSError:
        return -1


def drafts_of(pictures: Iterable[Path]) -> Iterator[tuple[Path, Draft | DatasetError]]:
    """Every text kept for ``pictures``, picture by picture, models in the order of their names.

    A damaged file comes as its error. Texts for a picture that is another one by now are left out. Reads the disk.
    """
    models: dict[Path, list[str]] = {}
    for picture in pictures:
        folder = picture.parent / HOME / PLACE
        if folder not in models:
            models[folder] = _models_in(folder)
        for model in models[folder]:
            try:
                draft = load_draft(draft_path(picture, model))
            except DatasetError as err:
                yield picture, err
                continue
            if draft is not None and slug(draft.model, "model") == model and draft.picture_bytes == size_of(picture):
                yield picture, draft


def _models_in(folder: Path) -> list[str]:
    if folder.is_symlink() or folder.parent.is_symlink():
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []

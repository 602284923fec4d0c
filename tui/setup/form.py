"""The setup form as data: what is typed, the configuration it makes, and what is wrong with it.

Holds one text per field (the session's, so that it outlives the screen) and turns them into a configuration table,
checked with the same schema as a file. What the form has no field for comes from the preset, or from the run that was
duplicated. Nothing here looks at the disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.config_file import examine
from engine.config_writer import table_text
from engine.errors import ConfigError
from engine.files import slug
from profiles.presets import DEMO_TRIGGER, TRIGGER, preset, read_anew, shelf
from profiles.starters import pocket_model
from tui.setup import choices
from tui.setup.fields import (
    FIELDS,
    FILES,
    MASKS,
    NUMBERS,
    OWN,
    POCKET,
    SLOTS,
    choices_of,
    schema_default,
    shown,
    without_meaning,
)
from tui.setup.folders import Layout
from tui.setup.prompts import kinds_of
from tui.setup.tables import Table, drop, lookup, merged, ordered, put

BASE = "@base"
"""Where the duplicated run's own settings are kept among the values, as JSON."""

ORIGIN = "@origin"
"""Where that run's settings stand as they were before any advice."""

STATED = frozenset({"resolution", "rank", "rate", "epochs", "batch", "name", "runs_dir", "optimizer"})
"""Fields that are written even where they say what is the default."""


@dataclass(frozen=True)
class Checked:
    """What the form amounts to at one moment."""

    table: Table
    config: RunConfig | None
    """None while something is wrong."""
    text: str
    """The configuration as TOML; with what is wrong as it was typed."""
    problems: dict[str, str] = field(default_factory=dict)
    """By field."""
    others: tuple[str, ...] = ()
    """Problems of settings without a field."""


class SetupForm:
    """The values of the fields, by their ids; changes them and says what they amount to.

    Args:
        folder: the work folder; relative paths count from it.
        values: the session's texts; changed in place, filled in when empty.
    """

    def __init__(self, folder: Path, values: dict[str, str]) -> None:
        self.folder = folder
        self.values = values
        self.changed: set[str] = set()
        """Fields that advice has changed."""
        self.notes: tuple[str, ...] = ()
        """Settings without a field that advice has changed."""
        read_anew()
        self.skipped = shelf().problems
        """What is wrong with recipes of the user's that cannot be chosen."""
        if not self._usable():
            self.begin(slug(folder.name, "my-lora"))

    def begin(self, name: str) -> None:
        """Fill in what a first run starts from: the pocket model, until model files are found."""
        self.values.clear()
        self.values |= {"base": POCKET, "name": name, "runs_dir": "runs", "folder": "", "repeats": ""}
        self.values |= dict.fromkeys((*SLOTS, "class_folder", "trigger"), "")
        self._fill_in(MASKS, {})
        self.choose_preset(POCKET)

    def _usable(self) -> bool:
        """Whether the values are a form's: a session may come from another version, or be damaged."""
        bases, presets = (dict(choices_of(FIELDS[name])) for name in ("base", "preset"))
        try:
            base = json.loads(self.values.get(BASE, "{}"))
        except (ValueError, RecursionError):
            base = None
        own = BASE in self.values and isinstance(base, dict)
        if isinstance(base, dict):  # a session from before there were fields for masks
            self._fill_in([name for name in MASKS if name not in self.values], base)
        known = self.values.get("preset") in presets or (own and self.values.get("preset") == OWN)
        return FIELDS.keys() <= self.values.keys() and self.values["base"] in bases and known

    def choose_preset(self, name: str) -> None:
        """Fill in a preset's numbers and prompts."""
        self.values["preset"] = name
        table = self._base() if name == OWN else preset(name).table
        self._fill_in(NUMBERS, table)
        if lookup(table, "dataset.masks"):
            self._fill_in(MASKS, table)
        prompts = lookup(table, "sampling.prompts", ())
        self.values["prompts"] = "\n".join(entry["prompt"] for entry in prompts)
        choices.forget_fields(self.values)

    def _fill_in(self, names: Iterable[str], table: Mapping[str, Any]) -> None:
        """Take settings of ``table`` into their fields; what it leaves out is as it comes."""
        for name in names:
            key = FIELDS[name].key
            self.values[name] = shown(lookup(table, key, schema_default(key)))

    def choose_base(self, name: str) -> None:
        """Take the pocket model or one's own files, and a preset that goes with it."""
        self.values["base"] = name
        choices.forget(self.values)
        if name == POCKET:
            self.choose_preset(POCKET)
        elif self.values["preset"] == POCKET:
            self.choose_preset("character")

    def take(self, config: RunConfig, name: str, anew: bool = False) -> None:
        """Start from another run's settings under another name; unless ``anew``, go on where that was begun."""
        table: Table = config.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        origin = json.dumps(table)
        if self.values.get(ORIGIN) == origin and not anew:
            return
        self.values.clear()
        table["runs_dir"] = str(config.runs_dir)
        folders = [{**entry, "path": self._near(entry["path"])} for entry in table["dataset"]["folders"]]
        table["dataset"]["folders"] = folders
        trigger = lookup(table, "dataset.captions.trigger_word", "")
        for entry in lookup(table, "sampling.prompts", []):
            entry["prompt"] = _without_trigger(entry["prompt"], trigger)
        pocket = _is_pocket(table)
        self.values |= {
            ORIGIN: origin, BASE: json.dumps(table), "base": POCKET if pocket else FILES, "name": name,
            "runs_dir": self._near(table["runs_dir"]),
            "trigger": trigger,
        }  # fmt: skip
        self.values |= {slot: "" if pocket else self._near(table["model"][slot]) for slot in SLOTS}
        concept = next((entry for entry in folders if not entry.get("regularization")), {})
        others = next((entry for entry in folders if entry.get("regularization")), {})
        self.values |= {"folder": concept.get("path", ""), "class_folder": others.get("path", "")}
        self.values["repeats"] = shown(concept.get("repeats") or None)
        self._fill_in(MASKS, table)
        self.choose_preset(OWN)

    def advise(self, changes: Mapping[str, Any]) -> None:
        """Take over advised settings, by dotted key, and remember which they are."""
        by_key = {entry.key: entry.id for entry in FIELDS.values() if entry.key}
        base, notes = self._base(), []
        for key, value in changes.items():
            if key in by_key:
                self.values[by_key[key]] = shown(value)
                self.changed.add(by_key[key])
                continue
            put(base, key, value)
            notes.append(f"{key} = {json.dumps(value)}")
        self.notes = tuple(notes)
        self.values[BASE] = json.dumps(base)

    def use_layout(self, layout: Layout, demo: bool) -> None:
        """Take the folders that were laid out; with the demonstration's pictures, what goes with them too."""
        self.values["folder"] = self._near(str(layout.image))
        self.values["runs_dir"] = self._near(str(layout.model))
        if demo:
            self.values |= {"class_folder": self._near(str(layout.classes)), "trigger": DEMO_TRIGGER, "repeats": "2"}

    @property
    def origin(self) -> str:
        """Name of the run whose settings the form began with."""
        return str(self._base().get("name", "the other run"))

    @property
    def path(self) -> Path:
        """The file that the configuration is written to."""
        return self.folder / f"{slug(self.values['name'])}.toml"

    @property
    def dataset_folder(self) -> Path:
        """The folder that is typed."""
        return self.folder / self.values["folder"].strip()

    def table(self) -> Table:
        """The configuration as plain values: the preset's or the other run's settings under what is typed."""
        table, away = self.recipe(), without_meaning(self.values)
        for entry in FIELDS.values():
            if not entry.key or entry.key.startswith("model."):
                continue
            value = _typed(entry.kind, self.values.get(entry.id, ""))
            default = schema_default(entry.key)
            if value is None or entry.id in away or (entry.id not in STATED and shown(value) == shown(default)):
                drop(table, entry.key)
            else:
                put(table, entry.key, value)
        for key, value in choices.overlay(self.values).items():
            if value == schema_default(key):
                drop(table, key)
            else:
                put(table, key, value)
        put(table, "name", self.values["name"].strip())
        put(table, "dataset.folders", self._folders())
        put(table, "sampling.prompts", self._prompts(table))
        table["model"] = self._model(table)
        return ordered(table, RunConfig)

    def check(self) -> Checked:
        """The table checked, every problem at its field, and the TOML text."""
        table = self.table()
        config, found = examine(table, RunConfig, self.path)
        problems: dict[str, str] = {}
        others: list[str] = []
        by_key = {entry.key: entry.id for entry in FIELDS.values() if entry.key} | self._special_keys(table)
        for problem in found:
            names = [str(key) for key in problem.keys]
            # One of a list is told at the list's field.
            place = by_key.get(".".join(names)) or by_key.get(".".join(names[:-1]), "")
            if place:
                problems.setdefault(place, _told(problem.what, problem.hint))
            else:
                others.append(problem.message)
        try:
            text = table_text(table, "Written by the setup form.")
        except ConfigError as err:
            text, config = "", None
            others.append(f"{err.title}: {err.detail}")
        return Checked(table, None if problems or others else config, text, problems, tuple(others))

    def recipe(self) -> Table:
        """What lies under the fields: the preset, and of the other run what a preset does not touch."""
        base = self._base()
        if self.values["preset"] == OWN:
            return base
        kept: Table = {key: value for key, value in base.items() if key in ("seed", "cache_dir", "model")}
        return merged(kept, preset(self.values["preset"]).table)

    def _base(self) -> Table:
        table: Table = json.loads(self.values.get(BASE, "{}"))
        return table

    def _folders(self) -> list[Table]:
        given: list[Table] = lookup(self._base(), "dataset.folders", [])
        concept = next((entry for entry in given if not entry.get("regularization")), {})
        others = next((entry for entry in given if entry.get("regularization")), {"regularization": True})
        first = {**concept, "path": self.values["folder"].strip()}
        repeats = _typed("number", self.values["repeats"])
        first = {key: value for key, value in first.items() if key != "repeats"}
        if repeats is not None:
            first["repeats"] = repeats
        second = [{**others, "path": self.values["class_folder"].strip()}]
        rest = [entry for entry in given if entry is not concept and entry is not others]
        return [first, *(second if second[0]["path"] else []), *rest]

    def _prompts(self, table: Table) -> list[Table]:
        known = {entry["prompt"]: entry for entry in lookup(table, "sampling.prompts", [])}
        lines = [line.strip() for line in self.values["prompts"].splitlines()]
        entries, kinds = [], kinds_of(self.values)
        for number, line in enumerate(filter(None, lines), start=1):
            kind = {"kind": kinds[line]} if line in kinds else {}
            entry = known.get(line, {"prompt": line, **kind, "seed": number})
            entries.append({**entry, "prompt": _with_trigger(line, self.values["trigger"].strip())})
        return entries

    def _model(self, table: Table) -> Table:
        if self.values["base"] == POCKET:
            plain = {key: str(value) if isinstance(value, Path) else value for key, value in pocket_model().items()}
            tokens: Table = preset(POCKET).table["model"]
            return plain | tokens
        # The pocket model's tokenizers and its number of tokens go with it alone.
        pockets = self.values["preset"] == POCKET or _is_pocket(self._base())
        more = {} if pockets else {key: value for key, value in table.get("model", {}).items() if key not in SLOTS}
        return {slot: self.values[slot].strip() for slot in SLOTS} | more

    def _special_keys(self, table: Table) -> dict[str, str]:
        """Places in the table that belong to fields without a key of their own."""
        places = {"sampling.prompts": "prompts"}
        for index in range(len(table["sampling"]["prompts"])):
            places[f"sampling.prompts.{index}.prompt"] = "prompts"
        for index, entry in enumerate(table["dataset"]["folders"]):
            name = "class_folder" if entry.get("regularization") else "folder"
            places[f"dataset.folders.{index}.path"] = name
            places[f"dataset.folders.{index}.repeats"] = "repeats"
        return places

    def _near(self, path: str) -> str:
        """A path as one would type it in the work folder."""
        inside = Path(path).is_relative_to(self.folder)
        return str(Path(path).relative_to(self.folder)) if inside else path


def _is_pocket(table: Table) -> bool:
    return bool(lookup(table, "model.transformer") == str(pocket_model()["transformer"]))


def _typed(kind: str, text: str) -> Any:
    """The value that was typed; None for an empty field, and the text itself where a number is wanted and none is."""
    text = text.strip()
    if not text:
        return None
    if kind == "numbers":
        return [_typed("number", part) for part in text.split(",") if part.strip()]
    if kind == "number" and re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    if kind == "number":
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _told(what: str, hint: str) -> str:
    if what.startswith(("is an empty path", 'is "";')):
        return "is empty"
    return f"{what}. {hint}" if hint else what


def _with_trigger(line: str, trigger: str) -> str:
    if trigger:
        return line.replace(TRIGGER, trigger)
    return re.sub(r"\{trigger\},? ?", "", line).strip() or line


def _without_trigger(prompt: str, trigger: str) -> str:
    """The prompt for any trigger word, as presets have it: another one typed in the form takes its place."""
    word = rf"(?<!\w){re.escape(trigger)}(?!\w)"
    return re.sub(word, lambda _: TRIGGER, prompt) if trigger else prompt


def free_name(folder: Path, name: str) -> str:
    """A name like ``name`` for which no configuration stands in ``folder``: after cat comes cat-2, then cat-3."""
    stem, number = slug(name), 1
    counted = re.fullmatch(r"(.+)-([1-9]\d{0,3})", stem)
    if counted and (folder / f"{counted[1]}.toml").exists():
        stem, number = counted[1], int(counted[2])
    while (folder / f"{(numbered := stem if number == 1 else f'{stem}-{number}')}.toml").exists():
        number += 1
    return numbered

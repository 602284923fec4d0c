"""Asks for captions by machine: which model, what it is asked, which pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from engine.captioners.found import CaptionerFolder, recognise, search
from engine.captioners.request import DEFAULT_PROMPTS, MAX_BATCH, MAX_PROMPT, CaptionRequest, Tagging
from engine.errors import ConfigError, EngineError, ModelFileError
from engine.models.find import known_roots
from tui.captioning import captioning_of
from tui.keys.dialogs import DIALOG_KEYS
from tui.keys.key import bindings
from tui.keys.machine import ASK_KEYS
from tui.safe import safe
from tui.screens.dialogs import Dialog
from tui.screens.pick import Offer, PickDialog
from tui.units import size
from tui.widgets.fields import Choice, Entry, FieldRow, PathSuggester
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.catalog import Row

SCOPES = {"marked": "the {:,} marked", "found": "the {:,} found", "all": "all {:,}"}
TAGGER_FIELDS = ("general", "character", "rating", "without")


class MachineDialog(Dialog):
    """A form; returns "started" once the job has begun.

    Args:
        place: whose captioning job it is to be.
        scopes: the pictures that can be meant, by ``marked``, ``found`` and ``all``; the first is offered.
    """

    CSS_PATH = "machine.tcss"
    BINDINGS = bindings(DIALOG_KEYS + ASK_KEYS)

    def __init__(self, place: Workplace, scopes: Mapping[str, Sequence[Row]]) -> None:
        super().__init__()
        self._place = place
        self._scopes = scopes
        self._model: CaptionerFolder | None = None

    def compose(self) -> ComposeResult:
        """The fields, what is wrong, the keys."""
        last = captioning_of(self._place).request or CaptionRequest(Path())
        how = last.tagging
        options = tuple((word, SCOPES[word].format(len(rows))) for word, rows in self._scopes.items())
        model = str(last.model) if last.model != Path() else ""
        with VerticalScroll(classes="box -wide", can_focus=False):
            yield Static(safe("Captions by machine"), classes="title")
            paths = PathSuggester(self._place.folder)
            yield FieldRow("model", "Model", Entry(model, "model", "folder of a captioning model; F4 lists", paths))
            yield FieldRow("scope", "Pictures", Choice(options, options[0][0], "scope"))
            yield FieldRow("prompt", "Prompt", Entry(last.prompt or "", "prompt", "the model's default"))
            yield FieldRow("trigger", "Trigger word", Entry(self._trigger(last), "trigger", "none"))
            batch = str(last.batch_size or "")
            yield FieldRow("batch", "At a time", Entry(batch, "batch", "as many as suits; fewer if memory runs out"))
            yield FieldRow("general", "Tags from", Entry(f"{how.general:g}", "general"))
            yield FieldRow("character", "Names from", Entry(f"{how.character:g}", "character", "no characters"))
            rating = (("no", "no tag"), ("yes", "a tag"))
            yield FieldRow("rating", "Rating", Choice(rating, "yes" if how.rating else "no", "rating"))
            yield FieldRow(
                "without", "Never", Entry(", ".join(how.blacklist), "without", "tags, with commas between")
            )
            made = (("no", "stay as they are"), ("yes", "are made anew"))
            yield FieldRow("again", "Answers made", Choice(made, "yes" if last.again else "no", "again"))
            yield Static(
                safe("Captions stay as they are: answers wait for the review (V). F5 starts, esc goes back."),
                classes="foot",
            )

    def on_mount(self) -> None:
        """The model is what has to be said."""
        self.query_one("#field-model").focus()
        self._look(self._text("model"))

    @on(Input.Changed, "#field-model")
    def _typed(self, event: Input.Changed) -> None:
        self._look(event.value)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_start()

    @work(exclusive=True, group="look")
    async def _look(self, text: str) -> None:
        """Say what the folder typed holds."""
        found = await asyncio.to_thread(_recognised, self._folder(text)) if text.strip() else None
        self._model = found if isinstance(found, CaptionerFolder) else None
        row = self.query_one("#row-model", FieldRow)
        if isinstance(found, CaptionerFolder):
            row.tell(f"{found.name}, {size(found.size_bytes)}", "good")
        else:
            row.tell(f"{found.title}: {found.detail}" if found is not None else "", "bad" if found else "")
        self._show_kind()

    def _show_kind(self) -> None:
        """Thresholds for taggers, words for all others."""
        kind = self._model.kind if self._model is not None else ""
        for name in TAGGER_FIELDS:
            self.query_one(f"#row-{name}").set_class(kind != "tagger", "-away")
        self.query_one("#row-prompt").set_class(kind == "tagger", "-away")
        if kind:
            self.query_one("#field-prompt", Input).placeholder = (
                DEFAULT_PROMPTS[kind] or "none: the model begins itself"
            )

    @work(exclusive=True, group="list")
    async def action_list(self) -> None:
        """Choose one of the models found."""
        roots = [folder for folder in self._place.settings.model_roots if folder.is_dir()]
        found = await asyncio.to_thread(lambda: search([*roots, *known_roots()]))
        if not found:
            self.query_one("#row-model", FieldRow).tell("None found; type the folder", "bad")
            return
        offers = [Offer(str(one.path), f"{one.name}, {size(one.size_bytes)}", str(one.path)) for one in found]
        chosen = await self.app.push_screen_wait(PickDialog("Captioning models", offers, self._text("model")))
        if chosen is not None:
            self.query_one("#field-model", Input).value = chosen

    @work(exclusive=True, group="start")
    async def action_start(self) -> None:
        """Begin, or say what is missing."""
        text = self._text("model")
        found = await asyncio.to_thread(_recognised, self._folder(text)) if text else None
        row = self.query_one("#row-model", FieldRow)
        if not isinstance(found, CaptionerFolder):
            row.tell(f"{found.title}: {found.detail}" if found else "Which model? F4 lists those found", "bad")
            return
        try:
            rows = self._scopes[self.query_one("#field-scope", Choice).value]
            captioning_of(self._place).start(self._request(found), rows)
        except EngineError as err:
            row.tell(f"{err.title}: {err.detail}. {err.hint}", "bad")
        else:
            self.dismiss("started")

    def _request(self, found: CaptionerFolder) -> CaptionRequest:
        prompt = self._text("prompt")
        if len(prompt) > MAX_PROMPT:
            raise ConfigError("The prompt is too long", f"{len(prompt)} characters", f"{MAX_PROMPT} are read.")
        names = self._text("character")
        tagging = Tagging(
            general=_share(self._text("general") or "0.35", "Tags from"),
            character=_share(names or "0.85", "Names from"),
            characters=bool(names),
            rating=self.query_one("#field-rating", Choice).value == "yes",
            blacklist=tuple(tag.strip() for tag in self._text("without").split(",") if tag.strip()),
        )
        batch = self._text("batch") or "0"
        if not batch.isascii() or not batch.isdigit() or int(batch[:6]) > MAX_BATCH:
            raise ConfigError("At a time", f"{batch[:40]!a} is no number up to {MAX_BATCH}", "Leave it empty.")
        again = self.query_one("#field-again", Choice).value == "yes"
        return CaptionRequest(
            found.path, prompt or None, self._text("trigger"), int(batch), tagging=tagging, again=again
        )

    def _trigger(self, last: CaptionRequest) -> str:
        dataset = self._place.catalog.dataset
        return last.trigger or (dataset.captions.trigger_word.strip() if dataset is not None else "")

    def _text(self, name: str) -> str:
        return self.query_one(f"#field-{name}", Input).value.strip()

    def _folder(self, text: str) -> Path:
        return self._place.folder / Path(text.strip())


def _recognised(folder: Path) -> CaptionerFolder | ModelFileError:
    try:
        return recognise(folder)
    except ModelFileError as err:
        return err
    except (OSError, ValueError, RuntimeError) as err:  # no name of a folder at all
        return ModelFileError("No such folder", str(err))


def _share(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise ConfigError(name, f"{text[:40]!a} is no threshold above 0 and up to 1", "0.35 and 0.85 are usual.")
    return value

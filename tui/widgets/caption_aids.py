"""What helps while a caption is typed: trigger words, template, reminder, completion, spelling.

Each is one key, none is ever in the way; the texts themselves are :mod:`tui.widgets.caption`'s business.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any

from textual.message import Message

from engine.dataset.spelling import add_word
from engine.dataset.trigger import ADDED, Suggestion, faults_of, suggested
from engine.dataset.vocabulary import WORD
from engine.errors import EngineError
from engine.text import safe_text
from profiles.recipes import all_recipes
from tui.aside import aside
from tui.caption_sheet import Sheet, shown
from tui.caption_template import next_slot, skeleton
from tui.caption_words import Lists, Words, read_lists, words_of
from tui.safe import safe
from tui.screens.pick import Offer, PickDialog
from tui.settings import own_words_path
from tui.widgets.caption_view import CaptionView

LEARN_S = 5.0
"""Least time from one count of the dataset's words to the next."""
SHARE = 50
"""After a count that took long the next one waits so many times as long."""
SUGGESTED = 8
MORE = "+"
"""In place of a word: other ones are wanted."""


class CaptionAids(CaptionView):
    """The pane's keys that do something for the text, and what they need to know."""

    _learnt: object = None
    _learn_due = 0.0
    _seed = 0

    class TriggerChosen(Message):
        """The user wants this trigger word."""

        def __init__(self, word: str) -> None:
            super().__init__()
            self.word = word

    class EditorWanted(Message):
        """The user wants to edit the text of ``sheet`` in a program of his own."""

        def __init__(self, sheet: Sheet) -> None:
            super().__init__()
            self.sheet = sheet

    @property
    def trigger(self) -> str:
        """The configuration's trigger word; empty where there is none."""
        dataset = self._catalog.dataset
        return dataset.captions.trigger_word.strip() if dataset is not None else ""

    def offered(self, before: str, after: str) -> str:
        """What may follow what is typed, in the dataset's own words."""
        return self.words.vocabulary.completion(before, after) if self.editing.completion else ""

    def learn(self) -> None:
        """Count the dataset's words again where captions are others by now, once somebody types here."""
        now, version = time.monotonic(), (id(self._catalog.rows), self._catalog.version)
        busy = self._catalog.state == "scanning" or self._catalog.stage
        if version == self._learnt or busy or now < self._learn_due or not self.editor.has_focus:
            return
        self._learnt, self._learn_due = version, now + LEARN_S
        self.run_worker(self._learning(), group="words", exclusive=True)

    async def _learning(self) -> None:
        captions = [row.caption for row in self._catalog.rows if row.caption]
        began = time.monotonic()
        self.words = await aside(self, None, self._counted, captions, self.words.lists)
        self._learn_due = time.monotonic() + max(LEARN_S, SHARE * (time.monotonic() - began))
        self._count()

    def _counted(self, captions: list[str], lists: Lists | None) -> Words:
        lists = lists or read_lists(self.editing, own_words_path())
        return words_of(captions, self.trigger, self.template, lists)

    def action_trigger(self) -> None:
        """Put the trigger word in front; take it away where it is in front already."""
        sheet = self.sheet
        if sheet is None or not sheet.editable:
            return
        if not self.trigger:
            self.app.notify("The configuration names no trigger word: f2 suggests some", severity="warning")
            return
        text = toggled_trigger(self.editor.text, self.trigger)
        if text is None:
            self.app.notify(f"{self.trigger} is in this caption already", severity="warning")
        else:
            self.editor.take(text)

    def action_suggest(self) -> None:
        """Say how the trigger word stands over the whole set, and offer words that suit."""
        self.run_worker(self._suggesting(self._seed), group="trigger", exclusive=True)

    async def _suggesting(self, seed: int) -> None:
        captions = [row.caption for row in self._catalog.rows if row.caption and not row.regularization]
        known = self.words.speller.words

        def work() -> tuple[str, list[Suggestion]]:
            words = suggested(seed, SUGGESTED, known, self._catalog.tokenizers, captions)
            return told_of_trigger(captions, self.trigger), words

        told, words = await aside(self, None, work)
        offers = [Offer(each.word, each.word, _pieces_of(each)) for each in words]
        title = "A word that the model does not know" + (f", in place of {self.trigger}" if self.trigger else "")
        offers.append(Offer(MORE, "Other words"))

        def answered(word: str | None) -> None:
            if word == MORE:
                self._seed += 1
                self.action_suggest()
            elif word:
                self.post_message(self.TriggerChosen(word))

        self.app.push_screen(PickDialog(title, offers, foot=told), answered)

    def action_template(self) -> None:
        """Put the template's sentence at the cursor, and go to its first slot; where slots are open, to the next."""
        sheet, editor = self.sheet, self.editor
        if sheet is None or not sheet.editable:
            return
        text, at = editor.text, editor.cursor_at
        if next_slot(text, 0, editor.slots) is None:
            space = "" if not text[:at].strip() or text[at - 1].isspace() else " "
            editor.insert(space + skeleton(self.template, "" if text.strip() else self.trigger))
        if slot := next_slot(editor.text, at, editor.slots):
            editor.select_span(*slot)

    def action_reminder(self) -> None:
        """Show what a recipe says of captions; again for the next recipe, and for none after the last."""
        self.remind(1)

    def remind(self, by: int) -> None:
        """Show the words of the recipe that is so many behind the one chosen last."""
        self.run_worker(self._reminding(by), group="reminder", exclusive=True)

    async def _reminding(self, by: int) -> None:
        recipes, _ = await aside(self, None, all_recipes)
        told = {name: recipe.file for name, recipe in recipes.items() if recipe.file.hints.captions}
        session, names = self._session, ["", *told]
        if by:
            fresh = session.form.get("preset", "") if not session.reminder else ""
            at = names.index(session.reminder) if session.reminder in names else 0
            session.reminder = fresh if fresh in told else names[(at + by) % len(names)]
        file = told.get(session.reminder)
        if file is not None:
            first, *others = file.hints.captions
            text = "\n".join(safe_text(line, 300) for line in (f"{file.title}: {first}", *others))
            self.reminder.update(safe(text, 1000, newlines=True))
        self.reminder.display = file is not None

    def action_editor(self) -> None:
        """Edit this caption in the user's own editor."""
        sheet = self.sheet
        if sheet is not None and sheet.editable:
            self.desk.edit(sheet, self.editor.text, self.editor.cursor_location)
            self.post_message(self.EditorWanted(sheet))

    def take_outside(self, sheet: Sheet, text: str) -> None:
        """Take what the user made of a text elsewhere: one more step of it."""
        if sheet is self.sheet:
            self.editor.take(shown(text))
        else:
            self.desk.edit(sheet, shown(text))
            self.desk.save(sheet)

    def action_misspelt(self) -> None:
        """Select the next word that no list knows."""
        lists, editor = self.words.lists, self.editor
        if lists is None or not lists.words:
            why = lists.problem if lists is not None else "the lists are being read"
            self.app.notify(f"Words are not checked: {why}", severity="warning")
            return
        found = self.words.speller.misspelt(editor.text)
        if not found:
            self.app.notify("Every word is in a list, or frequent in this dataset")
            return
        at = editor.cursor_at
        editor.select_span(*next((span for span in found if span[0] >= at), found[0]))

    def action_add_word(self) -> None:
        """Keep the word at the cursor in the user's own list."""
        text, at = self.editor.text, self.editor.cursor_at
        word = next((found[0] for found in WORD.finditer(text) if found.start() <= at <= found.end()), "")
        if not word:
            self.app.notify("There is no word at the cursor", severity="warning")
        elif self.words.speller.knows(word) and self.words.speller.words:
            self.app.notify(f"{word} is right already")
        else:
            work: Any = partial(self._adding, word)
            self.run_worker(work, group="own-words")

    async def _adding(self, word: str) -> None:
        path = own_words_path()
        try:
            await aside(self, None, add_word, path, word)
        except EngineError as err:
            self.app.notify(safe_text(f"{err.title}: {err.detail}", 300), severity="error")
            return
        self.words = self.words.with_own(word)
        self._count()
        self.app.notify(f"{safe_text(word, 60)} is in {safe_text(path, 100)} now")


def toggled_trigger(text: str, trigger: str) -> str | None:
    """``text`` with the trigger word in front, or without it where it is there; None where it is further inside."""
    found = re.match(rf"\s*{re.escape(trigger)}(?!\w)[ \t]*,?[ \t]*", text, re.IGNORECASE)
    if found:
        return text[found.end() :]
    if re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", text, re.IGNORECASE):
        return None  # training adds none in front of such a caption either
    return f"{trigger}, {text}" if text.strip() else trigger


def told_of_trigger(captions: list[str], trigger: str) -> str:
    """How a trigger word stands over the whole set, in words; safe to show."""
    if not trigger:
        return "No trigger word is set. enter sets one, esc goes back."
    faults = faults_of(captions, trigger)
    named = [f"{count} {fault}" for fault, count in sorted(faults.items())]
    stands = f"{safe_text(trigger, 60)} in {len(captions)} captions: {', '.join(named) or 'all well'}."
    return f"{stands} {ADDED}" if faults["missing"] else stands


def _pieces_of(suggestion: Suggestion) -> str:
    if not suggestion.clip:
        return ""
    return f"CLIP {'|'.join(suggestion.clip)}   T5 {'|'.join(suggestion.t5)}"

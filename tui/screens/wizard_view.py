"""The wizard on the screen: the row of pages, one page, and beside it memory, time and the configuration.

The look of :class:`tui.screens.wizard.WizardScreen`; the commands are the screen's. On a narrow screen page and plan
are shown one at a time, and two lines under the page say how the plan stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus, Resize
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Static

from engine.dataset.scan import Scan
from engine.text import safe_text
from profiles.schema import Reasoned
from tui.safe import safe
from tui.screens.setup_view import WIDE, toml_content
from tui.screens.wizard_plan import Planning
from tui.setup import choices
from tui.setup.fields import Field, choices_of
from tui.setup.notes import Note, steps_line
from tui.widgets.cells import glyphs_of
from tui.widgets.fields import FieldRow
from tui.widgets.keyline import KeyLine
from tui.widgets.memory_bar import MemoryBar
from tui.widgets.notice import Notice
from tui.widgets.wizard import Act, FitValue, Tabs, name_of
from tui.wizard import answers, lengths, pages, suitability, summary, telling
from tui.wizard.memory import bars_of
from tui.wizard.options import options_of, text_of
from tui.wizard.pages import PAGES

SIDE = 76
"""Cells of the plan beside the page; as in the style sheet."""

FIELD_LABEL = 18
"""Cells of a field's label; as in the style sheet."""

ACTS = (("pilot", "F9  Pilot run first"), ("start", "F5  Start the run"), ("write", "^s  Only write it"))
"""The review's buttons; those of the other pages lead to the next."""


class WizardView(Planning):
    """The wizard without its commands."""

    fields: ClassVar[Mapping[str, Field]] = pages.FIELDS

    number = 0
    """Of the page that is shown."""

    _fit_rows: Mapping[str, FieldRow] = MappingProxyType({})

    def compose(self) -> ComposeResult:
        """Head, pages, plan beside them, help of the field, keys."""
        yield Static(id="head")
        yield Tabs(tuple(page.title for page in PAGES))
        with Horizontal(id="body"):
            with ContentSwitcher(id="pages", initial=f"page-{PAGES[self.number].id}"):
                for number in range(len(PAGES)):
                    yield VerticalScroll(*self._page(number), id=f"page-{PAGES[number].id}", can_focus=False)
            with VerticalScroll(id="side"):
                yield MemoryBar(id="bars")
                yield Static(id="figures")
                yield Static(id="value")
                yield Static(id="toml")
        yield MemoryBar(id="strip", brief=True)
        yield Static(id="headline")
        yield Static(id="hint")
        yield Notice()
        yield KeyLine()

    def _page(self, number: int) -> Iterator[Widget]:
        page = PAGES[number]
        yield Static(safe(page.lead, 400), classes="lead")
        yield Static(id=f"say-{page.id}", classes="say")
        if page.id == "review":  # what can be done comes first: the figures may fill the screen
            yield Vertical(*(Act(what, label) for what, label in ACTS), classes="acts")
            yield Static(id="review")
        yield from (self.row(self.fields[name]) for name in page.fields)
        if page.id == "fit":
            yield Vertical(id="fits")
            yield Static(id="also")
        if page.id != "review":
            yield Vertical(Act(f"next-{page.id}", f"Next: {PAGES[number + 1].title}"), classes="acts")

    def on_resize(self, event: Resize) -> None:
        """Side by side or one at a time."""
        self.lay_out(event.size.width)

    def lay_out(self, width: int) -> None:
        """Choose the layout for a width."""
        self.set_class(width < WIDE, "-narrow")
        self.refresh_bindings()
        self.looked()

    # Values: the wizard's own are kept apart from the configuration's.

    def value_of(self, name: str) -> str:
        """What stands in a field."""
        if name == "place":
            return self.place.device if self.place is not None else ""
        return self.answers[name] if name in pages.ANSWERS else super().value_of(name)

    def set_value(self, name: str, value: str) -> None:
        """Keep it; what the LoRA is for chooses the recipe too."""
        if name in ("preset", "base"):
            lengths.release(self.form, self.answers)
        if name not in pages.ANSWERS:
            super().set_value(name, value)
            return
        self.answers[name] = value
        recipes = dict(choices_of(self.fields["preset"]))
        if name == "want" and value in recipes and self.form.values["base"] != "pocket":
            lengths.release(self.form, self.answers)
            self.form.choose_preset(value)

    def options_of(self, field: Field) -> tuple[tuple[str, str], ...]:
        """What a choice can be."""
        if field.id != "place":
            return super().options_of(field)
        found = tuple((place.device, safe_text(place.name, 60)) for place in self.places)
        return found or (("", "looking at the machine..."),)

    def notes_now(self) -> dict[str, Note]:
        """The form's notes and the wizard's own."""
        notes = super().notes_now() | suitability.notes_of(self.answers)
        notes |= answers.problems_of(self.answers, self.now)
        if self.place is not None:
            notes["place"] = Note(self.place.sentence)
        for name, advised in telling.advised(self).items():
            if name and notes.get(name, Note("")).kind != "bad":
                notes[name] = Note(advised.text, "changed")
        return notes

    # What is shown of it all.

    def looked(self) -> None:
        """Show notes, plan and configuration as they are now known; ask for another plan where it takes one."""
        if not self.is_mounted:
            return
        if isinstance(self.scan, Scan) and lengths.follow(self.form, self.answers, self.scan.samples):
            self.refill()
            return
        self.show_notes()
        self.plan()
        found = pages.states(self.notes, self.form.values | self.answers, bool(self._pending), self.fit, self.ready)
        self.query_one(Tabs).tell(self.number, found)
        self.show_in("#head", self._head())
        file, held = self.form.path.name, choices.fixed(self.form.values)
        told = summary.commands(file, self.answers, held, self.now)
        self.show_in("#toml", toml_content(self.checked.text, file, told))
        self._show_plan()
        for page in PAGES:
            self._say(page.id, telling.of_page(page.id, self))
        self.show_value()

    @property
    def ready(self) -> bool:
        """Whether nothing keeps the run from starting."""
        return self.checked.config is not None and not self.to_mend and not self._pending

    @property
    def to_mend(self) -> list[str]:
        """Fields with something wrong that keeps a run from starting: advice against a LoRA does not."""
        return [name for name in super().to_mend if name not in pages.ADVICE]

    @property
    def elsewhere(self) -> list[str]:
        """What is wrong with settings that have no field here."""
        return [*self.checked.others, *(name for name in self.checked.problems if name not in self.fields)]

    def _say(self, page: str, lines: list[Note]) -> None:
        signs = {"bad": "! ", "changed": "> ", "good": f"{glyphs_of(self.app).done} "}
        styles = {"bad": "$text-error", "changed": "$text-warning", "good": "$text-success"}
        told = [
            Content.styled(safe_text(signs.get(note.kind, "") + note.text, 600), styles.get(note.kind, ""))
            for note in lines
        ]
        self.query_one(f"#say-{page}").display = bool(told)
        self.show_in(f"#say-{page}", Content("\n").join(told), wraps=True)

    def _show_plan(self) -> None:
        fit, place = self.fit, self.place
        bars = bars_of(fit, place.machine) if fit is not None and place is not None else ()
        why = telling.no_plan(self) if fit is None else ""
        for bar in self.query(MemoryBar):
            bar.tell(bars, safe_text(why, 200))
        width = self.app.size.width
        side, page = (width - 6, width - 4) if width < WIDE else (SIDE - 6, width - SIDE - 4)
        self.show_in("#figures", telling.pairs(telling.figures(self), side))
        self.show_in("#review", telling.pairs(telling.review(self), page))
        self.show_in("#also", telling.pairs(telling.also(self), page, FIELD_LABEL))
        self.show_in("#headline", safe(telling.headline(self), 300))
        self._show_fits(self.reasons if fit is not None or self.refused is not None else ())
        for what, label in ACTS:
            self.query_one(f"#act-{what}", Act).tell(label + telling.act_words(what, self))

    def _show_fits(self, reasons: tuple[Reasoned, ...]) -> None:
        """A row for every setting that was chosen; made when they are first known, or are others."""
        shown = {reasoned.key: reasoned for reasoned in reasons if reasoned.key}
        holder = self.query_one("#fits", Vertical)
        holder.display = bool(shown)
        if not shown:
            return
        if list(self._fit_rows) != list(shown):
            holder.remove_children()
            self._fit_rows = {key: _fit_row(reasoned) for key, reasoned in shown.items()}
            holder.mount(*self._fit_rows.values())
            self.call_after_refresh(self._tell_fits, shown)
        else:
            self._tell_fits(shown)

    def _tell_fits(self, shown: Mapping[str, Reasoned]) -> None:
        held = choices.fixed(self.form.values)
        for key, reasoned in shown.items():
            row = self._fit_rows.get(key)
            if row is None or not row.is_mounted:
                continue
            assert isinstance(row.control, FitValue)
            value = text_of(held.get(key, reasoned.value))
            row.control.tell(options_of(reasoned), value, reasoned.fixed or key in held)
            reason = "" if self.has_class("-narrow") else reasoned.reason
            row.tell(reason, "changed" if reasoned.fixed else "")

    def reasoned(self, key: str) -> Reasoned | None:
        """What was chosen for a setting, and why."""
        return next((reasoned for reasoned in self.reasons if reasoned.key == key), None)

    def show_value(self) -> None:
        """What the setting in focus is, why, and what it could be instead; else what its field is for."""
        here = self.focused
        reasoned = self.reasoned(here.key) if isinstance(here, FitValue) else None
        narrow = self.has_class("-narrow")
        self.show_in("#value", Content("") if reasoned is None or narrow else telling.value(reasoned), True)
        self.query_one("#value").display = reasoned is not None and not narrow
        if reasoned is not None:
            text = telling.value_line(reasoned) if narrow else telling.VALUE_KEYS
        else:
            name = self.field_here
            text = self.fields[name].help if name in self.fields else telling.hint_of(here)
        self.show_in("#hint", safe(text, 600))

    def _head(self) -> Content:
        count = len(self.to_mend) + len(self.elsewhere)
        state, style = "ready: F5 starts, F9 tries it out", "bold $text-success"
        if count:
            state, style = f"! {count} to mend: F7 goes there", "bold $text-error"
        elif self.busy:
            state, style = "looking...", "$foreground-muted"
        elif self.fit is not None and not self.fit.fits:
            state, style = "! does not fit: page 5 says why", "bold $text-error"
        page = f"step {self.number + 1} of {len(PAGES)}: {PAGES[self.number].title}"
        known = safe_text(steps_line(self), 100) if self.app.size.width >= WIDE else ""
        steps = (known, "$foreground-muted")
        return Content.assemble(("New run", "bold"), f"  {page}   ", (state, style), "   ", steps)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Say what the field is for."""
        self.show_value()


def _fit_row(reasoned: Reasoned) -> FieldRow:
    control = FitValue(reasoned.key, options_of(reasoned), text_of(reasoned.value), reasoned.fixed)
    return FieldRow(name_of(reasoned.key), reasoned.label, control)

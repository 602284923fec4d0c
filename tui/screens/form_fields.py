"""The form's fields on a screen: their controls, what is typed in them, and what is said under them.

Shared by the setup form and the wizard, which show the same values: a subclass puts the rows where it wants them, and
shows in :meth:`FormFields.looked` what is known of them now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.content import Content
from textual.widgets import Input, Static, TextArea

from tui.screens.setup_looks import Looks
from tui.setup.fields import FIELDS, FILES, OWN, SLOTS, Field, choices_of, without_meaning
from tui.setup.form import BASE
from tui.setup.models import Finds
from tui.setup.notes import Note, notes_of
from tui.widgets.fields import Choice, Entry, FieldRow, Lines, PathSuggester

Control = Entry | Lines | Choice


class FormFields(Looks):
    """Controls over the form's values."""

    fields: ClassVar[Mapping[str, Field]] = FIELDS
    """The fields on this screen by their ids."""

    untouched = False
    """Whether nothing was typed yet, so that what is found may change the whole form."""

    notes: dict[str, Note]

    def value_of(self, name: str) -> str:
        """What stands in a field."""
        return self.form.values[name]

    def set_value(self, name: str, value: str) -> None:
        """Keep what was typed or chosen, and what follows from it."""
        if name == "base":
            self.form.choose_base(value)
            self._fill_slots()
        elif name == "preset":
            self.form.choose_preset(value)
        else:
            self.form.values[name] = value

    def row(self, field: Field) -> FieldRow:
        """A row for a field, with its control."""
        return FieldRow(field.id, field.label, self._control(field))

    def _control(self, field: Field) -> Control:
        value = self.value_of(field.id)
        if field.kind == "choice":
            return Choice(self.options_of(field), value, field.id)
        if field.kind == "lines":
            return Lines(value, field.id)
        completes = field.kind in ("path", "file")
        ending = ".safetensors" if field.kind == "file" else ""
        return Entry(value, field.id, field.empty, PathSuggester(self.form.folder, ending) if completes else None)

    def options_of(self, field: Field) -> tuple[tuple[str, str], ...]:
        """What a choice can be, and how it is called."""
        own = ((OWN, f"as in {self.form.origin}"),) if field.id == "preset" and BASE in self.form.values else ()
        return (*own, *choices_of(field))

    def control(self, name: str) -> Control:
        """The control of a field."""
        found = self.query_one(f"#field-{name}")
        assert isinstance(found, Entry | Lines | Choice)
        return found

    @property
    def field_here(self) -> str:
        """The field that has the focus; "" for none."""
        return (self.focused.id or "").removeprefix("field-") if self.focused else ""

    def refill(self) -> None:
        """Show the values in all fields."""
        with self.prevent(Input.Changed, TextArea.Changed, Choice.Changed):
            for name, field in self.fields.items():
                control, value = self.control(name), self.value_of(name)
                if isinstance(control, Choice):
                    control.options = self.options_of(field)
                    control.value = value
                elif isinstance(control, Entry) and control.value != value:
                    control.value = value
                elif isinstance(control, Lines) and control.text != value:
                    control.load_text(value)
        self.recheck()

    def recheck(self) -> None:
        """Check what is typed, look again at what it names, and show what came of it."""
        self.checked = self.form.check()
        self.look()
        self.looked()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._take((event.input.id or "").removeprefix("field-"), event.value)

    @on(TextArea.Changed)
    def _typed_lines(self, event: TextArea.Changed) -> None:
        self._take((event.text_area.id or "").removeprefix("field-"), event.text_area.text)

    def _take(self, name: str, value: str) -> None:
        if name in self.fields and self.value_of(name) != value:
            self.untouched = False
            self.set_value(name, value)
            self.recheck()

    @on(Choice.Changed)
    def _chosen(self, event: Choice.Changed) -> None:
        name = (event.choice.id or "").removeprefix("field-")
        if name in self.fields:
            self.untouched = False
            self.set_value(name, event.value)
            self.refill()

    def take_finds(self, finds: Finds) -> None:
        """Take found files for slots that are empty; start from them if nothing was typed yet and all are there."""
        if self.untouched and all(finds[slot] for slot in SLOTS):
            self.form.choose_base(FILES)
        if self.form.values["base"] == FILES:
            self._fill_slots()
        self.refill()

    def _fill_slots(self) -> None:
        for slot, infos in (self.finds or {}).items():
            if infos and not self.form.values[slot]:
                self.form.values[slot] = str(infos[0].path)

    def notes_now(self) -> dict[str, Note]:
        """What is known of every field."""
        return notes_of(self)

    def show_notes(self) -> None:
        """Say under every field what is known of it; what has no meaning now has no row."""
        self.notes = self.notes_now()
        away = without_meaning(self.form.values)
        for name in self.fields:
            row = self.query_one(f"#row-{name}", FieldRow)
            row.set_class(name in away, "-away")
            note = self.notes.get(name, Note(""))
            row.tell(note.text, note.kind)

    def show_in(self, selector: str, content: Content, wraps: bool = False) -> None:
        """Show a text; the screen is laid out anew only where its number of lines may have changed."""
        place = self.query_one(selector, Static)
        old = self._shown.get(selector)
        if content != old:
            self._shown[selector] = content
            grown = wraps or old is None or old.plain.count("\n") != content.plain.count("\n")
            place.update(content, layout=grown)

    @property
    def to_mend(self) -> list[str]:
        """Fields with something wrong, in the form's order."""
        return [name for name in self.fields if self.notes.get(name, Note("")).kind == "bad"]


def next_to_mend(form: FormFields) -> str:
    """The next field with something wrong, from the one with the focus on and round the end; "" for none."""
    names, order, here = form.to_mend, list(form.fields), form.field_here
    later = [name for name in names if here in form.fields and order.index(name) > order.index(here)]
    return next(iter(later or names), "")

"""What the setup form and the wizard do with what is typed: lists to choose from, folders laid out, the file written.

Every question is a dialog, every look at the disk another thread's. A file of the user's is never written over
unasked.
"""

from __future__ import annotations

from textual import on, work
from textual.widgets import Input

from engine.config import RunConfig
from engine.errors import EngineError
from engine.files import atomic_write, slug
from engine.text import safe_text
from tui.screens.dialogs import Choice as Answer
from tui.screens.dialogs import ChoiceDialog
from tui.screens.form_fields import FormFields
from tui.screens.pick import Offer, PickDialog
from tui.setup.fields import SLOTS, Field
from tui.setup.folders import guess_folder, lay_out, layout_for
from tui.setup.form import free_name
from tui.setup.models import described
from tui.widgets.fields import Choice, Entry


class FormWriting(FormFields):
    """The commands that both have."""

    def begin(self) -> None:
        """Start from what the work folder suggests."""
        work = self.form.folder
        self.form.values["folder"] = guess_folder(work)
        if (work / "image").is_dir() and (work / "model").is_dir():
            self.form.values["runs_dir"] = "model"

    def action_problem(self) -> None:
        """Go to the next field with something wrong. The screen's."""
        raise NotImplementedError

    def action_anew(self) -> None:
        """Forget everything typed."""
        self.form.begin(slug(self.form.folder.name, "my-lora"))
        self.form.changed.clear()
        self.form.notes = ()
        self.begin()
        self.untouched = True
        if self.finds is not None:
            self.take_finds(self.finds)
        self.refill()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        name = (event.input.id or "").removeprefix("field-")
        if name in SLOTS and (self.finds or {}).get(name):
            self.action_list()
        else:
            self.focus_next()

    @on(Choice.PickWanted)
    def _pick_wanted(self, event: Choice.PickWanted) -> None:
        self.action_list()

    @work(group="dialog", exclusive=True)
    async def action_list(self) -> None:
        """Offer what the focused field can hold."""
        await self.pick()

    async def pick(self) -> None:
        """Have something chosen from what the focused field can hold."""
        name = self.field_here
        field = self.fields.get(name)
        if field is None:
            return
        offers = await self.offers_for(field)
        if not offers:
            return
        foot = "nothing of it suits? esc, and type the path" if field.kind in ("file", "path") else ""
        taken = await self.app.push_screen_wait(PickDialog(field.label, offers, self.value_of(name), foot))
        control = self.control(name)
        if taken is not None and isinstance(control, Choice):
            control.take(taken)
        elif taken is not None and isinstance(control, Entry):
            control.value = taken

    async def offers_for(self, field: Field) -> list[Offer]:
        """What a field can hold, as far as it can be listed."""
        if field.kind == "choice":
            return [Offer(value, label) for value, label in self.options_of(field)]
        if field.kind == "file":
            infos = (self.finds or {}).get(field.id, ())
            return [
                Offer(str(info.path), f"{info.path.name}  {described(info)}", str(info.path.parent)) for info in infos
            ]
        if field.kind == "path":
            return [Offer(name, name) for name in await self._off(self._subfolders)]
        return []

    def _subfolders(self) -> list[str]:
        inside = self.form.folder.iterdir()
        return sorted(entry.name for entry in inside if entry.is_dir() and not entry.name.startswith("."))

    @work(group="dialog", exclusive=True)
    async def action_folders(self) -> None:
        """Lay out a dataset's folders after asking how."""
        root = safe_text(layout_for(self.form.dataset_folder).root, 200)
        offers = [
            Offer("empty", f"image, log and model in {root}", "pictures go to image, the run and its LoRAs to model"),
            Offer("demo", "the same, with example pictures", "16 of an unknown creature, to try everything out"),
        ]
        foot = "nothing that exists is touched; esc to go back"
        taken = await self.app.push_screen_wait(PickDialog("Lay out folders", offers, "", foot))
        if taken is None:
            return
        try:
            layout = await self._off(lay_out, self.form.dataset_folder, taken == "demo")
        except EngineError as err:
            self.app.show_error(err)
            return
        self.form.use_layout(layout, demo=taken == "demo")
        self._dataset = None
        self.refill()

    async def written(self) -> RunConfig | None:
        """Write what is typed, once all is looked at and nothing is wrong; None if it was not."""
        await self.settled()
        if self.to_mend or self.checked.others or self.checked.config is None:
            self.action_problem()
            return None
        try:
            if not await self._may_write():
                return None
            await self._off(atomic_write, self.form.path, self.checked.text)
            return self.workplace.open_config(self.form.path)
        except EngineError as err:
            self.app.show_error(err)
            return None

    async def _may_write(self) -> bool:
        """Ask before another file is written over; may change the name."""
        path = self.form.path
        try:
            if path.read_text(encoding="utf-8", errors="replace") == self.checked.text:
                return True
        except OSError:
            if not path.exists():
                return True
        free = free_name(self.workplace.folder, self.form.values["name"])
        question = ChoiceDialog(
            f"{path.name} is there already", "It holds other settings.",
            [Answer("other", "n", f"write {free}.toml instead"), Answer("over", "o", "write over it")],
        )  # fmt: skip
        answer = await self.app.push_screen_wait(question)
        if answer == "other":
            self.form.values["name"] = free
            self.refill()
        return answer is not None

"""Taking epochs along from the epochs screen: one as it is, or several averaged into a file of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from textual import work

from engine.errors import EngineError
from engine.events import EventLog
from engine.files import RunFolder
from tui.aside import aside
from tui.judged import Judged
from tui.places import is_shipped
from tui.run_loras import Spans, blend_name, files_of, spans_of, spelled
from tui.screens.epochs_moving import EpochsMoving
from tui.taking import NameTaken, file_of, found_targets, take, use_of, usual_name


class EpochsTaking(EpochsMoving):
    """The screen as far as files leave it."""

    def judge(self, judged: Judged) -> None:
        """Take other opinions, draw them and keep them."""
        raise NotImplementedError

    @work(exclusive=True, group="ask")
    async def action_use(self) -> None:
        """Copy this epoch's file to where it is used, and say how."""
        epoch = self.shown.epoch
        try:
            source = file_of(self.shown.rows, epoch)
            path = await self._taken(f"epoch {epoch}", source, usual_name(self.folder.name, epoch, source))
        except EngineError as err:
            self.app.show_error(err)
            return
        if path is None:
            return
        if self.judged is not None:
            self.judge(replace(self.judged, chosen=epoch))
        await self._tell_use(f"Epoch {epoch}", source, path)

    async def _tell_use(self, what: str, source: Path, path: Path) -> None:
        """Say how the file taken is used."""
        from tui.screens.take import UsageDialog

        config = self.around.config if self.around is not None else None
        trigger = config.dataset.captions.trigger_word if config is not None else ""
        demo = config is not None and is_shipped(config.model.transformer)
        told = await aside(self, self._pool, use_of, path, trigger, self.run.view.variant, demo)
        self.app.push_screen(UsageDialog(what, path, path != source, told))

    async def _taken(self, what: str, source: Path, name: str) -> Path | None:
        """Ask where to, and copy; None where the user thought better of it.

        Raises:
            EngineError: it cannot be copied.
        """
        from tui.screens.dialogs import Choice, ChoiceDialog
        from tui.screens.take import TakeDialog

        session, config = self.workplace.session, self.around.config if self.around is not None else None
        hints = [config.model.transformer] if config is not None else []
        targets = await aside(self, self._pool, found_targets, Path.home(), hints)
        folder, replacing = session.taken_to or (str(targets[0].folder) if targets else ""), False
        while True:
            if not replacing:
                dialog = TakeDialog(what, name, folder, targets, self.workplace.folder)
                answer = await self.app.push_screen_wait(dialog)
                if answer is None:
                    return None
                name, folder = answer.split("\n")
            if not folder:
                return source
            try:
                where = self.workplace.folder / Path(folder).expanduser()
                path = await aside(self, self._pool, take, source, where, name, replacing)
            except NameTaken as err:
                choices = [Choice("other", "o", "Another name"), Choice("replace", "r", "Replace the file there")]
                answer = await self.app.push_screen_wait(ChoiceDialog(err.title, err.detail, choices))
                if answer is None:
                    return None
                replacing = answer == "replace"
                continue
            session.taken_to = folder
            return path

    @work(exclusive=True, group="ask")
    async def action_blend(self) -> None:
        """Average several epochs' files into a new one beside them, and take it along."""
        from tui.screens.blend import BlendDialog

        advice = self.shown.advice
        span = (advice.first, advice.last) if advice.best else (self.shown.rows[0].epoch, self.shown.epoch)
        if 0 <= self.marked != self.shown.epoch:
            span = min(self.marked, self.shown.epoch), max(self.marked, self.shown.epoch)
        saved = [row.epoch for row in self.shown.rows if row.epoch and self.shown.files_of(row)]
        answer = await self.app.push_screen_wait(BlendDialog(spelled([span]), saved))
        if answer is None:
            return
        self.app.say("Blending")
        try:
            source = await aside(self, self._pool, self._blended, spans_of(answer))
            self.app.say(f"Written: {source.name}; kiln measure --lora measures it like an epoch")
            path = await self._taken("the blend", source, source.name)
        except EngineError as err:
            self.app.show_error(err, heading="The epochs were not blended")
            return
        if path is not None:
            await self._tell_use("The blend", source, path)

    def _blended(self, spans: Spans) -> Path:
        """The new file. Runs in a thread.

        Raises:
            EngineError: fewer than two files, files that do not belong together, or one that cannot be written.
        """
        from engine.jobs import blend_loras

        folder = RunFolder(self.folder)
        files = files_of(folder, spans)
        out = blend_name(folder, files)
        blend_loras(files, [1.0] * len(files), out, EventLog())
        return out

"""What the setup form finds out on the disk, off the screen's thread: model files, the dataset's pictures.

The part of setup form and wizard that draws nothing. Every look is begun anew when what it depends on changes; the
earlier one is dropped. :attr:`busy` tells whether an answer is still due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from textual import work
from textual.content import Content
from textual.screen import Screen

from engine.config import DatasetConfig
from engine.config_file import examine
from engine.dataset.scan import Scan, collect
from engine.errors import EngineError
from tui.aside import aside
from tui.setup.fields import FILES, SLOTS
from tui.setup.form import Checked, SetupForm
from tui.setup.models import Finds, Verdict, judge, search
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.app import KilnApp

Result = TypeVar("Result")

PATIENCE_S = 0.25
"""How long typing rests before the disk is looked at."""


class Looks(Screen[str | None]):
    """The background part of the setup form."""

    app: KilnApp

    def __init__(self, workplace: Workplace) -> None:
        super().__init__()
        self.workplace = workplace
        self.form: SetupForm
        self.checked: Checked
        self.finds: Finds | None = None
        self.verdicts: dict[str, Verdict] = {}
        self.scan: Scan | EngineError | None = None
        """What the dataset's folder holds; None while it is being looked at."""
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="setup")
        self._dataset: object = None
        self._judged: dict[str, str] = {}
        self._pending: set[str] = set()
        self._settled = asyncio.Event()
        self._shown: dict[str, Content] = {}

    def on_unmount(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether something is still being looked at."""
        return bool(self._pending)

    async def settled(self) -> None:
        """Wait until nothing is being looked at."""
        while self.busy:
            self._settled.clear()
            await self._settled.wait()

    def looked(self) -> None:
        """Something was found out: show it. The screen's."""
        raise NotImplementedError

    def look(self) -> None:
        """Look again at whatever changed since it was looked at."""
        if self.form.values["base"] == FILES:
            for slot in SLOTS:
                self._look_at_slot(slot)
        else:
            self._judged.clear()
            self.verdicts.clear()
        wanted = (self.checked.table["dataset"], self.form.folder)
        if wanted != self._dataset:
            self._dataset = wanted
            self.scan = None
            self._due("dataset")
            self._count()

    def _look_at_slot(self, slot: str) -> None:
        text = self.form.values[slot]
        if self._judged.get(slot) != text:
            self._judged[slot] = text
            self._due(slot)
            self.run_worker(self._judge(slot, text), group=f"slot-{slot}", exclusive=True)

    def _due(self, what: str) -> None:
        self._pending.add(what)

    def _done(self, what: str) -> None:
        self._pending.discard(what)
        if not self._pending:
            self._settled.set()
        self.looked()

    async def _off(self, job: Callable[..., Result], *args: Any) -> Result:
        return await aside(self, self._pool, job, *args)

    def tell_skipped(self) -> None:
        """Say which recipes of the user's cannot be chosen, and why."""
        for problem in self.form.skipped:
            self.app.warn(problem)

    @work(exclusive=True, group="find")
    async def find_models(self) -> None:
        """Search this machine for model files."""
        self._due("models")
        folders = [*self.workplace.settings.model_roots, self.form.folder / "models"]
        self.finds = await self._off(search, folders)
        self.take_finds(self.finds)
        self._done("models")

    def take_finds(self, finds: Finds) -> None:
        """Model files were found. The screen's."""
        raise NotImplementedError

    async def _judge(self, slot: str, text: str) -> None:
        await asyncio.sleep(PATIENCE_S)
        self.verdicts[slot] = await self._off(judge, slot, text, self.form.folder)
        self._done(slot)

    @work(exclusive=True, group="count")
    async def _count(self) -> None:
        """Count the pictures of the folder that is typed, as the trainer would find them."""
        await asyncio.sleep(PATIENCE_S)
        table, source = self.checked.table["dataset"], self.form.path
        self.scan = await self._off(self._collected, table, source)
        self._done("dataset")

    def _collected(self, table: dict[str, Any], source: Path) -> Scan | EngineError | None:
        config, problems = examine(table, DatasetConfig, source)
        if config is None or problems:
            return None
        try:
            return collect(config, self.workplace.decoder)
        except EngineError as err:
            return err

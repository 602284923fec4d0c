"""Has the wizard's plan made: asks the planner in a thread, whenever what it would be asked is another question.

One question at a time: what changes meanwhile is asked when the answer is there. What was planned last stays in sight
until then, so that bars move from one value to the next.
"""

from __future__ import annotations

from datetime import datetime

from textual import work

from engine.dataset.scan import Scan
from engine.errors import EngineError
from engine.files import default_cache_dir
from profiles.schema import Fit, Reasoned
from tui.screens.form_writing import FormWriting
from tui.setup import choices
from tui.wizard import pages
from tui.wizard.asked import Question, question
from tui.wizard.planner import Place, Planner
from tui.workplace import Workplace


class Planning(FormWriting):
    """The part of the wizard that knows places and plan.

    Args:
        workplace: as the form's.
        planner: whom to ask.
    """

    def __init__(self, workplace: Workplace, planner: Planner) -> None:
        super().__init__(workplace)
        self.planner = planner
        self.answers = workplace.session.wizard
        self.places: tuple[Place, ...] = ()
        self.fit: Fit | None = None
        self.reasons: tuple[Reasoned, ...] = ()
        """Of the last plan: while another is refused, its settings can still be changed."""
        self.refused: EngineError | None = None
        """Why there is no plan, where the planner says so."""
        self._asked = ""
        self._planning = False

    @property
    def now(self) -> datetime:
        """The time, for wishes like "done by 07:00"."""
        return datetime.now()

    @property
    def place(self) -> Place | None:
        """Where it would be trained: what was chosen, else the best; None before they are known."""
        named = [place for place in self.places if place.device == self.answers["place"]]
        return next(iter(named or self.places), None)

    @property
    def planning(self) -> bool:
        """Whether an answer is due."""
        return self._planning

    @property
    def busy(self) -> bool:
        """Whether something is being looked at, or planned."""
        return bool(self._pending) or self._planning

    @work(exclusive=True, group="places")
    async def find_places(self) -> None:
        """Read the machine."""
        self._due("places")
        config = self.checked.config
        cache = config.cache_dir if config is not None and config.cache_dir is not None else default_cache_dir()
        runs = self.form.folder / self.form.values["runs_dir"].strip()
        try:
            self.places = await self._off(self.planner.places, cache, runs)
        except EngineError as err:
            self.app.show_error(err)
        self._done("places")
        self.refill()

    def _question(self) -> Question | None:
        place = self.place
        if place is None or not isinstance(self.scan, Scan) or not self.scan.samples or pages.missing(self.notes):
            return None
        return question(self.form, self.checked, self.scan, self.answers, place.device, self.now)

    def plan(self) -> None:
        """Ask, if there is something new to ask."""
        asked = self._question()
        if asked is None:
            self._asked = ""
            self.fit = self.refused = None
            return
        if asked.key(self.checked.table) != self._asked and not self._planning:
            self._planning = True
            self._ask()

    @work(group="plan")
    async def _ask(self) -> None:
        """Ask until the answer is that of the newest question."""
        while (asked := self._question()) is not None and (key := asked.key(self.checked.table)) != self._asked:
            self._asked = key
            place = self.place
            assert place is not None
            try:
                self.fit = await self._off(self._planned, asked, place)
                self.refused, self.reasons = None, self.fit.reasons
            except EngineError as err:
                self.fit, self.refused = None, err
            if (now := self._question()) is not None and now.key(self.checked.table) == key:
                self._take_fit(asked, place)
        self._planning = False
        if not self._pending:
            self._settled.set()
        self.refill()

    def _planned(self, asked: Question, place: Place) -> Fit:
        job = self.planner.job(asked.config, asked.scan)
        return self.planner.solve(job, place.machine, asked.wishes, asked.fixed, asked.start)

    def _take_fit(self, asked: Question, place: Place) -> None:
        """Write what was chosen into the form."""
        if self.fit is None:
            return
        changes = {reasoned.key: reasoned.value for reasoned in self.fit.reasons if reasoned.key}
        device = {"training.device": place.device} if len(self.places) > 1 else {}
        choices.take(self.form.values, changes | device, asked.fixed)
        self.checked = self.form.check()

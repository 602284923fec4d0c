"""What the planner is asked, taken from the form: the same question is asked once, whatever the answer changed.

The solver's own choices are part of the configuration too. They are left out of the question, so that taking over an
answer asks nothing new.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.config import RunConfig
from engine.config_file import examine
from engine.dataset.scan import Scan
from profiles.schema import Settings, Wishes
from tui.setup import choices
from tui.setup.fields import SLOTS, schema_default
from tui.setup.form import Checked, SetupForm
from tui.setup.tables import drop, lookup
from tui.wizard.answers import wishes_of

OWN_FIELDS = ("training.batch_size", "training.accumulation", "optimizer.name")
"""Settings that the solver chooses and the form has fields for."""

_CHOSEN = (*OWN_FIELDS, "training.gradient_checkpointing", "training.device", "memory")


@dataclass(frozen=True)
class Question:
    """A configuration on a dataset, what is fixed of it, and what is wished.

    Attributes:
        wished: the wishes as they are typed: a time of day is another wish every second, but the same question.
        device: where it would train.
    """

    config: RunConfig
    scan: Scan
    wishes: Wishes
    wished: tuple[str, ...]
    fixed: dict[str, Any]
    start: Settings
    device: str

    def key(self, table: dict[str, Any]) -> str:
        """The same for the same question; ``table`` is the configuration's."""
        left = copy.deepcopy(table)
        for name in _CHOSEN:
            drop(left, name)
        return json.dumps([left, self.fixed, self.wished, repr(self.start), self.device, id(self.scan)])


def question(
    form: SetupForm, checked: Checked, scan: Scan, answers: dict[str, str], device: str, now: datetime
) -> Question | None:
    """What to ask now; None while the configuration is not right. Model files need not be there."""
    config = _assumed(checked, form)
    if config is None:
        return None
    recipe = form.recipe()
    start = {key: lookup(recipe, key, schema_default(key)) for key in OWN_FIELDS}
    lora = config.lora
    goals = Settings(
        rank=lora.rank,
        targets=lora.targets,
        optimizer=str(start["optimizer.name"]),
        batch=int(start["training.batch_size"]),
        accumulation=int(start["training.accumulation"]),
    )
    fixed = choices.fixed(form.values, start)
    wished = tuple(answers[name] for name in ("aim", "leave", "done", "nf4"))
    return Question(config, scan, wishes_of(answers, now), wished, fixed, goals, device)


def _assumed(checked: Checked, form: SetupForm) -> RunConfig | None:
    """The configuration; where nothing but model files is missing, under names that stand for them."""
    if checked.config is not None or checked.others or checked.problems.keys() - SLOTS.keys():
        return checked.config
    names = {slot: f"{slot}-not-here.safetensors" for slot in SLOTS if slot in checked.problems}
    table = {**checked.table, "model": {**checked.table["model"], **names}}
    config, problems = examine(table, RunConfig, form.path)
    return None if problems else config

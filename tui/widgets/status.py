"""The two lines on top: what the run is and does, and how far it is. Also the one line of a tiny terminal."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from rich.cells import cell_len
from textual.strip import Strip

from engine.text import safe_text
from tui.glyphs import Glyphs
from tui.units import duration, short_time
from tui.view import RunView
from tui.widgets.cells import CellWidget, Run, strip_of

STATE_CLASSES = {
    "paused": "status--held",
    "released": "status--held",
    "finished": "status--good",
    "stopped": "status--held",
    "failed": "status--bad",
}


def state_words(view: RunView, glyphs: Glyphs) -> str:
    """Glyph and word of the state: ``● TRAINING``."""
    words = {
        "new": "READY",
        "released": "PAUSED, MEMORY FREED",
        "caching": "PREPARING CACHES",
        "loading": "LOADING THE MODEL",
    }
    return f"{glyphs.states.get(view.state, glyphs.waiting)} {words.get(view.state, view.state.upper())}"


def plan_words(view: RunView) -> str:
    """What is planned or waited for in words, or nothing."""
    if view.held:
        return f"{view.state_reason}: space tries again" if view.state_reason else "space goes on"
    return f"stops after epoch {view.stop_epoch}" if view.stop_epoch and view.live else ""


def advance_words(view: RunView) -> list[str]:
    """Epoch, step, speed and time left, the most important first."""
    if not view.steps:
        return []
    epoch = max(view.epoch, 1 if view.step else 0)
    parts = [f"step {view.step}/{view.steps}"]
    if view.epochs:
        parts.insert(0, f"epoch {epoch}/{view.epochs}")
    if view.skipped:
        parts.append(f"{len(view.skipped)} left out")
    if view.step_s is not None:
        parts.append(f"{short_time(view.step_s)}/step")
    if view.live:
        parts.append(f"ETA {duration(view.eta_s)}")
    elif view.done is not None:
        parts.append(f"took {duration(view.done.elapsed_s)}")
    return parts


class StatusLine(CellWidget):
    """Name, state, advance and plan of the run in one line."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "status--name", "status--dim", "status--live", "status--held", "status--good", "status--bad", "status--plan",
    }  # fmt: skip
    TOPICS = frozenset({"state", "step", "epoch", "stage"})

    title = ""
    """What is shown instead of a run's name while there is none."""
    machine = ""
    """What is trained on."""
    ready = True
    """Whether there is something to train."""
    holder = ""
    """The process that trains the run when it is not this one."""
    besides = ""
    """What else is going on."""

    def tell(self, title: str, machine: str, ready: bool, holder: str = "") -> None:
        """Take what is no matter of the run's events."""
        if (title, machine, ready, holder) != (self.title, self.machine, self.ready, self.holder):
            self.title, self.machine, self.ready, self.holder = title, machine, ready, holder
            self.refresh()

    def tell_besides(self, words: str) -> None:
        """Say what goes on besides the run; nothing when empty."""
        if words != self.besides:
            self.besides = words
            self.refresh()

    def content_key(self) -> Hashable:
        """What the line says."""
        view = self.view
        return (
            self.besides,
            self.title,
            self.machine,
            self.holder,
            view.name,
            view.state,
            view.variant,
            plan_words(view),
            tuple(advance_words(view)),
            view.stage,
        )

    def paint(self, width: int, height: int) -> list[Strip]:
        """One line; parts that find no room are left out, the state never."""
        view, blank = self.view, self.rich_style
        elsewhere = f" ELSEWHERE (process {self.holder})" if self.holder else ""
        state = (
            state_words(view, self.glyphs) + elsewhere,
            self.style_of(STATE_CLASSES.get(view.state, "status--live")),
        )
        if view.state == "new" and not self.ready:
            state = (f"{self.glyphs.states['new']} NOTHING TO TRAIN YET", self.style_of("status--dim"))
        name = (safe_text(view.name or self.title or "lorakiln", 40), self.style_of("status--name"))
        dim = self.style_of("status--dim")
        plain = [(part, blank) for part in [*filter(None, [self.besides]), *advance_words(view)]]
        if width < 60:
            return [strip_of(_fit([state, *plain, name], width, blank), width, blank)]
        plan = plan_words(view)
        model = f"{view.family} {view.variant}".strip()
        # The plan comes first: on a narrow line it is worth more than speed and time left.
        first: list[Run] = [(plan, self.style_of("status--plan"))] if plan else []
        extra: list[Run] = []
        if width >= 120 and model:
            extra.append((f"{safe_text(model, 30)} {self.glyphs.dot} {view.images} pictures", dim))
        if self.machine:
            extra.append((self.machine, dim))
        return [strip_of(_fit([name, state, *first, *plain, *extra], width, blank), width, blank)]


def _fit(parts: list[Run], width: int, blank: object, gap: str = "   ") -> list[Run]:
    """The leading parts that fit into ``width``, with gaps between."""
    runs: list[Run] = []
    used = 1
    for text, style in parts:
        need = cell_len(text) + (len(gap) if runs else 0)
        if runs and used + need > width:
            break
        runs.append((gap if runs else " ", blank))  # type: ignore[arg-type]
        runs.append((text, style))
        used += need
    return runs


class ProgressLine(CellWidget):
    """A thin bar over the whole width: the steps done, or the stage in progress before them."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"progress--done", "progress--left", "progress--text"}
    TOPICS = frozenset({"state", "step", "stage"})

    def content_key(self) -> Hashable:
        """The part done and its label."""
        return self._part()

    def paint(self, width: int, height: int) -> list[Strip]:
        """Bar and label."""
        part, text = self._part()
        room = max(1, width - len(text) - 3)
        filled = min(room, round(part * room))
        runs: list[Run] = [
            (" ", self.rich_style),
            (self.glyphs.bar * filled, self.style_of("progress--done")),
            (self.glyphs.rail * (room - filled), self.style_of("progress--left")),
            (f" {text}", self.style_of("progress--text")),
        ]
        return [strip_of(runs, width, self.rich_style)]

    def _part(self) -> tuple[float, str]:
        view = self.view
        stage = view.stages.get(view.stage)
        if stage is not None and not len(view.courses.step) and view.live:
            part = stage.done / stage.total if stage.total else 0.0
            return part, safe_text(f"{stage.name} {stage.done}/{stage.total}", 40)
        part = view.step / view.steps if view.steps else 0.0
        return part, f"{part * 100:3.0f} %"

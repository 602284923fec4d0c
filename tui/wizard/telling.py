"""What the wizard's pages say: verdicts, warnings, the review, a value's reason and alternatives."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from textual.content import Content

from engine.dataset.scan import Scan
from engine.text import safe_text
from profiles.advice import Advice
from profiles.schema import Fit, Reasoned
from tui.setup.fields import SLOTS
from tui.setup.notes import Known, Note, steps_line
from tui.widgets.cells import wrap
from tui.widgets.wizard import Act
from tui.wizard import lengths, pages, pilot, suitability, summary
from tui.wizard.answers import price_of
from tui.wizard.planner import Place

if TYPE_CHECKING:
    from textual.widget import Widget

    from engine.errors import EngineError

LABEL = 11

PROBLEMS = 5
"""Of the dataset's, as many as are told here."""

HINT = "- "
"""Before a hint of the recipe."""

VALUE_KEYS = "left and right change it, digits too; enter lists what it costs; delete has it chosen again"


class Planned(Known, Protocol):
    """What the words are made from."""

    answers: dict[str, str]
    notes: dict[str, Note]
    fit: Fit | None
    refused: EngineError | None

    @property
    def place(self) -> Place | None:
        """Where it would train."""

    @property
    def planning(self) -> bool:
        """Whether an answer is due."""

    @property
    def now(self) -> datetime:
        """The time."""


def of_page(name: str, planned: Planned) -> list[Note]:
    """What stands under a page's first sentence."""
    if name == "lora":
        return [suitability.verdict(planned.answers)]
    if name == "goal":
        return [Note(steps_line(planned)), *_hints(planned, "captions")]
    if name == "fit":
        return _verdict(planned)
    if name == "dataset":
        return _dataset(planned)
    return _verdict(planned) if name == "review" else []


def _dataset(planned: Planned) -> list[Note]:
    """What was found in the folder, and the first of what is wrong with it."""
    scan = planned.scan
    if not isinstance(scan, Scan) or not scan.samples:
        return []
    sizes = sorted((sample.width * sample.height, sample.width, sample.height) for sample in scan.samples)
    out = f"; {scan.excluded} pictures are excluded" if scan.excluded else ""
    told = [Note(f"From {sizes[0][1]}x{sizes[0][2]} to {sizes[-1][1]}x{sizes[-1][2]} pixels{out}")]
    for problem in scan.problems[:PROBLEMS]:
        kind = "bad" if problem.severity == "error" else "changed"
        told.append(Note(f"{problem.path.rpartition('/')[2]}: {problem.message}", kind))
    if (few := advised(planned).get("")) is not None:
        told.append(Note(few.text, "changed"))
    left = len(scan.problems) - PROBLEMS
    told += [Note(f"and {left} more: the dataset pane lists them all", "changed")] if left > 0 else []
    return told + _hints(planned, "pictures")


def advised(planned: Planned) -> dict[str, Advice]:
    """What the recipe has against the configuration, by field; "" for what has none."""
    config, scan = planned.checked.config, planned.scan
    if config is None or not isinstance(scan, Scan):
        return {}
    return lengths.advised(config, lengths.recipe_of(planned.form), scan.samples)


def _hints(planned: Planned, about: str) -> list[Note]:
    """What the recipe says of pictures or captions."""
    recipe = lengths.recipe_of(planned.form)
    if recipe is None:
        return []
    hints = recipe.file.hints
    given = hints.pictures if about == "pictures" else hints.captions
    return [Note(f"{HINT}{safe_text(text, 300)}") for text in given]


def _verdict(planned: Planned) -> list[Note]:
    """Whether it fits, what to mind, and what would have to change."""
    fit, place = planned.fit, planned.place
    if fit is None or place is None:
        return [Note(no_plan(planned))]
    absent = [slot for slot in SLOTS if planned.notes.get(slot, Note("")).kind == "bad"]
    kind = {"fits": "good", "fits, slowly": "changed"}.get(fit.verdict, "bad")
    told = [Note(summary.verdict_words(fit, place), kind)]
    if absent:
        told.append(Note(f"Planned with FLUX.1-dev's published files: {_listed(absent)} missing", "changed"))
    told += [Note(text, "changed") for text in fit.warnings]
    told += [Note(text, "bad") for text in fit.remedies]
    return told + [Note(text) for text in place.machine.remarks]


def _listed(slots: list[str]) -> str:
    names = [SLOTS[slot] for slot in slots]
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"


def no_plan(planned: Planned) -> str:
    """Why nothing is forecast yet."""
    if planned.refused is not None:
        return f"{planned.refused.title}: {planned.refused.detail}. {planned.refused.hint}"
    if why := pages.missing(planned.notes):
        return f"Memory and time: {why}"
    if planned.checked.others or planned.checked.problems.keys() - SLOTS.keys():
        return "Memory and time: known once a setting that has no field here is right. F3 shows all of them"
    return "Memory and time: being worked out..."


def review(planned: Planned) -> list[summary.Line]:
    """What would be trained, and what comes of it; what a pilot showed."""
    config, fit, place = planned.checked.config, planned.fit, planned.place
    if config is None or fit is None or place is None:
        return []
    lines = summary.review(config, fit, place, steps_line(planned), price_of(planned.answers))
    showed = planned.answers.get("pilot", "")
    return lines + ([("pilot", showed)] if showed else [])


def also(planned: Planned) -> list[summary.Line]:
    """What needs no choice, and why."""
    reasons = planned.fit.reasons if planned.fit is not None else ()
    return [(reasoned.label, f"{reasoned.value}. {reasoned.reason}") for reasoned in reasons if not reasoned.key]


def figures(planned: Planned) -> list[summary.Line]:
    """Time, disk and cost."""
    if planned.fit is None or planned.place is None:
        return []
    return summary.figures(planned.fit, planned.place.machine, price_of(planned.answers), planned.now)


def headline(planned: Planned) -> str:
    """The plan in a line."""
    if planned.fit is None:
        return ""
    return summary.headline(planned.fit)


def pairs(lines: list[summary.Line], width: int, label_cells: int = LABEL) -> Content:
    """Labels and what belongs to them, wrapped beside the label."""
    rows = []
    for label, text in lines:
        for number, piece in enumerate(wrap(safe_text(text, 400), max(20, width - label_cells))):
            rows.append(Content.assemble((f"{'' if number else label:<{label_cells}}", "$foreground-muted"), piece))
    return Content("\n").join(rows)


def value(reasoned: Reasoned) -> Content:
    """A setting's value, reason and alternatives, as a small table."""
    mine = "yours" if reasoned.fixed else "chosen for this machine"
    words = summary.value_words(reasoned.key, reasoned.value)
    lines = [
        Content.assemble((f"{reasoned.label}: {words}", "bold $text-accent"), f"  {mine}"),
        Content(safe_text(reasoned.reason, 400)),
    ]
    others = [(summary.value_words(reasoned.key, name), fits, text) for name, fits, text in summary.instead(reasoned)]
    widest = max((len(name) for name, _, _ in others), default=0)
    if others:
        lines.append(Content.styled("Instead, with all else chosen around it:", "$foreground-muted"))
        lines.append(Content.styled(f"  {'':<{widest}} {'card':>8} {'host':>7} {'step':>8}", "$foreground-muted"))
    for name, fits, text in others:
        style = "" if fits else "$text-warning"
        lines.append(Content.styled(safe_text(f"  {name:<{widest}} {text}", 200), style))
    return Content("\n").join(lines)


def value_line(reasoned: Reasoned) -> str:
    """The same for a narrow screen: the reason, then the others with what they would need."""
    others = "; ".join(
        f"{summary.value_words(reasoned.key, summary.plain(other.value))}: "
        + (f"{other.vram_gb:.1f} GB, {other.step_s:.1f} s" if other.fits else "does not fit")
        for other in reasoned.alternatives
    )
    why = "Yours; delete has it chosen again." if reasoned.fixed else reasoned.reason
    return f"{why} Instead {others}" if others else why


def act_words(what: str, planned: Planned) -> str:
    """What a button of the review would begin: steps, and how long they take."""
    fit = planned.fit
    if what == "write":
        return f": {safe_text(planned.form.path.name, 100)}"
    if fit is None:
        return ""
    if what == "start":
        return f": {fit.forecast.steps:,} steps, {summary.about(fit.forecast.total_s)}"
    steps = pilot.steps_for(fit)
    if steps >= fit.forecast.steps:
        return ": the run itself is no longer"
    return f": {steps} steps, about {summary.about(pilot.seconds_for(fit, steps))} in all"


def hint_of(widget: Widget | None) -> str:
    """What a button does, or how to move where nothing is in focus."""
    told = {
        "start": "Writes the configuration and starts the run; the workbench shows it",
        "pilot": "A run of a few minutes in a folder of its own: shows that it holds, and how long a step takes",
        "write": "Writes the configuration and starts nothing",
    }
    if isinstance(widget, Act):
        return told.get(widget.what, "enter goes on; page down and page up turn the pages from anywhere")
    return "arrows scroll; page down and page up turn the pages"

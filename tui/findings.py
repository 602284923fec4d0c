"""What a check of the dataset found, as lines of a list; and the check itself, as the screen runs it.

A finding is a heading with a line for each picture that has it. Comes in: the workplace. Goes out: lines, words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.dataset.check import Inspection, Options, inspect_dataset
from engine.dataset.findings import TITLES, Finding, grouped
from engine.dataset.problems import Problem
from engine.dataset.quality_check import crop_without_border
from engine.dataset.variety import Band
from engine.files import default_cache_dir
from engine.text import safe_text

if TYPE_CHECKING:
    from tui.workplace import Workplace

MOST_LINES = 200
"""Pictures listed of one finding."""

FIXES = {
    "encoding": "f reads it in another encoding and writes it as UTF-8",
    "convert": "f makes a plain PNG of it",
    "rename": "f gives it a name of its own",
    "exclude": "f leaves it out of training",
    "crop": "f crops it",
}


@dataclass(frozen=True)
class Line:
    """One line: a finding's heading, or a picture that has it."""

    finding: Finding
    problem: Problem | None = None
    text: str = ""

    @property
    def about(self) -> str:
        """Reason, and what to do, safe to show."""
        if self.problem is None:
            told = self.finding.problems[0]
            first = told.message if len(self.finding.problems) == 1 else self.finding.title
            hints, fix = self.finding.hints[:3], self.finding.fix
        else:
            first, hints, fix = self.problem.message, (self.problem.hint,), self.problem.fix
        own = FIXES.get(fix, "")
        if own and self.problem is None:
            own = own.replace("f ", "F ", 1).replace(" it", " each")
        return "\n".join(part for part in (first, *hints, own) if part)

    @property
    def path(self) -> Path | None:
        """The picture that it is about; a heading's first."""
        return (self.problem or self.finding.problems[0]).file


def lines_of(problems: tuple[Problem, ...]) -> list[Line]:
    """Headings with their pictures, the worst first."""
    lines = []
    for finding in grouped(problems):
        told = finding.problems
        if len(told) == 1:
            of_all = finding.code not in TITLES  # of the whole set: it says itself what it is about
            lines.append(Line(finding, told[0], told[0].message if of_all else f"{finding.title}: {_name(told[0])}"))
            continue
        lines.append(Line(finding, None, f"{finding.title}: {len(told):,}"))
        lines += [Line(finding, each, f"  {_name(each)}") for each in told[:MOST_LINES]]
        if len(told) > MOST_LINES:
            lines.append(Line(finding, None, f"  and {len(told) - MOST_LINES:,} more"))
    return lines


def _name(found: Problem) -> str:
    return safe_text(found.file.name, 120) if found.file is not None else found.path


def summary(found: Inspection) -> str:
    """One line that sums up."""
    counts = {level: sum(each.severity == level for each in found.problems) for level in ("error", "warning", "note")}
    told = ", ".join(f"{count:,} {level}{'' if count == 1 else 's'}" for level, count in counts.items() if count)
    return f"{len(found.rows):,} pictures: {told or 'nothing is wrong'}"


def inspect(place: Workplace, progress: Callable[[int, int], None], stop: Callable[[], bool]) -> Inspection:
    """Check the dataset that is open; slow, for a thread.

    Raises:
        EngineError: it cannot be checked.
        Stopped: ``stop`` said so.
    """
    catalog, config = place.catalog, place.config
    dataset = catalog.dataset
    assert dataset is not None
    options = Options(
        tokenizers=catalog.tokenizers,
        t5_limit=catalog.t5_limit,
        batch_size=config.training.batch_size if config is not None else 1,
        held_out=config.validation.folder if config is not None else None,
        band=_band(place),
        cache=default_cache_dir(),
        progress=progress,
        stop=stop,
    )
    found = inspect_dataset(dataset, options)
    catalog.measured()
    return found


def _band(place: Workplace) -> Band | None:
    """How many pictures the recipe wants that the set-up form was filled from last; None where it was from none."""
    from profiles.recipes import all_recipes

    recipe = all_recipes()[0].get(place.session.form.get("preset", ""))
    if recipe is None:
        return None
    wanted = recipe.file.pictures
    return Band(recipe.file.title, wanted.least, wanted.best, wanted.most)


def crops_of(found: Inspection) -> dict[Path, tuple[int, ...]]:
    """What is left of each picture without its bars."""
    return {
        row.sample.path: crop_without_border(row.seen.measures.border, *row.sample.picture_size)
        for row in found.rows
        if row.seen is not None and row.seen.measures.has_border
    }

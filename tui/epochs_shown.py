"""What the epochs screen shows, as one value: its parts draw from it alone, so they never disagree.

:func:`gather` makes it anew when the run has told something; moving the cursor only replaces two numbers in it. What
needs the disk (opinions, which files there are, the dataset's pictures) is read by :func:`read_around`, in a thread.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from statistics import fmean

from engine.config import RunConfig, StopConfig
from engine.config_file import load_config
from engine.dataset.captions import with_trigger
from engine.dataset.problems import Problem
from engine.dataset.scan import caption_of, trained_pairs
from engine.errors import EngineError
from engine.events import Measured, SampleSaved
from engine.files import RunFolder
from engine.training.advisor import Advice
from tui.epochs import Cell, EpochRow, Prompt, advice_of, epoch_rows, grid_of, prompts_of
from tui.epochs_own import OwnPictures, own_pictures
from tui.judged import Judged
from tui.view import RunView

MOST_PICTURES = 2000
"""Pictures of a dataset that are shown beside samples."""

_versions = count(1)


@dataclass(frozen=True)
class Around:
    """What lies around a run on the disk.

    Attributes:
        config: the run's configuration; None where it cannot be read.
        files: names of the LoRA files there are.
        captions: of the dataset's pictures, by path, as they are trained on.
    """

    config: RunConfig | None = None
    files: frozenset[str] = frozenset()
    captions: tuple[tuple[Path, str], ...] = ()

    @property
    def stop(self) -> StopConfig | None:
        """The run's own limits for the advisor."""
        return self.config.stop if self.config is not None else None


@dataclass(frozen=True)
class Shown:
    """Everything that is drawn.

    Attributes:
        epochs: of all rows, rising.
        columns: epochs that have a picture at full strength, and those that have one at any, rising.
        scored: for each kind of score the mean over an epoch's pictures, epoch by epoch.
        copies: how many pictures of an epoch are nearly copies of training pictures; none is left out.
        own: the dataset's pictures, for each prompt the nearest first.
        own_at: the place in that order of the first one in sight.
        at: the row that the cursor is on.
        prompt: the line of the grid that the cursor is on.
        signal: the number of the curve that is shown.
        by_strength: the grid shows one prompt over strengths, not all prompts.
        untouched: the user has not moved the cursor, nor judged: it goes to the epoch that is advised by now.
        version: another one whenever anything but cursor and signal is.
    """

    folder: Path = Path()
    name: str = ""
    state: str = "new"
    live: bool = False
    planned: int = 0
    rows: tuple[EpochRow, ...] = ()
    advice: Advice = field(default_factory=lambda: Advice("unclear"))
    measured: tuple[Measured, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    grid: Mapping[Cell, SampleSaved] = field(default_factory=dict)
    columns: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    scored: tuple[tuple[str, tuple[tuple[int, float], ...]], ...] = ()
    copies: Mapping[int, int] = field(default_factory=dict)
    own: OwnPictures = field(default_factory=OwnPictures)
    judged: Judged = field(default_factory=Judged)
    files: frozenset[str] = frozenset()
    at: int = 0
    prompt: int = 0
    signal: int = 0
    by_strength: bool = False
    own_at: int = 0
    untouched: bool = True
    version: int = 0

    @property
    def row(self) -> EpochRow | None:
        """The row under the cursor."""
        return self.rows[self.at] if 0 <= self.at < len(self.rows) else None

    @property
    def epoch(self) -> int:
        """The epoch under the cursor; -1 where there is none."""
        return self.row.epoch if self.row is not None else -1

    @property
    def epochs(self) -> list[int]:
        """All epochs there is something of."""
        return [row.epoch for row in self.rows]

    @property
    def drawn(self) -> tuple[int, ...]:
        """Epochs that have a picture, of any strength where strengths are shown."""
        return self.columns[self.by_strength]

    @property
    def strengths(self) -> list[float]:
        """Strengths at which the prompt under the cursor was drawn."""
        index = self.current_prompt.index if self.current_prompt is not None else -1
        return sorted({strength for _, prompt, strength in self.grid if prompt == index})

    @property
    def current_prompt(self) -> Prompt | None:
        """The prompt under the cursor."""
        return self.prompts[self.prompt] if 0 <= self.prompt < len(self.prompts) else None

    @property
    def is_measured(self) -> bool:
        """Whether a loss was measured at all."""
        return any(one.held_out or one.train for one in self.measured)

    def files_of(self, row: EpochRow) -> list[Path]:
        """The files of an epoch that are there."""
        return [path for path in row.files if path.name in self.files]

    def moved(self, at: int) -> Shown:
        """The same with the cursor on another row, as far as there is one."""
        return replace(self, at=max(0, min(at, len(self.rows) - 1)))

    def at_epoch(self, epoch: int) -> Shown:
        """The same with the cursor on ``epoch``, or on the nearest row before it."""
        before = [number for number, row in enumerate(self.rows) if row.epoch <= epoch]
        return self.moved(before[-1] if before else 0)


def gather(view: RunView, folder: Path, judged: Judged, around: Around, before: Shown | None) -> Shown:
    """The newest state; a cursor that was moved stays on its epoch, else it is on the chosen or the advised one."""
    advice = advice_of(view, around.stop)
    rows = tuple(epoch_rows(view, folder, judged, advice))
    prompts = tuple(prompts_of(view.samples))
    same = before is not None and before.prompts == prompts and before.own.pictures == around.captions
    grid = grid_of(view.samples)
    full = tuple(sorted({epoch for epoch, _, strength in grid if strength == 1.0}))
    shown = Shown(
        folder, folder.name, view.state, view.live, view.epochs, rows, advice, tuple(view.measured), prompts, grid,
        (full, tuple(sorted({epoch for epoch, _, _ in grid}))), _scored(view), _copies(view),
        before.own if before is not None and same else own_pictures(prompts, around.captions),
        judged, around.files, version=next(_versions),
    )  # fmt: skip
    if before is not None:
        prompt = max(0, min(before.prompt, len(prompts) - 1))
        at = before.own_at if before.own_at < len(shown.own) else 0
        shown = replace(shown, prompt=prompt, signal=before.signal, by_strength=before.by_strength, own_at=at)
    if before is not None and before.rows and not before.untouched:
        return replace(shown, untouched=False).at_epoch(before.epoch)
    last = shown.drawn or shown.epochs or (0,)
    return shown.at_epoch(judged.chosen or advice.best or last[-1])


def _scored(view: RunView) -> tuple[tuple[str, tuple[tuple[int, float], ...]], ...]:
    """Means by epoch of what pictures at full strength were scored."""
    found: dict[str, dict[int, list[float]]] = {}
    for sample in view.samples:
        if sample.strength == 1.0:
            for name, value in view.scores.get(sample.path, {}).items():
                found.setdefault(name, {}).setdefault(sample.epoch, []).append(value)
    return tuple(
        (name, tuple((epoch, fmean(values)) for epoch, values in sorted(by_epoch.items())))
        for name, by_epoch in sorted(found.items())
    )


def _copies(view: RunView) -> dict[int, int]:
    return dict(Counter(sample.epoch for sample in view.samples if sample.path in view.near_copies))


def rejudged(shown: Shown, judged: Judged) -> Shown:
    """The same with other opinions."""
    rows = tuple(
        row if row.opinion == judged.of(row.epoch) else replace(row, opinion=judged.of(row.epoch))
        for row in shown.rows
    )
    return replace(shown, rows=rows, judged=judged, untouched=False, version=next(_versions))


def read_around(folder: Path) -> Around:
    """Read what lies around the run in ``folder``; what cannot be read is left out. Slow: for a thread."""
    names = lora_names(folder)
    try:
        config = load_config(RunFolder(folder).config)
    except EngineError:
        return Around(None, names)
    return Around(config, names, tuple(_captions(config)))


def lora_names(folder: Path) -> frozenset[str]:
    """Names of the LoRA files that lie in a run's folder; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.name.endswith(".safetensors"))
    except OSError:
        return frozenset()


def _captions(config: RunConfig) -> list[tuple[Path, str]]:
    problems: list[Problem] = []
    found = []
    try:
        pairs = trained_pairs(config.dataset)[:MOST_PICTURES]
    except EngineError:
        return []
    trigger = config.dataset.captions.trigger_word.strip()
    for pair in pairs:
        caption = caption_of(pair, config.dataset, problems, None)
        if caption is not None:
            text = " ".join(caption.split())
            found.append((pair.path, text if pair.regularization else with_trigger(text, trigger)))
    return found


def figures(row: EpochRow) -> tuple[float | None, float | None, float | None]:
    """Of an epoch: loss on held-out pictures, what training pictures are ahead, drift; None: not measured."""
    one = row.measured
    if one is None:
        return None, None, None
    held = fmean(one.held_out) if one.held_out else None
    gap = held - fmean(one.train) if held is not None and one.train else None
    return held, gap, one.drift


def told_row(shown: Shown, row: EpochRow) -> str:
    """One epoch in words, for the line under the advice."""
    held, gap, drift = figures(row)
    parts = ["base model" if row.epoch == 0 else f"epoch {row.epoch}"]
    parts += [row.verdict] if row.verdict else []
    parts += [f"held-out {held:.4f}"] if held is not None else []
    parts += [f"gap to training {gap:+.4f}"] if gap is not None else []
    parts += [f"drift {100 * drift:.1f} %"] if drift is not None else []
    parts += [f"{row.opinion.stars} of 5 stars"] if row.opinion.stars else []
    parts += [f"won {row.opinion.wins} of {row.opinion.shown}"] if row.opinion.shown else []
    parts += ["taken along"] if shown.judged.chosen == row.epoch and row.epoch else []
    answers = (("recognisable", row.opinion.recognisable), ("obeys", row.opinion.obeys), ("clean", row.opinion.clean))
    parts += [f"{name}: {answer}" for name, answer in answers if answer]
    parts += [f"{shown.copies[row.epoch]} nearly a copy of a training picture"] if row.epoch in shown.copies else []
    parts += [_fileless(shown, row)] if row.epoch and not shown.files_of(row) else []
    return ", ".join(parts)


def _fileless(shown: Shown, row: EpochRow) -> str:
    """That an epoch has no file, and which of its neighbours have one."""
    saved = [other.epoch for other in shown.rows if shown.files_of(other)]
    near = [
        *[epoch for epoch in saved if epoch < row.epoch][-1:],
        *[epoch for epoch in saved if epoch > row.epoch][:1],
    ]
    return "no file" + (f" (saved: {' and '.join(map(str, near))})" if near else "")

"""What a report is made from: a run's folder, read once.

Comes in: the folder, and a decoder for the headers of the dataset's pictures. Goes out: plain values; what could not
be read is a text among them, because a report of a broken run is wanted most. Nothing is decoded here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.config import DatasetConfig, RunConfig
from engine.config_file import load_config
from engine.dataset.buckets import place
from engine.dataset.captions import with_trigger
from engine.dataset.decoder import Decoder
from engine.dataset.history import read_history
from engine.dataset.scan import Sample, collect
from engine.errors import EngineError
from engine.events import SampleSaved
from engine.files import RunFolder
from engine.run import made_with
from engine.text import safe_text
from engine.training.advisor import Advice
from tui.epochs import Cell, EpochRow, Prompt, advice_of, epoch_rows, grid_of, prompts_of
from tui.judged import Judged, read_judged
from tui.reporting.privacy import Shortener
from tui.run_list import read_view, summed
from tui.view import RunView

TAGS_SHOWN = 20

Progress = Callable[[str, int, int], None]
"""Told of a stage, what is done of it and how much there is."""


@dataclass(frozen=True)
class DatasetFacts:
    """The dataset as it lies there now.

    Attributes:
        trained: pictures that are trained on; ``regularization`` those of the class.
        captioned: of all of them, those with a caption.
        buckets: pictures by size in pixels, the most frequent first.
        tags: parts of captions between separators with their counts, the most frequent first.
        problems: how many pictures cannot be used, and warnings.
        missing: why there is nothing of it, in words.
    """

    trained: tuple[Sample, ...] = ()
    regularization: int = 0
    captioned: int = 0
    buckets: tuple[tuple[tuple[int, int], int], ...] = ()
    tags: tuple[tuple[str, int], ...] = ()
    problems: tuple[int, int] = (0, 0)
    missing: str = ""


@dataclass(frozen=True)
class RunFacts:
    """One run. ``troubles`` are what could not be read, in words; ``versions`` what it was made with."""

    folder: Path
    view: RunView
    state: str
    judged: Judged
    advice: Advice
    rows: tuple[EpochRow, ...]
    prompts: tuple[Prompt, ...]
    grid: Mapping[Cell, SampleSaved]
    config: RunConfig | None
    dataset: DatasetFacts
    versions: Mapping[str, str]
    shorten: Shortener
    troubles: tuple[str, ...] = ()
    read_at: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return safe_text(self.folder.name, 80)

    @property
    def trigger(self) -> str:
        """The trigger word; empty where there is none, or no configuration."""
        return self.config.dataset.captions.trigger_word.strip() if self.config is not None else ""

    @property
    def epochs(self) -> list[int]:
        """The epochs that have pictures, at any strength."""
        return sorted({epoch for epoch, _, _ in self.grid})

    @property
    def strengths(self) -> list[float]:
        """The strengths that pictures were drawn at."""
        return sorted({strength for _, _, strength in self.grid})

    @property
    def main_strength(self) -> float:
        """The strength of the grid: full, or the highest there is."""
        found = self.strengths
        return 1.0 if 1.0 in found or not found else found[-1]

    def remark(self, cell: Cell) -> str:
        """What was found of a picture: scores of the user's models, and whether it is nearly a copy."""
        sample = self.grid.get(cell)
        if sample is None:
            return ""
        scores = sorted(self.view.scores.get(sample.path, {}).items())
        words = [f"{safe_text(name.replace('_', ' '), 20)} {value:.2f}" for name, value in scores]
        near = self.view.near_copies.get(sample.path)
        if near is not None:
            which = safe_text(Path(near.picture).name, 60) if self.dataset.trained else "a training picture"
            words.append(f"nearly a copy of {which}")
        return ", ".join(words)

    def told(self, text: str) -> str:
        """A line of the run's log as far as the report may tell it: without folders, and without the dataset's names
        where nothing of the dataset is told."""
        if not self.dataset.trained:
            for near in self.view.near_copies.values():
                name = Path(near.picture).name
                text = text.replace(name, "(not told)").replace(safe_text(name), "(not told)")
        return self.shorten.text(text)

    def is_advised(self, epoch: int) -> bool:
        """Whether an epoch lies in the recommended range."""
        return bool(self.advice.best) and self.advice.first <= epoch <= self.advice.last


def read_facts(folder: Path, decoder: Decoder, progress: Progress | None = None, dataset: bool = True) -> RunFacts:
    """Everything there is to tell of the run in ``folder``; without ``dataset`` nothing of its pictures.

    Raises:
        RunError: its events cannot be read.
    """
    view = read_view(folder)
    troubles: list[str] = []
    config = _config(folder, troubles)
    shorten = Shortener(_known(folder, config))
    try:
        judged = read_judged(folder)
    except OSError as err:
        judged = Judged()
        troubles.append(f"What was thought of its epochs cannot be read: {err.strerror}.")
    advice = advice_of(view, config.stop if config is not None else None)
    facts = DatasetFacts(missing="it was left out") if not dataset else _dataset(folder, config, decoder, progress)
    return RunFacts(
        folder=folder,
        view=view,
        state=summed(folder, view).state,
        judged=judged,
        advice=advice,
        rows=tuple(epoch_rows(view, folder, judged, advice)),
        prompts=tuple(prompts_of(view.samples)),
        grid=grid_of(view.samples),
        config=config,
        dataset=facts,
        versions=made_with(folder),
        shorten=shorten,
        troubles=tuple(troubles),
    )


def own_pictures(facts: RunFacts) -> dict[int, Sample]:
    """A picture of the dataset beside each prompt, by the prompt's number.

    The one whose caption the prompt is, where there is one; the others come from all over the dataset.
    """
    pictures = facts.dataset.trained
    if not pictures:
        return {}
    by_caption = {_plain(with_trigger(one.caption, facts.trigger)): one for one in reversed(pictures)}
    same = {prompt.index: by_caption.get(_plain(prompt.text)) for prompt in facts.prompts}
    rest = [one for one in pictures if one not in same.values()] or list(pictures)
    count = len(facts.prompts)
    return {
        prompt.index: same[prompt.index] or rest[number * len(rest) // count]
        for number, prompt in enumerate(facts.prompts)
    }


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _config(folder: Path, troubles: list[str]) -> RunConfig | None:
    try:
        return load_config(RunFolder(folder).config)
    except EngineError as err:
        troubles.append(f"Its configuration cannot be read: {err.title}. {err.detail}")
        return None


def _known(folder: Path, config: RunConfig | None) -> list[Path]:
    """Folders that texts of a run may name."""
    known = [folder.absolute(), folder.resolve()]
    if config is not None:
        model = config.model
        known += [one.path for one in config.dataset.folders]
        known += [model.transformer, model.autoencoder, model.clip_l, model.t5]
    return known


def _dataset(folder: Path, config: RunConfig | None, decoder: Decoder, progress: Progress | None) -> DatasetFacts:
    if config is None:
        return DatasetFacts(missing="the configuration cannot be read")

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("read the dataset", done, total)

    decoder.admit(config.dataset.max_megapixels)
    try:
        known = read_history(RunFolder(folder).captions).latest()
        scan = collect(config.dataset, decoder, told, known)
    except EngineError as err:
        return DatasetFacts(missing=f"{err.title}: {err.detail}")
    if not scan.samples:
        return DatasetFacts(missing="its pictures are not where they were")
    trained = tuple(sample for sample in scan.samples if not sample.regularization)
    return DatasetFacts(
        trained=trained,
        regularization=len(scan.samples) - len(trained),
        captioned=sum(bool(sample.caption) for sample in scan.samples),
        buckets=_buckets(config.dataset, scan.samples),
        tags=_tags(config.dataset.captions.separator, trained),
        problems=(len(scan.errors), len(scan.warnings)),
    )


def _buckets(config: DatasetConfig, samples: tuple[Sample, ...]) -> tuple[tuple[tuple[int, int], int], ...]:
    counts: Counter[tuple[int, int]] = Counter()
    for sample in samples:
        placed = place(sample.width, sample.height, config.resolution, config.buckets)
        counts[placed.bucket_w, placed.bucket_h] += 1
    return tuple(counts.most_common())


def _tags(separator: str, samples: tuple[Sample, ...]) -> tuple[tuple[str, int], ...]:
    counts = Counter(
        tag
        for sample in samples
        for tag in {" ".join(part.split()) for part in sample.caption.split(separator or ",")}
        if tag
    )
    # Whole sentences are parts too: what stands in one caption alone is no tag.
    often = [item for item in counts.items() if item[1] > 1]
    return tuple(sorted(often, key=lambda item: (-item[1], item[0]))[:TAGS_SHOWN])

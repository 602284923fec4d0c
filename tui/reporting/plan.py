"""Which pictures a page wants, the most important first: what there is no room for is left out from the end.

The base and the epochs that somebody has to decide between come first, then the others, evenly over the run: of three
hundred epochs every second, every fourth and so on, so that what is left out leaves no hole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from tui.places import sample_in
from tui.reporting.facts import RunFacts, own_pictures
from tui.reporting.pictures import Key


def sample_key(run: int, epoch: int, index: int, strength: float) -> Key:
    """The key of a sample picture; ``run`` counts the runs of a page."""
    return "sample", run, epoch, index, strength


def own_key(run: int, index: int) -> Key:
    """The key of the dataset's picture beside a prompt."""
    return "own", run, index


def strength_key(run: int, epoch: int, index: int, strength: float) -> Key:
    """The key of a picture among those of other strengths: one at full strength is in a page twice, and counts so."""
    return "strength", run, epoch, index, strength


def has_strengths(facts: RunFacts, epoch: int) -> bool:
    """Whether an epoch's pictures were drawn at several strengths."""
    return len({strength for at, _, strength in facts.grid if at == epoch}) > 1


def wanted(runs: Sequence[RunFacts]) -> tuple[dict[Key, Path], dict[Key, str]]:
    """The files by their keys, in order; and those that are not asked for, with the reason."""
    files: dict[Key, Path] = {}
    refused: dict[Key, str] = {}
    for run, facts in enumerate(runs):
        for index, sample in own_pictures(facts).items():
            files[own_key(run, index)] = sample.path
    ranked = [(rank, run, epoch) for run, facts in enumerate(runs) for rank, epoch in enumerate(by_weight(facts))]
    # Rank by rank, so that of several runs none is left out for another.
    for _, run, epoch in sorted(ranked):
        facts = runs[run]
        keys = [sample_key, strength_key] if len(runs) == 1 and has_strengths(facts, epoch) else [sample_key]
        for place, drawn in facts.grid.items():
            for key in keys if place[0] == epoch else ():
                if key is strength_key or place[2] == facts.main_strength:
                    _ask(files, refused, key(run, *place), facts.folder, sample_in(facts.folder, drawn.path))
    return files, refused


def _ask(files: dict[Key, Path], refused: dict[Key, str], key: Key, folder: Path, path: Path) -> None:
    # In a folder that somebody sent, a link could lead to any picture of this machine.
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        files[key] = path
    else:
        refused[key] = "a link that leads out of the run's folder"


def by_weight(facts: RunFacts) -> list[int]:
    """The epochs with pictures, the most telling first."""
    epochs, advice = facts.epochs, facts.advice
    if not epochs:
        return []
    judged = [epoch for epoch in epochs if facts.judged.of(epoch).stars or facts.judged.of(epoch).note]
    inside = [epoch for epoch in epochs if facts.is_advised(epoch)]
    first = [epochs[0], facts.judged.chosen, advice.best, epochs[-1], *inside[:1], *inside[-1:], *judged]
    # Then by turns one of the range and one of all: a wide range leaves room for what lies before and after it.
    turns = [epoch for pair in zip_longest(evenly(inside), evenly(epochs)) for epoch in pair]
    known = set(epochs)
    return [epoch for epoch in dict.fromkeys([*first, *turns]) if epoch in known]


def evenly(epochs: Sequence[int]) -> Iterable[int]:
    """All of ``epochs``, so that any number of them from the beginning lies evenly over the run."""
    apart = 1 << max(0, len(epochs) - 1).bit_length()
    while apart:
        yield from epochs[::apart]
        apart //= 2

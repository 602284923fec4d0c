"""How often an epoch shows each folder's pictures, and repeats that would make the shares even.

Pure arithmetic on counts. Folders of the concept are made even among each other; regularization folders are meant
to be seen as often as all of the concept together, as kohya sd-scripts has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

MOST_REPEATS = 100
"""Suggested at most: what is shown more often is learned by heart."""


@dataclass(frozen=True)
class Part:
    """One folder of a dataset in an epoch.

    Attributes:
        name: safe to show.
        pictures: trained on.
        views: how often pictures of it are seen in an epoch: each by its repeats.
        share: of the views of its kind (concept, or regularization), 0 to 1.
        repeats: what all of its pictures have; 0 where they differ.
        suggested: repeats that make it even with the others.
    """

    name: str
    pictures: int
    views: int
    regularization: bool = False
    repeats: int = 0
    share: float = 0.0
    suggested: int = 1


def balance(pictures: Iterable[tuple[str, int, bool]]) -> tuple[Part, ...]:
    """The parts of a dataset, from (folder, repeats, regularization) of each picture, as they first appear."""
    by_name: dict[tuple[str, bool], list[int]] = {}
    for name, repeats, regularization in pictures:
        by_name.setdefault((name, regularization), []).append(repeats)
    parts = [
        Part(name, len(each), sum(each), regularization, each[0] if len(set(each)) == 1 else 0)
        for (name, regularization), each in by_name.items()
    ]
    concept = [part for part in parts if not part.regularization]
    even = _even([part.pictures for part in concept])
    aims = dict(zip([part.name for part in concept], even, strict=True))
    wanted = sum(part.pictures * aims[part.name] for part in concept)
    of_class = sum(part.pictures for part in parts if part.regularization)
    result = []
    for part in parts:
        views = sum(each.views for each in parts if each.regularization == part.regularization)
        suggested = _clamped(wanted / of_class) if part.regularization else aims[part.name]
        result.append(replace(part, share=part.views / max(1, views), suggested=suggested))
    return tuple(result)


def uneven(parts: Sequence[Part]) -> bool:
    """Whether one concept's folder is seen twice as often as another, or more."""
    views = [part.views for part in parts if not part.regularization and part.views]
    return len(views) > 1 and max(views) >= 2 * min(views)


def _even(counts: Sequence[int]) -> list[int]:
    """Small whole repeats that bring folders of so many pictures to about the same number of views."""
    most = max(counts, default=1)
    return [_clamped(most / max(1, count)) for count in counts]


def _clamped(value: float) -> int:
    return max(1, min(MOST_REPEATS, round(value)))

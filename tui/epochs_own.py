"""The dataset's own pictures beside a run's samples: for each prompt in the order of how near their captions are.

Pure: captions and prompts come in, an order goes out; the pictures are read by what draws them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tui.epochs import Prompt

Captioned = tuple[Path, str]
"""A picture and its caption, as it is trained on."""


@dataclass(frozen=True)
class OwnPictures:
    """The pictures, and for each prompt by its index the places in ``pictures``, the nearest caption first."""

    pictures: tuple[Captioned, ...] = ()
    order: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    paths: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.pictures)

    def at(self, prompt: int, place: int) -> Captioned | None:
        """The picture at ``place`` of the order for a prompt, with its caption; None beyond the last."""
        order = self.order.get(prompt, ())
        return self.pictures[order[place]] if 0 <= place < len(order) else None


def own_pictures(prompts: Sequence[Prompt], captions: Sequence[Captioned]) -> OwnPictures:
    """All pictures in order for every prompt; those whose captions share nothing with it as they come, last.

    Words that few captions have count for more, as they tell the pictures apart.
    """
    bags = [_words(text) for _, text in captions]
    often = Counter(word for bag in bags for word in bag)

    def likeness(bag: frozenset[str], wanted: frozenset[str]) -> float:
        shared = bag & wanted
        return sum(1 / often[word] for word in shared) * len(shared) / max(1, len(bag | wanted))

    order = {}
    for prompt in prompts:
        wanted = _words(prompt.text)
        near = [likeness(bag, wanted) for bag in bags]
        order[prompt.index] = tuple(sorted(range(len(bags)), key=lambda place: -near[place]))
    return OwnPictures(tuple(captions), order, frozenset(str(path) for path, _ in captions))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))

"""Blind comparison of epochs: which pictures are shown in pairs, and what the wins say. Pure; chance comes in.

Nobody who knows which epoch a picture is of can judge it: the later one looks better because it ought to. So two
pictures of one prompt and seed are shown without a word, on random sides, and only wins are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from random import Random

from engine.events import SampleSaved
from engine.training.advisor import Advice
from tui.epochs import Cell
from tui.judged import Judged

ROUND = 12
"""Comparisons in one round: more tire, and tired eyes judge nothing."""

FEWEST = 6
"""Comparisons of an epoch below which even winning all of them could be luck."""

LUCK = 0.05
"""How often luck may do as well before a preference is called shown."""


@dataclass(frozen=True)
class Pairing:
    """Two pictures of one prompt and seed; the left one is called 1."""

    left: SampleSaved
    right: SampleSaved


def candidates(epochs: Sequence[int], grid: Mapping[Cell, SampleSaved], advice: Advice) -> list[int]:
    """The epochs worth comparing: of ``epochs`` with pictures those in the advised range and the next on both sides.

    All of them where no range is advised, or fewer than two lie there.
    """
    drawn = {epoch for epoch, _, strength in grid if strength == 1.0}
    usable = [epoch for epoch in epochs if epoch in drawn]
    inside = [epoch for epoch in usable if advice.first <= epoch <= advice.last] if advice.best else []
    before = [epoch for epoch in usable if epoch < advice.first][-1:] if advice.best else []
    after = [epoch for epoch in usable if epoch > advice.last][:1] if advice.best else []
    near = [*before, *inside, *after]
    return near if len(near) > 1 else usable


def pairings(grid: Mapping[Cell, SampleSaved], epochs: Sequence[int], chance: Random) -> list[Pairing]:
    """A round: pairs of ``epochs`` drawn from all prompts, every epoch about as often as any other."""
    prompts = sorted({index for _, index, _ in grid})
    left_over = [
        (grid[one, index, 1.0], grid[two, index, 1.0])
        for index in prompts
        for one, two in combinations(epochs, 2)
        if (one, index, 1.0) in grid
        and (two, index, 1.0) in grid
        and grid[one, index, 1.0].seed == grid[two, index, 1.0].seed
    ]
    chance.shuffle(left_over)
    seen: dict[int, int] = {}
    found: list[Pairing] = []
    while left_over and len(found) < ROUND:
        pair = min(left_over, key=lambda pair: sum(seen.get(one.epoch, 0) for one in pair))
        left_over.remove(pair)
        for one in pair:
            seen[one.epoch] = seen.get(one.epoch, 0) + 1
        first, second = pair if chance.random() < 0.5 else pair[::-1]
        found.append(Pairing(first, second))
    return found


def counted(judged: Judged, pair: Pairing, answer: str) -> Judged:
    """The opinions after an answer: "1", "2" or "same"; a pair that looks the same was shown, and nobody won."""
    one, two = pair.left.epoch, pair.right.epoch
    if answer == "1":
        return judged.with_winner(one, two)
    if answer == "2":
        return judged.with_winner(two, one)
    for epoch in (one, two):
        judged = judged.with_opinion(epoch, shown=judged.of(epoch).shown + 1)
    return judged


def luck(wins: int, shown: int) -> float:
    """The chance of at least so many wins when each is the toss of a coin (a one-sided sign test)."""
    return float(sum(comb(shown, count) for count in range(wins, shown + 1)) / 2**shown)


def told(judged: Judged) -> str:
    """What the wins say, in a sentence or two; empty while nothing was compared."""
    shown = {epoch: one for epoch, one in judged.epochs.items() if one.shown}
    if not shown:
        return ""
    best = max(shown, key=lambda epoch: (shown[epoch].wins / shown[epoch].shown, shown[epoch].shown))
    wins, times = shown[best].wins, shown[best].shown
    lead = f"Epoch {best} leads with {wins} of {times} comparisons won"
    if times < FEWEST:
        return f"{lead}. That is too few to tell: luck does it easily. Go on until each was in {FEWEST} or more."
    # The best of several is lucky more often than one alone.
    chance = min(1.0, luck(wins, times) * len(shown))
    if chance > LUCK:
        often = "most times" if chance > 0.5 else f"about one time in {round(1 / chance)}"
        return f"{lead}, but tossing a coin would do as well {often}: no preference is shown yet."
    return f"{lead}; tossing a coin would do so about one time in {round(1 / chance)}: you do prefer it."

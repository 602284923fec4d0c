"""Looks for the quickest settings that fit, by way of keeping the weights. No torch.

What is searched is small (some thousand settings) but a forecast for each would take seconds, so two things that hold
for every forecast are made use of:

- the more blocks stream, the less of the card is wanted and the longer a run takes. So the fewest that fit are the
  quickest, and are found by halving;
- with no block streamed a run takes least. That is a bound from below: what cannot beat the best so far even so is
  left aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from profiles.choices import Choices, Way
from profiles.limits import Limits
from profiles.schema import Forecast, Settings

Forecasts = Callable[[Settings], Forecast]
"""The forecast of settings, for one job on one machine."""


EQUAL = 0.005
"""Times that differ by less are taken for the same: a forecast is not that sure."""


@dataclass(frozen=True)
class Candidate:
    """Settings with their forecast."""

    settings: Settings
    forecast: Forecast

    @property
    def order(self) -> tuple[float, float]:
        """The quicker first; where time is equal, the one that takes less of the card."""
        return self.forecast.total_s, self.forecast.peak_vram_gb


@dataclass(frozen=True)
class Found:
    """What the search found.

    Attributes:
        best: the quickest that fits, by way; ways that cannot fit are missing.
        ideal: the quickest of every way if memory were no limit.
    """

    best: dict[Way, Candidate]
    ideal: dict[Way, Candidate]


def search(choices: Choices, limits: Limits, forecasts: Forecasts) -> Found:
    """Find the quickest settings that fit, of each way there is."""
    best, ideal = {}, {}
    for way in choices.ways:
        bounds = sorted(_unstreamed(choices, way, forecasts), key=lambda candidate: candidate.order)
        ideal[way] = leanest(bounds)
        fitting: list[Candidate] = []
        quickest = inf
        for bound in bounds:
            if bound.forecast.total_s > quickest * (1 + EQUAL):
                break
            candidate = _least_streamed(bound, choices.swaps, limits, forecasts)
            if candidate is not None:
                fitting.append(candidate)
                quickest = min(quickest, candidate.forecast.total_s)
        if fitting:
            best[way] = leanest(fitting)
    return Found(best, ideal)


def leanest(candidates: Sequence[Candidate]) -> Candidate:
    """Of those as quick as the quickest, the one that takes least of the card: it leaves most room for surprises."""
    quickest = min(candidate.forecast.total_s for candidate in candidates)
    equal = [each for each in candidates if each.forecast.total_s <= quickest * (1 + EQUAL)]
    return min(equal, key=lambda candidate: candidate.forecast.peak_vram_gb)


def smallest(choices: Choices, limits: Limits, forecasts: Forecasts) -> Candidate:
    """The settings that come nearest to fitting, where none fit: what lacks is least."""
    most = choices.swaps[-1]
    candidates = [
        Candidate(settings, forecasts(settings))
        for way in choices.ways
        for settings in _all_but_swap(choices, way, most)
    ]

    def lacks(candidate: Candidate) -> float:
        return sum(lack.missing_gb for lack in limits.lacking(candidate.forecast))

    return min(candidates, key=lambda candidate: (lacks(candidate), candidate.order))


def _all_but_swap(choices: Choices, way: Way, swap: int) -> Iterator[Settings]:
    for kept in choices.kept:
        for modulation in choices.modulation:
            for batch in choices.batches:
                yield choices.settings(way, swap, kept, modulation, batch)


def _unstreamed(choices: Choices, way: Way, forecasts: Forecasts) -> Iterator[Candidate]:
    for settings in _all_but_swap(choices, way, choices.swaps[0]):
        yield Candidate(settings, forecasts(settings))


def _least_streamed(
    bound: Candidate, swaps: tuple[int, ...], limits: Limits, forecasts: Forecasts
) -> Candidate | None:
    """The same settings with as few blocks streamed as fit; None where none of ``swaps`` does."""

    def with_swap(swap: int) -> Candidate:
        settings = replace(bound.settings, blocks_to_swap=swap)
        return Candidate(settings, forecasts(settings))

    def fits_card(candidate: Candidate) -> bool:
        return limits.vram_gb is None or candidate.forecast.peak_vram_gb <= limits.vram_gb

    low, high = 0, len(swaps) - 1
    if fits_card(bound):
        return None if limits.lacking(bound.forecast) else bound
    if not fits_card(with_swap(swaps[high])):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if fits_card(with_swap(swaps[middle])):
            high = middle
        else:
            low = middle
    found = with_swap(swaps[high])
    # Streamed blocks wait in host memory: where the fewest are too many for it, more are too.
    return None if limits.lacking(found.forecast) else found

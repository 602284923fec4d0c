"""Holds the advisor against the oracle: ``python -m tests.bench.sweet.check [PAGE]`` prints and writes the tables.

*Best* is the oracle's best epoch (``oracle.py``). The *plateau* ends with the last scored epoch whose smoothed score
is as good as the best within the oracle's own standard error: the score decides and not the loss alone, since samples
may grow stronger while the loss no longer falls. Where the loss on fresh pictures alone would end it (the last epoch,
smoothed alike, within a twentieth of its gain of the bottom) stands beside it.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.events import Measured
from engine.training.advisor import Advice, advise
from tests.bench.figures import write_figures
from tests.bench.sweet.oracle import Worth, scores
from tests.bench.sweet.record import RECORDED
from tests.bench.sweet.runs import RUNS, Spec

IN_TIME = 5
"""Measurements after the plateau's end within which a run should be called over."""

LOSS_FLAT = 0.05


@dataclass(frozen=True)
class Judged:
    """One recorded run: what the oracle says, what the advisor says at the end, and when it first says over.

    Attributes:
        as_good: epochs that are as good as the best, by the oracle.
        lost: what the epoch to look at first lacks in the oracle's score; the one scored before it if it has none.
        loss_end: the last epoch as good as the best by the loss on fresh pictures alone.
    """

    spec: Spec
    pictures: int
    epochs: int
    as_good: tuple[int, ...]
    lost: float
    loss_end: int
    advice: Advice
    over_at: int | None

    @property
    def best(self) -> int:
        """The oracle's best epoch."""
        return self.as_good[0]

    @property
    def plateau_end(self) -> int:
        """The last epoch that is as good."""
        return self.as_good[-1]

    @property
    def touches(self) -> bool:
        """Whether the recommended range holds an epoch that is as good as the best."""
        return any(self.advice.first <= epoch <= self.advice.last for epoch in self.as_good)

    @property
    def holds(self) -> bool:
        """Whether the recommended range holds the best epoch."""
        return self.advice.first <= self.best <= self.advice.last

    @property
    def span(self) -> float:
        """The range's part of all epochs."""
        return (self.advice.last - self.advice.first + 1) / self.epochs

    @property
    def late(self) -> int | None:
        """Measurements from the plateau's end to the first "over"; below 0 on the plateau."""
        return None if self.over_at is None else math.ceil((self.over_at - self.plateau_end) / self.spec.every)

    @property
    def stop(self) -> str:
        """How the first "over" lies to the plateau."""
        late = self.late
        if self.over_at is None or late is None:
            return "right, never" if self.plateau_end >= self.epochs - IN_TIME * self.spec.every else "never"
        if self.over_at < self.best:
            return "before the best"
        return "on the plateau" if late < 0 else f"{late} later" + ("" if late <= IN_TIME else ", too late")


def judge(spec: Spec) -> Judged:
    """A recorded run, replayed measurement by measurement."""
    record = json.loads((RECORDED / f"{spec.name}.json").read_text())
    found, (base, *worths) = measured_of(record), worths_of(record)
    score, advice = scores(base, worths), advise(found)
    told = (one.epoch for end, one in enumerate(found, 1) if advise(found[:end]).over)
    return Judged(
        spec,
        len(found[-1].held_out_pictures),
        found[-1].epoch,
        tuple(spec.scored * number for number in as_good(base, worths)),
        max(score) - score[max(0, advice.best // spec.scored - 1)],
        spec.scored * loss_end(base, worths),
        advice,
        next(told, None),
    )


def as_good(base: Worth, worths: Sequence[Worth]) -> list[int]:
    """Which of the scored epochs, from 1, are as good as the best; the earliest of them is the oracle's best."""
    found = scores(base, worths)
    error = _error(worths[max(range(len(found)), key=lambda number: found[number])])
    return [number for number, score in enumerate(found, 1) if score >= max(found) - error]


def _error(best: Worth) -> float:
    """As :func:`tests.bench.sweet.oracle.best_of` takes it."""
    variance = best.concept * (1 - best.concept) / 50 + best.obeys * (1 - best.obeys) / 48
    return math.sqrt(max(variance, 1e-4)) / 3 / math.sqrt(3)


def loss_end(base: Worth, worths: Sequence[Worth]) -> int:
    """Which scored epoch, from 1, is the last whose loss on fresh pictures, smoothed over three, is as good as its
    bottom."""
    losses = [worth.loss for worth in worths]
    spans = [losses[max(0, number - 1) : number + 2] for number in range(len(losses))]
    smooth = [statistics.fmean(span) for span in spans]
    limit = min(smooth) + LOSS_FLAT * (base.loss - min(smooth))
    return max(number for number, loss in enumerate(smooth, 1) if loss <= limit)


def judged() -> list[Judged]:
    """Every run that has been recorded, in the order declared."""
    return [judge(spec) for spec in RUNS if (RECORDED / f"{spec.name}.json").exists()]


def ranges(runs: Sequence[Judged]) -> str:
    """Where the best epoch is and what was recommended."""
    head = "| run | trained on | held out | best epoch | range | holds it | look first at | verdict |"
    lines = [head, "|---" * 8 + "|"]
    for run in runs:
        spec, advice = run.spec, run.advice
        kind = f"{spec.pictures} pictures, rate {spec.rate:g}, rank {spec.rank}, {spec.schedule}"
        kind += f", {spec.epochs} epochs" if spec.long else ""
        cells = (
            spec.name, kind, run.pictures, run.best, f"{advice.first} to {advice.last}",
            "yes" if run.holds else "no", advice.best, f"{advice.verdict} ({advice.sure})",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    holding, span = sum(run.holds for run in runs), statistics.median(run.span for run in runs)
    touching, lost = sum(run.touches for run in runs), statistics.fmean(run.lost for run in runs)
    return "\n".join([
        *lines, "",
        f"The range holds the best epoch in {holding} of {len(runs)} runs, and one that is as good in {touching}. It "
        f"spans {100 * span:.0f} % of the epochs (median). The epoch to look at first lacks {lost:.3f} of the best "
        "score, on average.",
    ])  # fmt: skip


def stops(runs: Sequence[Judged]) -> str:
    """When a run was first called over, against the end of the plateau."""
    head = "| run | best epoch | plateau ends | by loss alone | first called over | that is |"
    lines = [head, "|---" * 6 + "|"]
    for run in runs:
        over = run.over_at if run.over_at is not None else "never"
        cells = (run.spec.name, run.best, run.plateau_end, run.loss_end, over, run.stop)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    calm = [run for run in runs if not run.spec.greedy]
    greedy = [run for run in runs if run.spec.greedy]
    wrong = sum(run.over_at is not None and run.over_at <= run.plateau_end for run in calm)
    on_time = sum(run.late is not None and 0 <= run.late <= IN_TIME for run in greedy)
    kinds = [run.stop for run in greedy]
    return "\n".join([
        *lines, "",
        f"Calm runs called over before their plateau ended: {wrong} of {len(calm)}. Over-fitting runs called over "
        f"within {IN_TIME} measurements of its end: {on_time} of {len(greedy)}; on the plateau, after the best: "
        f"{kinds.count('on the plateau')}; before the best: {kinds.count('before the best')}; later or never: "
        f"{sum(kind == 'never' or kind.endswith('too late') for kind in kinds)}.",
    ])  # fmt: skip


def tables() -> str:
    """Where the range lies for each half of the runs; then when they were called over, where the short runs, whose
    untouched ones had been looked at when that rule was made, stand together."""
    runs = judged()
    halves: dict[str, list[Judged]] = {}
    ends: dict[str, list[Judged]] = {}
    for run in runs:
        halves.setdefault(run.spec.half, []).append(run)
        ends.setdefault(run.spec.half if run.spec.long else "short, all tuned on", []).append(run)
    parts = [f"**{name}**\n\n{ranges(half)}" for name, half in halves.items()]
    return "\n\n".join([*parts, *(f"**{name}**\n\n{stops(half)}" for name, half in ends.items())])


def measured_of(record: dict[str, Any]) -> list[Measured]:
    """What a recorded run measured, the base first; sizes told early apart."""
    found = [Measured(**{name: _tuples(value) for name, value in one.items()}) for one in record["measured"]]
    return [one for one in found if one.train]


def worths_of(record: dict[str, Any]) -> list[Worth]:
    """What the oracle found, the base first."""
    return [Worth(**one) for one in record["oracle"]]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    print(tables())
    if len(sys.argv) > 1:
        write_figures(Path(sys.argv[1]), "The sweet spot: recorded runs", tables())

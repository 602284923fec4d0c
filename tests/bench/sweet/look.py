"""A recorded run in plain text, an epoch a line: ``python -m tests.bench.sweet.look [NAME ...]``.

What was measured stands left of the bar, what the oracle found right of it. ``+`` marks epochs that the advisor takes
for as good as the best, ``>`` the recommended range, ``*`` those that the oracle takes for as good as its best.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator

from tests.bench.sweet.check import judge, measured_of, worths_of
from tests.bench.sweet.oracle import scores
from tests.bench.sweet.record import RECORDED
from tests.bench.sweet.runs import RUNS, Spec


def lines(spec: Spec) -> Iterator[str]:
    """The run, from the base on."""
    record = json.loads((RECORDED / f"{spec.name}.json").read_text())
    judged, (base, *worths) = judge(spec), worths_of(record)
    score, good, advice = scores(base, worths), judged.as_good, judged.advice
    yield (
        f"{spec.name}: {spec.pictures} pictures, rate {spec.rate:g}, rank {spec.rank}, {spec.schedule}, "
        f"{judged.pictures} held out; best {judged.best}, range {advice.first} to {advice.last}, {advice.verdict}"
    )
    yield "epoch    held-out (low, middle, high noise)    train   drift    | fresh   concept  obeys  score"
    for one in measured_of(record):
        marks = ("+" if one.epoch in advice.as_good else " ") + (
            ">" if advice.first <= one.epoch <= advice.last else " "
        )
        bands = " ".join(f"{band:.3f}" for band in one.held_out_bands)
        line = f"{one.epoch:4d} {marks}  {statistics.fmean(one.held_out):.4f} ({bands})  "
        line += f"      {statistics.fmean(one.train):.4f}  {one.drift or 0:.4f}  |"
        number, between = divmod(one.epoch, spec.scored)
        if one.epoch and not between:
            worth = worths[number - 1]
            line += f" {worth.loss:.4f}  {worth.concept:.2f}     {worth.obeys:.2f}   {score[number - 1]:.3f}"
            line += " *" if one.epoch in good else ""
        yield line


if __name__ == "__main__":
    for spec in RUNS:
        if (RECORDED / f"{spec.name}.json").exists() and spec.name in (sys.argv[1:] or [spec.name]):
            print("\n".join(lines(spec)) + "\n")

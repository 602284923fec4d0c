"""Holds the advisor against the oracle: ``python -m tests.bench.sweet.check [PAGE]`` prints and writes the table."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from engine.events import Measured
from engine.training.advisor import advise
from tests.bench.figures import write_figures
from tests.bench.sweet.oracle import Worth, best_of
from tests.bench.sweet.record import RECORDED
from tests.bench.sweet.runs import RUNS, SCORED, Spec


def row(spec: Spec) -> tuple[str, bool, float]:
    """A line of the table; whether the range holds the best epoch; the range's part of all epochs."""
    record = json.loads((RECORDED / f"{spec.name}.json").read_text())
    found = [_measured(one) for one in record["measured"]]
    found = [one for one in found if one.train]
    worths = [Worth(**one) for one in record["oracle"]]
    best = SCORED * (best_of(worths[0], worths[1:]) + 1)
    advice = advise(found)
    held = advice.first <= best <= advice.last
    span = (advice.last - advice.first + 1) / found[-1].epoch
    kind = f"{spec.pictures} pictures, rate {spec.rate:g}, rank {spec.rank}"
    cells = (
        spec.name, "tuned on" if spec.tune else "untouched", kind, len(found[-1].held_out_pictures), best,
        f"{advice.first} to {advice.last}", "yes" if held else "no", advice.verdict,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |", held, span


def table() -> str:
    """All runs, and how often the range held the best epoch."""
    rows = [row(spec) for spec in RUNS]
    head = "| run | | trained on | held out | best epoch | range | holds it | verdict |\n" + "|---" * 8 + "|"
    untouched = [held for spec, (_, held, _) in zip(RUNS, rows, strict=True) if not spec.tune]
    return "\n".join([
        head, *(line for line, _, _ in rows), "",
        f"The range holds the best epoch in {sum(held for _, held, _ in rows)} of {len(rows)} runs, in "
        f"{sum(untouched)} of {len(untouched)} that no rule was tuned on. It spans "
        f"{100 * statistics.median(span for _, _, span in rows):.0f} % of the epochs (median).",
    ])  # fmt: skip


def _measured(values: dict[str, Any]) -> Measured:
    return Measured(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    print(table())
    if len(sys.argv) > 1:
        write_figures(Path(sys.argv[1]), "The sweet spot: recorded runs", table())

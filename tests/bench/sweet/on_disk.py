"""Whether the recommended epoch is on the disk: ``python -m tests.bench.sweet.on_disk`` prints the table.

The recorded runs again, saved every so many epochs, with what the engine then keeps; each ends where the advisor says
that its best epochs are over, or with its last epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from engine.config import CANDIDATES
from engine.training.advisor import advise, on_disk
from engine.training.shelf import Save, superfluous
from tests.bench.sweet.check import measured_of
from tests.bench.sweet.record import RECORDED

CADENCES = (2, 5, 10, 0)


@dataclass(frozen=True)
class Ended:
    """How a recorded run ends: what the measurements alone recommend, what is recommended, whether a file of that
    stands, and the most candidates at a time."""

    first: int
    last: int
    wanted: int
    best: int
    stands: bool
    most: int

    @property
    def good(self) -> bool:
        """Whether the recommended file is of the range that the measurements alone recommend."""
        return self.stands and self.first <= self.best <= self.last


def end_of(name: str, every: int, candidates: bool = True) -> Ended | None:
    """The recorded run ``name`` saved every so many epochs; None where nothing is ever recommended."""
    record = json.loads((RECORDED / f"{name}.json").read_text())
    found = measured_of(record)
    saves: list[Save] = []
    most = 0
    for count, newest in enumerate(found, start=1):
        due = newest.epoch > 0 and every > 0 and newest.epoch % every == 0
        writes = newest.epoch > 0 and (due or candidates)
        pure = advise(found[:count])
        epochs = {save.epoch for save in saves} | ({newest.epoch} if writes else set())
        advice = on_disk(pure, epochs)
        if writes:
            saves.append(Save(newest.step, newest.epoch, "epoch" if due else "candidate"))
        gone = superfluous(saves, 0, advice, ())
        saves = [save for save in saves if save not in gone]
        most = max(most, sum(save.kind == "candidate" for save in saves))
        if pure.over or count == len(found):
            stands = any(save.epoch == advice.best for save in saves)
            return Ended(pure.first, pure.last, pure.best, advice.best, stands, most) if pure.best else None
    return None


def table() -> str:
    """For each cadence how often a good epoch is on the disk in the end, with candidates and without."""
    names = sorted(path.stem for path in RECORDED.glob("*.json"))
    lines = [
        "| saved every | a good epoch is on the disk | without candidates | candidates at a time |",
        "|---|---|---|---|",
    ]
    for every in CADENCES:
        with_them = [ended for name in names if (ended := end_of(name, every))]
        without = [ended for name in names if (ended := end_of(name, every, candidates=False))]
        words = f"{every} epochs" if every else "only at the end"
        lines.append(
            f"| {words} | {sum(ended.good for ended in with_them)} of {len(with_them)} | "
            f"{sum(ended.good for ended in without)} of {len(without)} | {max(ended.most for ended in with_them)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(f"{CANDIDATES} candidates stay besides the recommended ones")
    print(table())

"""What saving a training state costs the steps beside it: a share of the run at the default cadence.

A stepping thread (products as long as a step's) runs all the while; into every other stretch of it a state of the
size of a large LoRA is saved as the engine does it: copied in the stepping thread, written and flushed in another.
Counted is the processor's time, as if there were one core: the copy, all that the writer does, and what the steps
beside it take longer than those before and after. Waiting for the disk holds up no step, and other programs on a
busy machine do not count.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from engine.training.background import Snapshots, Writer
from engine.training.checkpoint import Place, TrainingState, save_state
from engine.training.keeper import STATE_EVERY_S

STATE_MB = 300
"""Rank 16 on all of FLUX.1's linears, float32, with AdamW's two averages, is about 270."""

SAVES, PLAIN_STEPS, STEP_S = 7, 20, 0.1


@dataclass(frozen=True)
class SavingCost:
    """Figures of one measurement; times in seconds, medians over the saves."""

    copied_s: float
    """The copy, for which the stepping thread stands still."""
    writer_s: float
    """What the writing thread computed: checksums, and handing bytes to the system."""
    slowed_s: float
    """What steps beside it took longer."""
    stood_s: float
    """By the clock, from its beginning to the state standing on the disk."""
    state_mb: float

    @property
    def lost_s(self) -> float:
        """Of steps in all, on a machine of one core."""
        return self.copied_s + self.writer_s + self.slowed_s

    @property
    def share(self) -> float:
        """Of the run, in per cent, at a state every :data:`engine.training.keeper.STATE_EVERY_S`."""
        return 100 * self.lost_s / STATE_EVERY_S


def one_step(seconds: float) -> Callable[[], float]:
    """Work of about ``seconds`` as torch does it; calling it returns the processor's time for it."""
    side = 512
    matrix, other = torch.randn(side, side), torch.randn(side, side)
    began = time.thread_time()
    for _ in range(20):
        torch.mm(matrix, other)
    rounds = max(1, round(20 * seconds / (time.thread_time() - began)))

    def step() -> float:
        start = time.thread_time()
        for _ in range(rounds):
            torch.mm(matrix, other)
        return time.thread_time() - start

    return step


def saving_cost(folder: Path, state_mb: int = STATE_MB, saves: int = SAVES) -> SavingCost:
    """Measure; ``folder`` is on the disk that runs would be on."""
    count = state_mb * 10**6 // 3 // 4
    tensors = {name: torch.randn(count) for name in ("lora", "optimizer.exp_avg", "optimizer.exp_avg_sq")}
    snapshots, writer, step = Snapshots(), Writer(), one_step(STEP_S)
    spent: list[float] = []
    save(folder, tensors, snapshots, writer, 0, spent)  # the first makes the memory for the copies
    writer.wait()
    spent.clear()
    copied, slowed, stood = [], [], []
    for number in range(1, saves + 1):
        before = [step() for _ in range(PLAIN_STEPS)]
        began, clock = time.thread_time(), time.perf_counter()
        save(folder, tensors, snapshots, writer, number, spent)
        copied.append(time.thread_time() - began)
        beside = []
        while not writer.idle:
            beside.append(step())
        stood.append(time.perf_counter() - clock)
        after = [step() for _ in range(PLAIN_STEPS)]
        slowed.append(sum(beside) - len(beside) * median(before + after))
    writer.close()
    return SavingCost(median(copied), median(spent), median(slowed), median(stood), state_mb)


def save(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    snapshots: Snapshots,
    writer: Writer,
    step: int,
    spent: list[float],
) -> None:
    """Begin a save as :class:`engine.training.keeper.Keeper` does; the writer's time is appended to ``spent``."""
    snapshot = snapshots.take(tensors)

    def write() -> None:
        began = time.thread_time()
        snapshot.wait()
        optimizer = {name: tensor for name, tensor in snapshot.tensors.items() if name != "lora"}
        save_state(folder, TrainingState(Place(step), {"lora": snapshot.tensors["lora"]}, optimizer, {}, {}), 2)
        spent.append(time.thread_time() - began)

    writer.start(write)


def report() -> str:
    """All figures as a Markdown table with their limits."""
    with tempfile.TemporaryDirectory() as folder:
        cost = saving_cost(Path(folder))
    rows = [
        (f"a state of {cost.state_mb:.0f} MB: copied in the stepping thread", f"{cost.copied_s:.2f} s", ""),
        ("... written by another", f"{cost.writer_s:.2f} s", ""),
        ("... steps beside it longer by", f"{cost.slowed_s:.2f} s", ""),
        ("... it stood on the disk after, by the clock", f"{cost.stood_s:.2f} s", ""),
        (f"share of a run, a state every {STATE_EVERY_S:.0f} s", f"{cost.share:.2f} %", "1 %"),
    ]
    return "| | measured | limit |\n|---|---|---|\n" + "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows)


if __name__ == "__main__":
    print(report())

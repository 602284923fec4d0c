"""Host memory that runs out, told before the kernel ends the largest process: by then nobody could say why.

Torch-free. The watch reads the samples that are taken anyway; who holds the memory is looked up only for a warning.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.config import RunConfig
from engine.events import HostMemoryLow, MemorySampled
from engine.text import safe_text

LEAST_GB, LEAST_PART = 1.0, 0.04
"""Less free than this, in GiB or as a part of all where that is more, is worth a warning."""

MOST_GB = 4.0
"""Large machines are warned at this at the latest."""

AGAIN = 2.0
"""Times that must have been free in between before it is told again."""


def limit_gb(total_gb: float) -> float:
    """What should stay free of a host's memory, GiB."""
    return min(max(LEAST_GB, LEAST_PART * total_gb), MOST_GB, 0.25 * total_gb)


class HostWatch:
    """Follows one run's samples.

    Args:
        hint: what to lower, in words.
        largest: names the largest other process with its GiB; None looks through all of them.
    """

    def __init__(self, hint: Callable[[], str], largest: Callable[[], tuple[str, float]] | None = None) -> None:
        self._hint = hint
        self._largest = largest or largest_other
        self._told = False

    def take(self, sample: MemorySampled) -> HostMemoryLow | None:
        """What there is to tell once ``sample`` is known."""
        free, limit = sample.host_total_gb - sample.host_used_gb, limit_gb(sample.host_total_gb)
        if self._told:
            self._told = free < AGAIN * limit
            return None
        if not sample.host_total_gb or free >= limit:
            return None
        self._told = True
        return HostMemoryLow(round(free, 3), sample.host_total_gb, sample.process_gb, self._words(sample, free))

    def _words(self, sample: MemorySampled, free: float) -> str:
        name, other_gb = self._largest()
        text = f"Host memory runs out: {free:.1f} of {sample.host_total_gb:.1f} GiB are free. "
        text += f"This run holds {sample.process_gb:.1f}"
        text += f", {safe_text(name, 60)} {other_gb:.1f}" if name else ""
        hint = self._hint()
        text += ". The system ends programs when nothing is left: close others"
        return f"{text}, or {hint}" if hint else text


def largest_other() -> tuple[str, float]:
    """The process beside this one that holds most, "python (1234)", and its GiB; nothing where none can be seen."""
    import os

    import psutil

    found = []
    for process in psutil.process_iter(["name", "memory_info"]):
        memory = process.info["memory_info"]
        if memory is not None and process.pid != os.getpid():
            found.append((memory.rss, process.pid, process.info["name"] or "?"))
    if not found:
        return "", 0.0
    held, pid, name = max(found)
    return f"{name} ({pid})", held / 2**30


def to_lower(config: RunConfig) -> str:
    """What holds host memory by a run's configuration, the most first, as values to lower."""
    changes = []
    if config.memory.blocks_to_swap:
        changes.append(f"lower memory.blocks_to_swap (now {config.memory.blocks_to_swap})")
    if config.training.gradient_checkpointing == "offload":
        changes.append('set training.gradient_checkpointing = "full"')
    if config.optimizer.name.startswith("paged"):
        changes.append(f'set optimizer.name = "{config.optimizer.name.removeprefix("paged_")}"')
    if config.memory.modulation_cache:
        changes.append("set memory.modulation_cache = false")
    return " or ".join(changes)

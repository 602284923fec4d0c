"""The figures of some measured steps, from the events of a run: plain values, and the text that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import quantiles
from typing import Any

from engine.config import RunConfig
from engine.events import Entry, MemoryHeld, MemorySampled, StepDone
from engine.hardware.machine import Machine
from engine.text import safe_text
from tui.units import short_time

PARTS = ("data", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a step's wall time, in seconds."""

    median_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True)
class Floor:
    """What the step's products alone would take: TFLOP of linears and attention over the rate of each, TFLOP/s."""

    linear: float
    attention: float
    linear_rate: float
    attention_rate: float
    source: str

    @property
    def seconds(self) -> float:
        """The shortest time such a step can take."""
        return self.linear / self.linear_rate + self.attention / self.attention_rate


@dataclass(frozen=True)
class Figures:
    """Everything ``kiln bench`` tells. Sizes in GiB unless named; shares of the step's wall time."""

    machine: Machine
    settings: dict[str, str]
    steps: int
    warm_up: int
    step: Spread
    shares: dict[str, float]
    tokens: int
    floor: Floor | None
    peak_gb: float
    held: dict[str, float] = field(default_factory=dict)
    moved_mb: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Text and image tokens through the whole step in a second."""
        return self.tokens / self.step.median_s

    @property
    def share_of_floor(self) -> float | None:
        """The floor over the median: 1 where nothing but products took time."""
        return None if self.floor is None else self.floor.seconds / self.step.median_s

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        told = asdict(self) | {"tokens_per_s": self.tokens_per_s, "share_of_floor": self.share_of_floor}
        if self.floor is not None:
            told["floor"] = asdict(self.floor) | {"seconds": self.floor.seconds}
        return told


def spread_of(seconds: Sequence[float]) -> Spread:
    """Median and quartiles; of a single value, three times that."""
    if len(seconds) == 1:
        return Spread(seconds[0], seconds[0], seconds[0])
    low, middle, high = quantiles(seconds, n=4, method="inclusive")
    return Spread(middle, low, high)


def walls_of(entries: Sequence[Entry], warm_up: int) -> list[tuple[float, StepDone]]:
    """Seconds from one step's end to the next one's, with the later step; the first ``warm_up`` steps left out."""
    steps = [(entry.time, entry.event) for entry in entries if isinstance(entry.event, StepDone)]
    walls = [(after - before, event) for (before, _), (after, event) in pairwise(steps)]
    return [wall for wall in walls if wall[1].step > warm_up]


def shares_of(steps: Sequence[StepDone], wall_s: float) -> dict[str, float]:
    """Shares of a step's wall time by part; what a run without the finer parts calls model counts as forward."""
    # Of sums, not of medians: medians of parts do not add up to the median of the whole.
    whole = max(wall_s * len(steps), sum(step.step_s for step in steps)) or 1.0
    told = {part: sum(getattr(step, f"{part}_s") for step in steps) / whole for part in PARTS}
    if not told["forward"] and not told["backward"]:
        told["forward"] = sum(step.model_s for step in steps) / whole
    told["other"] = max(0.0, 1.0 - sum(told.values()))
    told["waiting for copies"] = sum(step.stall_s for step in steps) / whole
    return told


def memory_of(entries: Sequence[Entry]) -> tuple[float, dict[str, float]]:
    """The peak, of the GPU where there is one, and the newest split of what is held."""
    samples = [entry.event for entry in entries if isinstance(entry.event, MemorySampled)]
    split = [entry.event for entry in entries if isinstance(entry.event, MemoryHeld)]
    peaks = [sample.vram_peak_gb or sample.process_gb for sample in samples] + [held.peak_gb for held in split]
    held = asdict(split[-1]) if split else {}
    return max(peaks, default=0.0), {name.removesuffix("_gb"): value for name, value in held.items()}


def settings_of(config: RunConfig, variant: str) -> dict[str, str]:
    """What the figures depend on, in words."""
    training, memory = config.training, config.memory
    return {
        "model": safe_text(f"FLUX.1 {variant}".strip(), 60),
        "resolution": f"{config.dataset.resolution} px",
        "batch": f"{training.batch_size} x {training.accumulation}",
        "LoRA": f"rank {config.lora.rank}, {config.lora.targets} targets",
        "base": memory.precision if memory.precision != "auto" else config.model.dtype,
        "products": memory.compute,
        "kept for backward": training.gradient_checkpointing,
        "swapped blocks": str(memory.blocks_to_swap),
        "modulation cache": "on" if memory.modulation_cache else "off",
        "compile": memory.compile,
        "optimizer": config.optimizer.name,
    }


def text_of(figures: Figures) -> str:
    """The figures as lines of a label and its value."""
    step, machine = figures.step, figures.machine
    card = f"{machine.gpu}, {machine.vram_gb:.0f} GiB, driver {machine.driver}" if machine.gpu else "no GPU"
    shares = ", ".join(f"{name} {share * 100:.1f} %" for name, share in figures.shares.items())
    lines = [
        ("machine", f"{machine.processor}, {machine.cores} cores; {card}; torch {machine.torch}"),
        ("settings", "; ".join(f"{name} {value}" for name, value in figures.settings.items())),
        ("measured", f"{figures.steps} steps after {figures.warm_up} to warm up"),
        ("step", f"{short_time(step.median_s)} median, {_range(step)} between the quartiles"),
        ("", shares),
    ]
    if figures.tokens:
        lines.append(("tokens", f"{figures.tokens_per_s:,.0f} a second, {figures.tokens:,} a step"))
    if figures.floor is not None:
        floor, share = figures.floor, figures.share_of_floor or 0.0
        work = floor.linear + floor.attention
        at = f"{work:.3g} TFLOP at {work / floor.seconds:.3g} TFLOP/s ({floor.source})"
        lines.append(("floor", f"{short_time(floor.seconds)}: {at}, {share * 100:.0f} % of the step"))
    held = ", ".join(f"{name} {value:.2f}" for name, value in figures.held.items() if name != "peak")
    lines.append(("memory", f"{figures.peak_gb:.2f} GiB at most" + (f"; {held}" if held else "")))
    lines.append(("PCIe", f"{figures.moved_mb:,.1f} MB a step"))
    return "\n".join(f"{label:<10}{safe_text(text)}" for label, text in lines)


def _range(step: Spread) -> str:
    return f"{short_time(step.low_s)} to {short_time(step.high_s)}"

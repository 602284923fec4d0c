"""A forecast's memory as bars: what each stage holds on the card, by the parts people think in, and what stays free.

The forecast knows more parts than a bar can tell apart; here they are put together under five names. Whatever is not
named here is a buffer: something that is held for a while and given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from profiles.schema import GIB, Fit, Machine

KINDS = ("weights", "LoRA", "activations", "buffers", "context", "others", "free")
"""In the order that they stand in a bar."""

LETTERS = {
    "weights": "W",
    "LoRA": "L",
    "activations": "A",
    "buffers": "B",
    "context": "C",
    "others": "x",
    "free": ".",
}
"""What a part is written with, so that a bar reads without colours."""

WORDS = {"LoRA": "LoRA, optimizer", "others": "other programs"}

_STAGES = {"train": "training", "sample": "sampling", "load": "loading"}
"""What the forecast's stages are called on the screen, where it is not the same."""

_OF_PART = {
    "lora": "LoRA", "adapter": "LoRA", "optimizer": "LoRA", "gradient": "LoRA",
    "activation": "activations", "kept": "activations", "working": "activations", "checkpoint": "activations",
    "context": "context", "process": "context",
    "weight": "weights", "transformer": "weights", "block": "weights", "resident": "weights",
    "encoder": "weights", "t5": "weights", "clip": "weights", "base": "weights",
}  # fmt: skip
"""Beginnings of the forecast's names for parts, and where they belong."""


@dataclass(frozen=True)
class Bar:
    """One bar: parts in GB with their kinds, up to ``total_gb``; a run may take up to ``limit_gb`` of it."""

    label: str
    parts: tuple[tuple[str, float], ...]
    used_gb: float
    total_gb: float
    limit_gb: float
    peak: bool = False

    @property
    def over(self) -> bool:
        """Whether it holds more than a run may take."""
        return self.used_gb > self.limit_gb + 0.05


def stage_name(name: str) -> str:
    """What a stage of the forecast is called on the screen."""
    return _STAGES.get(name, name)


def kind_of(part: str) -> str:
    """The kind that a part of the forecast belongs to."""
    name = part.lower()
    return next((kind for word, kind in _OF_PART.items() if word in name), "buffers")


def bars_of(fit: Fit, machine: Machine) -> tuple[Bar, ...]:
    """A bar of the card for every stage, the peak marked, and the host's; without a card the host's alone."""
    forecast = fit.forecast
    found = []
    if machine.card is not None:
        total = machine.card.vram_gb
        others = max(0.0, total - machine.free_vram_gb)
        for stage in forecast.stages:
            used = stage.vram_gb
            bar = _bar(stage_name(stage.name), stage.vram, used, total, others, others + fit.limit_gb)
            found.append(Bar(*bar, peak=stage is forecast.peak))
    highest = max(forecast.stages, key=lambda stage: stage.ram_gb)
    others = max(0.0, machine.ram_gb - machine.free_ram_gb)
    found.append(Bar(*_bar("host memory", highest.ram, highest.ram_gb, machine.ram_gb, others, machine.ram_gb)))
    return tuple(found)


def _bar(
    label: str, parts: Mapping[str, int], used: float, total: float, others: float, limit: float
) -> tuple[str, tuple[tuple[str, float], ...], float, float, float]:
    sums = dict.fromkeys(KINDS, 0.0)
    for part, size in parts.items():
        sums[kind_of(part)] += size / GIB
    sums["others"] = others
    sums["free"] = max(0.0, total - used - others)
    return label, tuple((kind, gb) for kind, gb in sums.items() if gb > 0), used + others, total, limit

"""The forecast of a run's memory beside the traced step: configurations to compare, fixed and drawn."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from engine.hardware.cards import Card
from engine.hardware.rates import rates_of
from engine.models.flux import FluxParams
from profiles.estimate import forecast
from profiles.schema import Bucket, Forecast, Job, Machine, ModelSize, Settings
from tests.bench.trace.whole import Setup, peak

TRACED = ("weights", "ring", "adapter", "optimizer", "modulation", "activations", "working")
"""Parts that a trace sees; the others are libraries' and the driver's."""

SIZES = ((512, 512), (768, 512), (640, 768), (768, 768), (1024, 768), (832, 1216), (1024, 1024))
RANKS = (4, 8, 16, 32, 64, 128)
OPTIMIZERS = ("adamw", "adamw8bit", "paged_adamw8bit", "lion", "lion8bit", "prodigy", "adafactor")
PRECISIONS = ("bf16", "fp8", "int8", "nf4")
KEPT = ("none", "attention", "full", "offload")


@dataclass(frozen=True)
class Compared:
    """A configuration, forecast and traced, in bytes."""

    name: str
    forecast: int
    traced: int

    @property
    def off(self) -> float:
        """The forecast's error, as a share of what was traced."""
        return self.forecast / self.traced - 1


@dataclass(frozen=True)
class Configuration:
    """Settings and the size of a micro-batch."""

    settings: Settings
    width: int = 1024
    height: int = 1024

    @property
    def name(self) -> str:
        """In a line."""
        s = self.settings
        cached = "" if s.modulation_cache else ", modulation on the card"
        wide = ", unpacked" if s.compute == "wide" and s.precision in ("int8", "fp8") else ""
        targets = ", all targets" if s.targets == "all" else ""
        return (
            f"{s.precision}{wide}, {self.width}x{self.height}, batch {s.batch}, rank {s.rank}{targets}, "
            f"{s.blocks_to_swap} streamed, {s.checkpointing}, {s.optimizer}{cached}"
        )

    def setup(self) -> Setup:
        """As the trace takes it."""
        s = self.settings
        unpacked = "nf4" if s.precision == "nf4" else "unpacked"
        kind = "dense" if s.precision == "bf16" else s.precision if s.compute == "8bit" else unpacked
        return Setup(
            width=self.width, height=self.height, batch=s.batch, rank=s.rank, targets=s.targets,
            checkpointing=s.checkpointing, precision="auto" if s.precision == "bf16" else s.precision, kind=kind,
            swap=s.blocks_to_swap, modulation_cache=s.modulation_cache, optimizer=s.optimizer,
        )  # fmt: skip

    def job(self) -> Job:
        """One picture size, as many pictures as a batch."""
        return Job(DEV, (Bucket(self.width, self.height, self.settings.batch),), 1, 1, 1, epochs=1)


_SIZES = asdict(FluxParams())
DEV = ModelSize(
    "flux1", "dev", _SIZES, 23_802_932_552, 9_787_841_024, 246_144_152, 335_304_388, stored="bf16", text_tokens=512
)


def card() -> Card:
    """One with every kind of product."""
    rates = rates_of("RTX 4090")
    assert rates is not None
    return Card("RTX 4090", 24.0, (8, 9), rates, 25.0)


MACHINE = Machine(card(), 23.5, 64.0, 60.0, 16, 500.0, 500.0)

FIXED = (
    Configuration(Settings()),
    Configuration(Settings(optimizer="adamw")),
    Configuration(Settings(checkpointing="attention")),
    Configuration(Settings(checkpointing="none", rank=4), 512, 512),
    Configuration(Settings(modulation_cache=False)),
    Configuration(Settings(blocks_to_swap=28, modulation_cache=False)),
    Configuration(Settings(blocks_to_swap=57, checkpointing="offload")),
    Configuration(Settings(batch=4, rank=64), 512, 512),
    Configuration(Settings(rank=128)),
    Configuration(Settings(targets="all")),
    Configuration(Settings(precision="int8")),
    Configuration(Settings(precision="int8", compute="wide", blocks_to_swap=1)),
    Configuration(Settings(precision="int8", blocks_to_swap=28)),
    Configuration(Settings(precision="int8", blocks_to_swap=57, checkpointing="offload")),
    Configuration(Settings(precision="int8", blocks_to_swap=57, checkpointing="offload"), 512, 512),
    Configuration(Settings(precision="fp8", blocks_to_swap=8)),
    Configuration(Settings(precision="fp8", compute="wide", blocks_to_swap=16, checkpointing="offload")),
    Configuration(Settings(precision="nf4")),
    Configuration(Settings(precision="nf4", checkpointing="offload", optimizer="adafactor", rank=128), 512, 512),
    Configuration(Settings(precision="nf4", checkpointing="offload", blocks_to_swap=40, batch=2), 768, 768),
)
"""What people run, and the ends of every range."""


def drawn(seed: int, count: int) -> list[Configuration]:
    """Configurations drawn over all ranges; six pairs of rank and optimizer, since those are traced apart."""
    draw = random.Random(seed)
    pairs = [(draw.choice(RANKS), draw.choice(OPTIMIZERS)) for _ in range(6)]
    found = []
    for _ in range(count):
        rank, optimizer = draw.choice(pairs)
        width, height = draw.choice(SIZES)
        chosen: dict[str, Any] = {
            "precision": draw.choice(PRECISIONS),
            "compute": draw.choice(("8bit", "wide")),
            "blocks_to_swap": draw.randint(0, 57),
            "checkpointing": draw.choice(KEPT),
            "modulation_cache": draw.random() < 0.8,
            "batch": draw.randint(1, 4),
        }
        found.append(Configuration(Settings(**chosen, rank=rank, optimizer=optimizer), width, height))
    return found


def compare(configuration: Configuration) -> Compared:
    """Forecast and trace of what training allocates on the card at its highest."""
    said: Forecast = forecast(configuration.job(), configuration.settings, MACHINE)
    parts = said.stage("train").vram
    allocated = sum(parts.get(part, 0) for part in TRACED)
    return Compared(configuration.name, allocated, peak(configuration.setup()))

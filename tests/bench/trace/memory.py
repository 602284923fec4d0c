"""Configurations that are meant to fit a card, and what the forecast says of each: one formula for all.

The forecast (:mod:`profiles.estimate`) is held against the traced step by :mod:`tests.bench.trace.against`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from profiles.estimate import forecast
from profiles.memory_model import Held as HeldParts
from profiles.schema import Settings
from profiles.time_model import offloaded_bytes
from tests.bench.trace.against import MACHINE, Configuration

GB = 1e9


@dataclass(frozen=True)
class Meant:
    """A configuration by name, and the card that it is meant to fit."""

    name: str
    card_gb: int
    configuration: Configuration = field(default_factory=lambda: Configuration(Settings()))


@dataclass(frozen=True)
class Held:
    """Forecast peak of training in GB (1e9 bytes), by part."""

    weights: float
    adapters: float
    checkpoints: float
    working: float
    host: float
    """Streamed blocks and offloaded inputs."""

    link: float
    """Over PCIe in a step, weights and block inputs, both ways."""

    total: float
    """With the context and what the allocator loses: what the card must have free."""


def meant(name: str, card_gb: int, width: int = 1024, **settings: object) -> Meant:
    """A configuration in a line."""
    chosen = Settings(**settings)  # type: ignore[arg-type]
    return Meant(name, card_gb, Configuration(chosen, width, width))


STREAMED = {"blocks_to_swap": 57, "checkpointing": "offload"}

CONFIGURATIONS = (
    meant("bf16, all resident", 24),
    meant("bf16, all resident, float32 AdamW", 24, optimizer="adamw"),
    meant("bf16, all resident, attention kept", 24, checkpointing="attention"),
    meant("int8, all resident", 16, precision="int8"),
    meant("int8, checkpoints offloaded", 12, precision="int8", checkpointing="offload"),
    meant("int8, half the blocks streamed", 10, precision="int8", blocks_to_swap=28),
    meant("nf4, checkpoints offloaded", 8, precision="nf4", checkpointing="offload"),
    meant(
        "int8, all streamed, checkpoints offloaded", 4, precision="int8", blocks_to_swap=57, checkpointing="offload"
    ),
    meant("bf16, all streamed, checkpoints offloaded", 4, blocks_to_swap=57, checkpointing="offload"),
)


def hold(configuration: Configuration) -> Held:
    """What training with this configuration holds."""
    job, settings = configuration.job(), configuration.settings
    stage = forecast(job, settings, MACHINE).stage("train")
    parts = HeldParts(job, settings, MACHINE)
    tokens = ((configuration.width // 16) * (configuration.height // 16) + 512) * settings.batch
    moved = parts.plan.step_bytes() + sum(offloaded_bytes(parts, tokens))

    def total(names: str, of: dict[str, int]) -> float:
        return sum(of.get(name, 0) for name in names.split(", ")) / GB

    vram, ram = dict(stage.vram), dict(stage.ram)
    return Held(
        weights=total("weights, ring, modulation", vram),
        adapters=total("adapter, optimizer", vram),
        checkpoints=total("activations", vram),
        working=total("working, libraries", vram),
        host=total("streamed blocks, offloaded inputs", ram),
        link=moved / GB,
        total=sum(vram.values()) / GB,
    )

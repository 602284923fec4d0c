"""Machines that are made up, and a planner with arithmetic of its own: what the wizard is tested on.

The figures are plausible and stand still: forecast and solver may learn better ones without a picture changing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.dataset.scan import Scan
from engine.errors import ConfigError
from engine.hardware.cards import Card, card_named
from profiles.schema import (
    GIB,
    Alternative,
    Bucket,
    Fit,
    Forecast,
    Job,
    Machine,
    ModelSize,
    Reasoned,
    Settings,
    Stage,
    Wishes,
)
from tui.wizard.planner import Place

WEIGHTS_GB = {"bf16": 22.2, "int8": 11.2, "fp8": 11.1, "nf4": 6.3}
BLOCKS = 57


def card(name: str) -> Card:
    """A known card."""
    return card_named(name)


def machine(name: str, free_gb: float, ram_gb: float = 64.0, **more: Any) -> Machine:
    """A machine with that card, of which a run may take ``free_gb``."""
    return Machine(card(name) if name else None, free_gb, ram_gb, ram_gb - 9.0, 16, 812.0, 812.0, **more)


NO_GPU = (
    Place(
        "cpu", "the processor", "There is no GPU here: 16 cores train the pocket model, FLUX.1 not.",
        machine("", 0.0, 32.0, remarks=("No NVIDIA driver is installed.",)),
    ),
)  # fmt: skip
SHARED = (
    Place(
        "cuda:0", "RTX 3070", "The only card. A desktop holds 1.4 GB of its 8.",
        machine("RTX 3070", 6.6, 32.0, remarks=("Xorg and firefox hold 1.4 GB of the card.",)),
    ),
)  # fmt: skip
UNEQUAL = (
    Place("cuda:1", "RTX 4090", "The fastest, and nothing runs on it.", machine("RTX 4090", 23.6)),
    Place("cuda:0", "RTX 3060", "Draws the desktop, and takes four times as long.", machine("RTX 3060", 10.7)),
)
LARGE = (Place("cuda:0", "H100 PCIe", "The only card, and nothing runs on it.", machine("H100 PCIe", 79.1, 256.0)),)


class MadeUp:
    """A planner for made-up places. ``gate`` holds its answers back while it is cleared."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        self._places = places
        self.asked: list[tuple[dict[str, Any], Wishes, Settings]] = []
        self.gate = threading.Event()
        self.gate.set()

    def places(self, cache_dir: Path, runs_dir: Path) -> tuple[Place, ...]:
        """Those it was made with."""
        return self._places

    def job(self, config: RunConfig, scan: Scan) -> Job:
        """The dataset's size; always FLUX.1-dev, at the configuration's resolution."""
        model = ModelSize("flux1", "dev", {}, 23_802_932_552, 9_787_841_024, 246_144_152, 335_304_388, "bf16", 512)
        side, count = config.dataset.resolution, len(scan.samples)
        shown = sum(sample.repeats for sample in scan.samples)
        return Job(model, (Bucket(side, side, shown),), count, count, count, config.training.epochs)

    def solve(self, job: Job, machine: Machine, wishes: Wishes, fixed: Mapping[str, Any], start: Settings) -> Fit:
        """The first of a few settings that fits."""
        assert self.gate.wait(30)
        self.asked.append((dict(fixed), wishes, start))
        if fixed.get("memory.precision") == "nf4" and not wishes.nf4:
            raise ConfigError("nf4 is not allowed", 'memory.precision = "nf4"', "Allow it.")
        settings = self._settings(machine, wishes, fixed, start)
        return self._fit(job, machine, wishes, fixed, settings)

    def _settings(self, machine: Machine, wishes: Wishes, fixed: Mapping[str, Any], start: Settings) -> Settings:
        room = machine.free_vram_gb - wishes.leave_gb - 0.8 - 0.6
        precision = fixed.get("memory.precision", "auto")
        if precision == "auto":
            precision = "bf16" if "memory.precision" in fixed or machine.card is None or room > 27 else "int8"
        batch = int(fixed.get("training.batch_size", start.batch))
        over = WEIGHTS_GB[precision] + 2.4 * batch + 0.02 * start.rank - room
        over += 0.9 if over > 0 else 0
        swap = max(0, min(BLOCKS, ceil(over / WEIGHTS_GB[precision] * BLOCKS))) if machine.card else 0
        optimizer = "adamw" if machine.card is None else "adamw8bit"
        return Settings(
            precision=precision,
            blocks_to_swap=int(fixed.get("memory.blocks_to_swap", swap)),
            checkpointing=fixed.get("training.gradient_checkpointing", "none" if room > 60 else "full"),
            batch=batch,
            rank=start.rank,
            optimizer=str(fixed.get("optimizer.name", optimizer)),
        )

    def _forecast(self, job: Job, machine: Machine, settings: Settings) -> Forecast:
        megapixels = (job.buckets[0].width / 1024) ** 2
        stays = 1 - settings.blocks_to_swap / BLOCKS
        small = 0.01 if job.buckets[0].width < 256 else 1.0
        train = {
            "weights": WEIGHTS_GB[settings.precision] * stays * small,
            "adapter": 0.02 * settings.rank * small,
            "activations": 2.4 * settings.batch * megapixels * (4 if settings.checkpointing == "none" else 1),
            "ring": 0.9 if settings.blocks_to_swap else 0.0,
            "context": 0.6,
        }
        step_s = settings.batch * (1.3 + 0.03 * settings.blocks_to_swap) * (small if machine.card else 900 * small)
        encode = {"autoencoder": 0.3, "working": 2.9 * megapixels, "context": 0.6}
        sizes = {
            "encode latents": (encode, 21.0),
            "encode captions": ({"T5": 1.9, "working": 0.2, "context": 0.6}, 9.0),
            "load": ({"weights": train["weights"], "working": 0.4, "context": 0.6}, 31.0),
            "train": (train, step_s * job.buckets[0].count * job.epochs / settings.batch),
            "sample": (train | {"activations": 1.1 * megapixels}, 240.0),
        }
        host = {"streamed blocks": WEIGHTS_GB[settings.precision] * (1 - stays), "process": 3.1}
        stages = tuple(
            Stage(name, _bytes(parts) if machine.card else {}, _bytes(host if machine.card else parts), seconds)
            for name, (parts, seconds) in sizes.items()
        )
        disk = {"cache of latents": job.pictures * 530_000, "cache of captions": job.pictures * 4_200_000,
                "LoRA files": 10 * settings.rank * 2_390_000, "states": 160_000_000}  # fmt: skip
        steps = job.buckets[0].count * job.epochs // settings.batch
        slowest = "PCIe" if settings.blocks_to_swap > 20 else "computing"
        return Forecast(stages, disk, step_s, slowest, steps, settings.rank * 2_390_000)

    def _fit(self, job: Job, machine: Machine, wishes: Wishes, fixed: Mapping[str, Any], settings: Settings) -> Fit:
        forecast = self._forecast(job, machine, settings)
        limit = machine.free_vram_gb - wishes.leave_gb - 0.8
        fits = forecast.peak_vram_gb <= limit if machine.card else forecast.peak_ram_gb <= machine.free_ram_gb
        slow = forecast.step_s > 2.2
        warnings = ("It fits, slowly: with memory to spare the same card would take 1.3 s.",) if slow else ()
        if machine.card is None:
            warnings = (f"There is no GPU here: the processor trains, {forecast.step_s:.0f} s for each picture.",)
        remedies = ("At 768 px it fits.", "With precision nf4 it fits.")
        if machine.card is None:
            remedies = ("A card of 8 GB would train it.", "The pocket model fits.")
        return Fit(
            settings, forecast, "does not fit" if not fits else "fits, slowly" if slow else "fits",
            max(limit, 0.0), 0.8 if machine.card else 0.0, self._reasons(job, machine, fixed, settings),
            warnings, () if fits else remedies,
        )  # fmt: skip

    def _reasons(
        self, job: Job, machine: Machine, fixed: Mapping[str, Any], settings: Settings
    ) -> tuple[Reasoned, ...]:
        def other(value: str, note: str = "", **change: Any) -> Alternative:
            forecast = self._forecast(job, machine, replace(settings, **change))
            peak = forecast.peak_vram_gb
            fits = machine.card is None or peak <= machine.free_vram_gb - 0.8
            return Alternative(value, fits, peak, forecast.peak_ram_gb, forecast.step_s, note)

        precision = settings.precision
        packed = [other(name, precision=name) for name in ("int8", "fp8", "nf4") if name != precision]
        whole = other("auto", "nothing is rounded", precision="bf16")
        swap = settings.blocks_to_swap
        near = sorted({0, max(0, swap - 8), min(BLOCKS, swap + 8), BLOCKS} - {swap})
        listed = [
            ("memory.precision", "Base precision", "auto" if precision == "bf16" else precision,
             "int8 rounds a weight by 0.7 to 0.9 %, which a LoRA hardly notices. Unquantised weights do not fit.",
             [*([] if precision == "bf16" else [whole]), *packed]),
            ("memory.blocks_to_swap", "Blocks streamed", swap,
             f"{swap} of {BLOCKS} blocks wait in host memory; their transfers hide behind computing.",
             [other(str(number), blocks_to_swap=number) for number in near]),
            ("training.gradient_checkpointing", "Blocks keep", settings.checkpointing,
             "A block keeps its input alone and computes the rest again.",
             [other(name, checkpointing=name) for name in ("none", "full") if name != settings.checkpointing]),
            ("memory.modulation_cache", "Modulation ahead", True,
             "What 27 % of the weights compute depends on noise level and caption alone: it is computed ahead.", []),
            ("training.batch_size", "Batch", settings.batch, "One picture a step, as asked for.",
             [other(str(settings.batch * 2), batch=settings.batch * 2)]),
            ("training.accumulation", "Accumulation", 1, "A step is one batch.", []),
            ("optimizer.name", "Optimizer", settings.optimizer,
             "AdamW whose states take a quarter of the memory.", [other("adafactor", optimizer="adafactor")]),
            ("lora.rank", "Rank", settings.rank, "As asked for.", [other("32", rank=32)]),
        ]  # fmt: skip
        told = [
            Reasoned(key, label, value, "You have fixed it." if key in fixed else reason, tuple(others), key in fixed)
            for key, label, value, reason, others in listed
        ]
        return (*told, Reasoned("", "T5", "layer by layer", "It passes through before training."))


def _bytes(parts: Mapping[str, float]) -> dict[str, int]:
    return {name: round(gb * GIB) for name, gb in parts.items() if gb}

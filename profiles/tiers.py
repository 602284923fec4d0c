"""Tiers: readable starting points by a card's memory, and the program that writes those that ship. No torch.

A tier is a machine and the settings for it. Those in ``tiers/*.toml`` are what the solver chose for the reference job
that each states; ``python -m profiles.tiers`` writes them anew, and a test keeps them equal to the solver. The user's
own lie in a folder of theirs and win over one of the same name; a file that breaks the schema is told with line and
key, and skipped.
"""

from __future__ import annotations

import json
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from engine.config import (
    Count,
    CountOrZero,
    LoraConfig,
    MemoryConfig,
    NonNegative,
    OptimizerConfig,
    Part,
    Positive,
    TrainingConfig,
)
from engine.config_file import check_table, parse_toml, read_text
from engine.errors import ConfigError
from engine.files import atomic_write
from engine.text import safe_text
from profiles import choices as names
from profiles.job import job_for
from profiles.machine import imagined_machine
from profiles.recipes import own_folder, toml_files
from profiles.schema import Fit, Job, Machine, Settings
from profiles.solve import solve

FOLDER = Path(__file__).parent / "tiers"

SIZES_GB = (8, 10, 12, 16, 24, 32, 48, 80)
"""Cards there are starting points for; 80 stands for more too."""

PROMPTS = 3
"""Sample pictures of a job that is only described."""

COMMENT_WIDTH = 110


class TierMachine(Part):
    """The machine a tier is for."""

    card: str = ""
    """As people call it; empty takes one that is usual for ``vram_gb``."""
    vram_gb: Positive
    ram_gb: NonNegative = 0.0
    """Host memory; 0 is twice the card's, 32 at least."""


class TierJob(Part):
    """The job a tier was solved for."""

    model: str = "flux1-dev"
    resolution: Annotated[int, Field(ge=64, le=4096)] = 1024
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    batch: Count = 1
    pictures: Count = 20
    epochs: Count = 100


class TierForecast(Part):
    """What was forecast for it."""

    verdict: Literal["fits", "fits, slowly"]
    peak_vram_gb: NonNegative
    peak_ram_gb: NonNegative
    disk_gb: NonNegative
    step_s: NonNegative
    steps: CountOrZero


class TierConfig(Part):
    """The part of a run's configuration that a tier fills in."""

    lora: LoraConfig = LoraConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    memory: MemoryConfig = MemoryConfig()


class TierFile(Part):
    """A tier's file."""

    title: Annotated[str, Field(min_length=1, max_length=40)]
    machine: TierMachine
    job: TierJob = TierJob()
    forecast: TierForecast | None = None
    config: TierConfig


@dataclass(frozen=True)
class Tier:
    """A tier as read.

    Attributes:
        name: of its file.
        fixed: its settings by dotted key, as the solver takes them.
        own: the user's.
    """

    name: str
    file: TierFile
    fixed: Mapping[str, Any]
    own: bool = False

    def machine(self) -> Machine:
        """The machine it describes.

        Raises:
            ConfigError: its card is not known.
        """
        described = self.file.machine
        return imagined_machine(described.vram_gb, described.ram_gb, described.card)


def all_tiers(folder: Path | None = None) -> tuple[dict[str, Tier], tuple[ConfigError, ...]]:
    """Every tier by name, the user's over those that ship, and what is wrong with files that were skipped."""
    tiers = {path.stem: read_tier(path) for path in sorted(FOLDER.glob("*.toml"))}
    problems = []
    for path in toml_files(own_folder("tiers") if folder is None else folder):
        try:
            tier = read_tier(path, own=True)
        except ConfigError as err:
            problems.append(err)
        else:
            tiers[tier.name] = tier
    return dict(sorted(tiers.items(), key=lambda item: item[1].file.machine.vram_gb)), tuple(problems)


def read_tier(path: Path, own: bool = False) -> Tier:
    """Read a tier's file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or breaks the schema; every problem with line and key.
    """
    text = read_text(path)
    file = check_table(parse_toml(text, path), text, TierFile, path)
    tables = tomllib.loads(text)["config"]
    given = {f"{table}.{key}": value for table, values in tables.items() for key, value in values.items()}
    fixed = {key: value for key, value in given.items() if key in names.KEYS}
    return Tier(safe_text(path.stem, 40), file, fixed, own)


# Writing those that ship


def solved(vram_gb: int) -> tuple[Machine, Fit]:
    """What the solver chooses for the reference job on a usual machine with a card of this size."""
    machine = imagined_machine(vram_gb)
    reference = TierJob()
    job = reference_job(reference)
    start = Settings(rank=reference.rank, batch=reference.batch)
    return machine, solve(job, machine, start=start, alternatives=False)


def reference_job(described: TierJob) -> Job:
    """The job that a tier states, with three sample pictures ten times."""
    epochs, every = described.epochs, max(described.epochs // 10, 1)
    return job_for(
        described.model, described.resolution, described.pictures, epochs=epochs, prompts=PROMPTS, every=every
    )


def tier_text(vram_gb: int) -> str:
    """The file of the tier for cards of this size."""
    machine, fit = solved(vram_gb)
    return "\n".join(_lines(vram_gb, machine, fit)) + "\n"


def _lines(vram_gb: int, machine: Machine, fit: Fit) -> Iterator[str]:
    card, forecast = machine.card, fit.forecast
    if card is None:
        raise ValueError("a tier is for a card")
    more = " or more" if vram_gb == SIZES_GB[-1] else ""
    yield f"# {vram_gb} GB{more}: what the solver chose for the job below on a usual machine with such a card."
    yield "# Written by `python -m profiles.tiers`. `kiln plan` solves for your own machine and pictures."
    for warning in fit.warnings:
        yield from _comment(warning)
    yield f'title = "{vram_gb} GB{more}"'
    yield from ("", "[machine]", f"card = {json.dumps(card.name)}", f"vram_gb = {vram_gb}")
    yield f"ram_gb = {machine.ram_gb:.0f}"
    yield from ("", "[job]", *(f"{key} = {_toml(value)}" for key, value in TierJob()))
    yield from ("", "[forecast]", f'verdict = "{fit.verdict}"', f"peak_vram_gb = {forecast.peak_vram_gb:.1f}")
    yield from (f"peak_ram_gb = {forecast.peak_ram_gb:.1f}", f"disk_gb = {forecast.disk_gb:.1f}")
    yield from (f"step_s = {forecast.step_s:.2f}", f"steps = {forecast.steps}")
    tables: dict[str, list[str]] = {}
    for reasoned in fit.reasons:
        if reasoned.key:
            table, key = reasoned.key.split(".")
            lines = tables.setdefault(table, [])
            lines += [*_comment(reasoned.reason), f"{key} = {_toml(reasoned.value)}"]
    for table in ("lora", "optimizer", "training", "memory"):
        yield from ("", f"[config.{table}]", *tables[table])


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, COMMENT_WIDTH - 2)]


def _toml(value: object) -> str:
    return json.dumps(value)  # numbers, text and booleans are written alike


def main() -> None:
    """Write every tier that ships."""
    FOLDER.mkdir(exist_ok=True)
    for vram_gb in SIZES_GB:
        path = FOLDER / f"{vram_gb}gb.toml"
        atomic_write(path, tier_text(vram_gb))
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()

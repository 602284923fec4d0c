"""What the solver may choose from: on which card what works, and what the user has fixed. No torch.

In the order of quality, best first, as measured in ``docs/performance.md``: unquantised weights, int8 (a scale for
each row, 0.7 to 0.9 % error of a weight), the same multiplied in 8 bit, fp8 (2.6 %), the same in 8 bit, nf4 (9 to
10 %). A base whose file is fp8 already loses nothing by staying so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.config import MemoryConfig, OptimizerConfig
from engine.errors import ConfigError
from engine.hardware.cards import Card
from engine.text import safe_text
from profiles.products import has_bf16, kind_of
from profiles.schema import Job, Kept, Machine, Precision, Settings, Wishes

Compute = Literal["8bit", "wide"]

PRECISION, COMPUTE, SWAP = "memory.precision", "memory.compute", "memory.blocks_to_swap"
CHECKPOINTING, MODULATION = "training.gradient_checkpointing", "memory.modulation_cache"
BATCH, ACCUMULATION = "training.batch_size", "training.accumulation"
OPTIMIZER, RANK, TARGETS = "optimizer.name", "lora.rank", "lora.targets"

KEYS = (PRECISION, COMPUTE, SWAP, CHECKPOINTING, MODULATION, BATCH, ACCUMULATION, OPTIMIZER, RANK, TARGETS)
"""What can be fixed, by its name in the configuration."""

ADAM = ("adamw", "adamw8bit", "paged_adamw", "paged_adamw8bit")
"""One and the same arithmetic with states kept in different places."""


@dataclass(frozen=True)
class Way:
    """A way to keep and multiply the frozen weights.

    Attributes:
        quality: 0 is the best there is on this machine.
    """

    precision: Precision
    compute: Compute
    quality: int


@dataclass(frozen=True)
class Choices:
    """Everything that may be chosen; what is fixed has one value.

    Attributes:
        ways: best quality first.
        swaps: ascending.
        batches: batch and accumulation, whose product is the same for all.
    """

    ways: tuple[Way, ...]
    swaps: tuple[int, ...]
    kept: tuple[Kept, ...]
    modulation: tuple[bool, ...]
    batches: tuple[tuple[int, int], ...]
    optimizer: str
    rank: int
    targets: Literal["default", "all"]

    def settings(self, way: Way, swap: int, kept: Kept, modulation: bool, batch: tuple[int, int]) -> Settings:
        """One choice of each."""
        return Settings(
            precision=way.precision,
            compute=way.compute,
            blocks_to_swap=swap,
            checkpointing=kept,
            modulation_cache=modulation,
            batch=batch[0],
            accumulation=batch[1],
            rank=self.rank,
            targets=self.targets,
            optimizer=self.optimizer,
        )

    def way_of(self, settings: Settings) -> Way:
        """The way that ``settings`` takes."""
        return next(
            way for way in self.ways if (way.precision, way.compute) == (settings.precision, settings.compute)
        )


def choices_for(job: Job, machine: Machine, wishes: Wishes, fixed: Mapping[str, Any], start: Settings) -> Choices:
    """What may be chosen for ``job`` on ``machine``.

    Args:
        fixed: by dotted key, as the configuration has the values.
        start: rank, targets, optimizer and batch times accumulation are taken from it.

    Raises:
        ConfigError: something fixed is no setting that the solver knows, or has a value that it cannot have here.
    """
    check_fixed(fixed, blocks_of(job))
    swaps = (int(fixed[SWAP]),) if SWAP in fixed else tuple(range(blocks_of(job) + 1))
    on_card = machine.card is not None
    return Choices(
        ways=_ways(job, machine, wishes, fixed),
        swaps=swaps if on_card or SWAP in fixed else (0,),
        kept=(fixed[CHECKPOINTING],) if CHECKPOINTING in fixed else kept_ways(on_card),
        modulation=(fixed[MODULATION],) if MODULATION in fixed else (True, False),
        batches=_batches(fixed, start),
        optimizer=str(fixed[OPTIMIZER]) if OPTIMIZER in fixed else optimizer_for(start.optimizer, machine),
        rank=int(fixed.get(RANK, start.rank)),
        targets=fixed.get(TARGETS, start.targets),
    )


def blocks_of(job: Job) -> int:
    """How many blocks the model has."""
    return int(job.model.params["depth"]) + int(job.model.params["depth_single_blocks"])


def kept_ways(on_card: bool) -> tuple[Kept, ...]:
    """What a block may keep; in host memory only where there is another."""
    return ("none", "attention", "full", "offload") if on_card else ("none", "attention", "full")


def config_precision(precision: str) -> str:
    """A precision as ``memory.precision`` has it."""
    return "auto" if precision in ("bf16", "float32") else precision


def config_value(settings: Settings, key: str, card: Card | None) -> Any:
    """A setting's value by its dotted key, as the configuration has it."""
    if key == COMPUTE:
        possible = "8bit" in computes(settings.precision, card)
        return "wide" if possible and settings.compute == "wide" else "auto"
    return {
        PRECISION: config_precision(settings.precision),
        SWAP: settings.blocks_to_swap,
        CHECKPOINTING: settings.checkpointing,
        MODULATION: settings.modulation_cache,
        BATCH: settings.batch,
        ACCUMULATION: settings.accumulation,
        OPTIMIZER: settings.optimizer,
        RANK: settings.rank,
        TARGETS: settings.targets,
    }[key]


def unquantised(card: Card | None) -> Precision:
    """The precision of weights that are not packed: without bfloat16 units (before Ampere, processors) float32."""
    return "bf16" if has_bf16(card) else "float32"


def computes(precision: str, card: Card | None) -> tuple[Compute, ...]:
    """How products with a base of this precision may be computed on this card, the exact way first."""
    if card is None or precision not in ("int8", "fp8"):
        return ("wide",)
    has_units = getattr(card.rates, precision) > 0
    return ("wide", "8bit") if has_units and kind_of(precision, "8bit", card) == precision else ("wide",)


def optimizer_for(wanted: str, machine: Machine) -> str:
    """The optimizer that stands in for ``wanted`` here.

    The Adam family is one arithmetic: 8-bit states where bitsandbytes is there, Adafactor where it is not, and on a
    processor torch's own, which is the quickest there. Another optimizer was chosen on purpose and stays, unless it
    needs what is missing.
    """
    if wanted in ADAM:
        if machine.card is None:
            return "adamw"
        return "adamw8bit" if machine.bitsandbytes else "adafactor"
    needs_it = wanted.startswith("paged_") or wanted.endswith("8bit")
    return "lion" if needs_it and not machine.bitsandbytes else wanted


def _ways(job: Job, machine: Machine, wishes: Wishes, fixed: Mapping[str, Any]) -> tuple[Way, ...]:
    card = machine.card
    plain = unquantised(card)
    order: list[Precision] = [plain, "int8", "fp8", "nf4"]
    stored_fp8 = job.model.stored.startswith("fp8")
    if card is None:
        # A processor has no fast product with packed weights; they would only cost time.
        order = [plain]
    elif kind_of("fp8", "8bit", card) != "fp8":
        order.remove("fp8")  # int8 is more exact, and no slower where fp8 has no products
    if card is not None and (not machine.bitsandbytes or not wishes.nf4):
        order.remove("nf4")
    if PRECISION in fixed:
        wanted = fixed[PRECISION]
        order = [plain if wanted in ("auto", "bf16", "float32") else wanted]
        if "nf4" in order and not machine.bitsandbytes:
            raise ConfigError("nf4 needs bitsandbytes", f'{PRECISION} = "nf4", which is not installed', _INSTALL)
    ways = [(precision, compute) for precision in order for compute in computes(precision, card)]
    if COMPUTE in fixed and fixed[COMPUTE] != "auto":
        only = [(precision, compute) for precision, compute in ways if compute == fixed[COMPUTE]]
        ways = only or [(precision, "wide") for precision in order]
    ranked = sorted(ways, key=lambda way: (not (stored_fp8 and way == ("fp8", "wide")), ways.index(way)))
    # fp8 weights that come so from the file are as good as unquantised ones.
    quality = [0 if stored_fp8 and way == ("fp8", "wide") else ways.index(way) for way in ranked]
    return tuple(Way(*way, place) for way, place in zip(ranked, quality, strict=True))


_INSTALL = "Install it (pip install bitsandbytes), or choose int8."


def _batches(fixed: Mapping[str, Any], start: Settings) -> tuple[tuple[int, int], ...]:
    """Batch and accumulation; the largest batch first, since it takes least time a picture."""
    whole = start.batch * start.accumulation
    if BATCH in fixed and ACCUMULATION in fixed:
        return ((int(fixed[BATCH]), int(fixed[ACCUMULATION])),)
    if BATCH in fixed:
        return ((int(fixed[BATCH]), max(whole // int(fixed[BATCH]), 1)),)
    if ACCUMULATION in fixed:
        return ((max(whole // int(fixed[ACCUMULATION]), 1), int(fixed[ACCUMULATION])),)
    return tuple((batch, whole // batch) for batch in range(whole, 0, -1) if whole % batch == 0)


def check_fixed(fixed: Mapping[str, Any], blocks: int) -> None:
    """Check what the user has fixed.

    Raises:
        ConfigError: an unknown key, or a value that the setting cannot have.
    """
    for key, value in fixed.items():
        if key not in KEYS:
            raise ConfigError("No such setting to fix", safe_text(key), f"These can be fixed: {', '.join(KEYS)}.")
        allowed = _allowed(key, value, blocks)
        if allowed:
            raise ConfigError("A setting cannot have this value", f"{key} = {safe_text(value, 80)}", allowed)


def _allowed(key: str, value: Any, blocks: int) -> str:
    """What the setting may be, where ``value`` is something else; empty where it is right."""
    words: dict[str, tuple[str, ...]] = {
        PRECISION: (*get_args(MemoryConfig.model_fields["precision"].annotation), "bf16", "float32"),
        COMPUTE: get_args(MemoryConfig.model_fields["compute"].annotation),
        CHECKPOINTING: get_args(Kept),
        OPTIMIZER: get_args(OptimizerConfig.model_fields["name"].annotation),
        TARGETS: ("default", "all"),
    }
    if key in words:
        return "" if value in words[key] else f"It is one of {', '.join(words[key])}."
    if key == MODULATION:
        return "" if isinstance(value, bool) else "It is true or false."
    least, most = {SWAP: (0, blocks), RANK: (1, 1024)}.get(key, (1, 4096))
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return "" if is_number and least <= value <= most else f"It is a whole number from {least} to {most}."

"""What a run's memory stands on, and the rungs by which it can stand lower. Plain values, torch-free.

A :class:`Footing` holds the settings that the out-of-memory ladder may lower. The run's configuration says where it
begins and which rungs there are; the planner writes them there, or the engine derives them here
(:func:`derive_rungs`). What was taken is written down in the run's folder (:class:`Taken`), so that a resumed run
computes every step as it was computed. Carrying a rung out is :mod:`engine.training.ladder`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from engine.config import RunConfig
from engine.config_memory import AUTO, Rung, parse_rung
from engine.files import atomic_write
from engine.sealed import sealed, unsealed

KEEPING = ("none", "attention", "full", "offload")
"""``training.gradient_checkpointing`` from what keeps most on the GPU to what keeps least."""

PRECISIONS = ("auto", "fp8", "int8", "nf4")
"""``memory.precision`` from wide to narrow; fp8 and int8 are of one width."""

SWAP_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Parts of all blocks that the derived ladder lets stream: few jumps, since a step is lost at each."""

NEUTRAL = frozenset({"empty_cache", "gradient_checkpointing", "blocks_to_swap"})
"""Settings that change no bit of what is learned."""


@dataclass(frozen=True)
class Footing:
    """The settings that the ladder may lower.

    Attributes:
        gradient_checkpointing, blocks_to_swap, precision: as in the configuration.
        micro_batch: most pictures that go through the model together; a larger micro-batch is done in parts.
        compute: as ``memory.compute``; a base packed on the way is unpacked for its products.
    """

    gradient_checkpointing: str
    blocks_to_swap: int
    micro_batch: int
    precision: str
    compute: str = "auto"

    def below(self, rung: Rung) -> Footing | None:
        """This footing with a rung taken; None where that would not lower it."""
        match rung.setting:
            case "gradient_checkpointing":
                lower = KEEPING.index(rung.value) > KEEPING.index(self.gradient_checkpointing)
                return replace(self, gradient_checkpointing=rung.value) if lower else None
            case "blocks_to_swap":
                return replace(self, blocks_to_swap=rung.number) if rung.number > self.blocks_to_swap else None
            case "micro_batch":
                return replace(self, micro_batch=rung.number) if rung.number < self.micro_batch else None
            case "precision":
                lower = _bits(rung.value) < _bits(self.precision)
                return replace(self, precision=rung.value, compute="wide") if lower else None
            case _:
                return None

    def value(self, setting: str) -> str:
        """A setting's value as text; "" for what is none."""
        return str(getattr(self, setting, ""))

    def applied_to(self, config: RunConfig) -> RunConfig:
        """The configuration to load a run with that stands here; how pictures are gathered is left as it is."""
        memory = {"blocks_to_swap": self.blocks_to_swap, "precision": self.precision, "compute": self.compute}
        training = {"gradient_checkpointing": self.gradient_checkpointing}
        return config.model_copy(
            update={
                "memory": config.memory.model_copy(update=memory),
                "training": config.training.model_copy(update=training),
            }
        )


def footing_of(config: RunConfig) -> Footing:
    """Where a run begins."""
    training, memory = config.training, config.memory
    return Footing(
        training.gradient_checkpointing,
        memory.blocks_to_swap,
        training.batch_size,
        memory.precision,
        memory.compute,
    )


def rungs_of(config: RunConfig, blocks: int) -> tuple[Rung, ...]:
    """The run's ladder, highest rung first.

    Args:
        blocks: how many the model has.
    """
    if config.memory.ladder == AUTO:
        return tuple(derive_rungs(footing_of(config), blocks, config.memory.allow_lower_precision))
    return tuple(map(parse_rung, config.memory.ladder))


def derive_rungs(footing: Footing, blocks: int, lower_precision: bool) -> Iterator[Rung]:
    """The rungs below ``footing``, cheapest first; those that change rounding come last.

    Offloading comes before streaming: it costs a copy of a block's input where streaming costs one of its weights.
    """
    candidates = [Rung("gradient_checkpointing", value) for value in ("full", "offload")]
    candidates += [Rung("blocks_to_swap", str(round(blocks * share))) for share in SWAP_SHARES]
    size = footing.micro_batch
    while size > 1:
        size = -(-size // 2)
        candidates.append(Rung("micro_batch", str(size)))
    if lower_precision:
        candidates += [Rung("precision", value) for value in ("int8", "nf4")]
    yield Rung("empty_cache")
    for rung in candidates:
        below = footing.below(rung)
        if below is not None:
            yield rung
            footing = below


@dataclass(frozen=True)
class Taken:
    """A rung that was taken, and the step from which on it counts."""

    step: int
    setting: str
    before: str
    after: str

    @property
    def rung(self) -> Rung:
        """What was taken."""
        return Rung(self.setting, self.after)

    def __str__(self) -> str:
        """In words."""
        return f"{self.setting} {self.before} -> {self.after}"


def write_taken(path: Path, taken: Sequence[Taken]) -> None:
    """Write down all rungs taken so far, in their order; returns when they are on the disk.

    Raises:
        DiskError: they could not be written; what stood there stands.
    """
    atomic_write(path, sealed(json.dumps({"taken": [asdict(each) for each in taken]}, indent=1)) + "\n")


def read_taken(path: Path) -> tuple[list[Taken], str]:
    """What :func:`write_taken` wrote, or nothing and what is wrong with the file; no words where there is none."""
    try:
        found = unsealed(path.read_bytes())["taken"]
        taken = [Taken(int(e["step"]), str(e["setting"]), str(e["before"]), str(e["after"])) for e in found]
        for each in taken:
            parse_rung(str(each.rung))
    except FileNotFoundError:
        return [], ""
    except OSError as err:
        return [], f"cannot be read ({err.strerror})"
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return [], "is damaged"
    return taken, ""


def _bits(precision: str) -> int:
    return {"auto": 16, "fp8": 8, "int8": 8, "nf4": 4}[precision]

"""How a run is made to fit its card: the [memory] table, and the ladder that a run steps down when it does not.

Stands apart from :mod:`engine.config`, which holds every other table, because planner, engine and ladder read it
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.config_part import NonNegative, Part


def _checkpointing(value: Any) -> Any:
    return {True: "full", False: "none"}[value] if isinstance(value, bool) else value


Checkpointing = Annotated[Literal["none", "attention", "full", "offload"], BeforeValidator(_checkpointing)]


KOHYA_MOST = 35
"""kohya's scripts exchange blocks and keep two of each kind as partners."""


def kohya_blocks(number: int) -> tuple[int, int]:
    """Double and single blocks that kohya's ``blocks_to_swap`` means: two single ones for a double one.

    Raises:
        ValueError: a number that kohya's scripts refuse too.
    """
    if not 0 <= number <= KOHYA_MOST:
        raise ValueError(f"kohya:{number} is out of range: kohya's blocks_to_swap goes from 0 to {KOHYA_MOST}")
    doubles = number // 2
    return doubles, 2 * (number - doubles)


def _blocks_to_swap(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("kohya:") and value[6:].isdecimal() and len(value) < 12:
        return sum(kohya_blocks(int(value[6:])))
    return value


@dataclass(frozen=True)
class Rung:
    """One rung of the out-of-memory ladder: what is set to what.

    Attributes:
        setting: one of :data:`RUNGS`.
        value: what it becomes; "" for a rung without one.
    """

    setting: str
    value: str = ""

    @property
    def number(self) -> int:
        """The value of a rung that counts something."""
        return int(self.value)

    def __str__(self) -> str:
        """As it stands in ``memory.ladder``."""
        return f"{self.setting}={self.value}" if self.value else self.setting


RUNGS: dict[str, tuple[str, ...] | range] = {
    "empty_cache": ("",),
    "gradient_checkpointing": ("attention", "full", "offload"),
    "blocks_to_swap": range(1, 1001),
    "micro_batch": range(1, 4097),
    "precision": ("fp8", "int8", "nf4"),
}
"""What a rung may set, and to what."""


def parse_rung(text: str) -> Rung:
    """A rung from its text.

    Raises:
        ValueError: there is no such rung, or it cannot be set to that; the text says what can.
    """
    setting, _, value = text.partition("=")
    allowed = RUNGS.get(setting)
    if allowed is None:
        raise ValueError(f'"{setting[:40]}" is no rung; known are {", ".join(RUNGS)}')
    if isinstance(allowed, range):
        if not value.isascii() or not value.isdecimal() or len(value) > 6 or int(value) not in allowed:
            raise ValueError(f'"{text[:60]}": {setting} wants a number from {allowed[0]} to {allowed[-1]}')
        return Rung(setting, str(int(value)))
    if value not in allowed:
        choices = "no value" if allowed == ("",) else f"one of {', '.join(allowed)}"
        raise ValueError(f'"{text[:60]}": {setting} wants {choices}')
    return Rung(setting, value)


AUTO = ("auto",)
"""The ladder that the engine derives itself."""


def _ladder(value: Any) -> Any:
    if isinstance(value, str):
        return {"auto": AUTO, "off": ()}.get(value, value)
    return tuple(value) if isinstance(value, list) else value


class MemoryConfig(Part):
    """How the frozen base is kept and computed, so that a run fits the card."""

    precision: Literal["auto", "fp8", "int8", "nf4"] = "auto"
    """Precision of the blocks' frozen weights; auto keeps ``model.dtype``. Norms, biases and the first and last
    layers are never packed."""
    compute: Literal["auto", "8bit", "wide"] = "auto"
    """Products with an 8-bit base: auto in 8 bit where the card can, wide always unpacks to ``model.dtype``."""
    blocks_to_swap: Annotated[int, Field(ge=0, le=1000), BeforeValidator(_blocks_to_swap)] = 0
    """Blocks whose weights wait in host memory and stream through the GPU; 57 is all of FLUX.1's.
    ``"kohya:16"`` is as many as that number means in kohya's scripts, 8 double and 16 single ones."""
    pinned_gb: NonNegative = 0.0
    """Most host memory to pin for streaming and offloading; 0 takes what is safe on this machine."""
    modulation_cache: bool = True
    """Compute the modulation layers' outputs ahead and keep their weights (27 % of FLUX.1) off the GPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the blocks; auto does so on a GPU where no fused kernels run; on always does."""
    cuda_graphs: Literal["auto", "on", "off"] = "off"
    """Replay a recorded step where shapes repeat."""
    probe: Literal["auto", "on", "off"] = "auto"
    """Before the first step, make two on the largest bucket and take them back: what they need is compared with the
    forecast. auto does so on a GPU when a run first starts; on at every start, on a processor too."""
    ladder: Annotated[tuple[str, ...], BeforeValidator(_ladder)] = AUTO
    """What is changed, one rung after the other, when a run in one process runs out of GPU memory; the step is then
    done again. "auto" empties the cache, recomputes more, streams more blocks and splits micro-batches, in this
    order; "off" (or an empty list) changes nothing. Else rungs like "empty_cache", "gradient_checkpointing=offload",
    "blocks_to_swap=28", "micro_batch=1", "precision=int8"."""
    allow_lower_precision: bool = False
    """Let the ladder pack the frozen weights to fewer bits, as its last resort: it changes what is learned."""

    @model_validator(mode="after")
    def _known_rungs(self) -> MemoryConfig:
        if self.ladder == AUTO:
            return self
        for text in self.ladder:
            try:
                rung = parse_rung(text)
            except ValueError as err:
                raise ValueError(f"ladder: {err}") from err
            if rung.setting == "precision" and not self.allow_lower_precision:
                raise ValueError(f'ladder: "{rung}" is not allowed: it needs memory.allow_lower_precision = true')
        return self

"""What a run tells of memory, time and room: sampled, measured, forecast, and what runs short.

A part of :mod:`engine.events`, which every reader imports them from. Sizes in GiB, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemorySampled:
    """Memory and load now; the gpu fields are 0 where there is no GPU. Sizes in GiB."""

    host_used_gb: float
    host_total_gb: float
    process_gb: float
    vram_used_gb: float = 0.0
    vram_total_gb: float = 0.0
    vram_peak_gb: float = 0.0
    gpu_percent: float = 0.0
    gpu_celsius: float = 0.0
    gpu_watts: float = 0.0


@dataclass(frozen=True)
class MemoryHeld:
    """What the run's memory holds while it trains, GiB: on the GPU where there is one, else in the process.

    ``weights`` of the frozen base with the buffers they stream through; ``adapters`` with their gradients and the
    optimizer's states; ``checkpoints`` what the forward pass keeps for the backward one; ``working`` what a step
    needs on top of all that at its highest; ``other`` the rest of what stands; ``peak`` the highest so far.
    """

    weights_gb: float
    adapters_gb: float
    checkpoints_gb: float
    working_gb: float
    other_gb: float
    peak_gb: float


@dataclass(frozen=True)
class Probed:
    """Two steps on the largest bucket, made before the run's first and taken back: what they needed.

    ``peak_gb`` is what the process held at most: on a GPU what torch reserved, with ``context_gb`` that the driver
    keeps for it (0 where other programs hide it); on a processor the whole process. ``allocated_gb`` of it were in
    tensors at once, ``standing_gb`` between steps. ``step_s`` is the time of a whole step, which sees ``tokens`` in
    micro-batches of ``batch`` pictures of ``width`` x ``height`` pixels. ``total_gb`` is the card's, 0 without one.
    """

    peak_gb: float
    allocated_gb: float
    standing_gb: float
    step_s: float
    tokens: int
    width: int
    height: int
    batch: int
    total_gb: float = 0.0
    context_gb: float = 0.0


@dataclass(frozen=True)
class Foreseen:
    """What was forecast for that which a probe just measured; told by whoever made the forecast.

    ``peak_gb`` and ``step_s`` belong to the same-named ones of :class:`Probed`. ``basis`` says what the forecast was
    corrected by, in words; empty where it is arithmetic alone.
    """

    peak_gb: float
    step_s: float
    basis: str = ""


@dataclass(frozen=True)
class Slowed:
    """Steps take ``factor`` times as long as they did, from about ``step`` on.

    ``cause`` is "spill" (the driver moves GPU memory to the host), "heat", "power", "data", "copies" or "unknown", or
    "over", with a factor of 1, where they are as they were; ``text`` says it in words and what to do. ``changes`` are
    values to try next, as in a configuration: "memory.blocks_to_swap = 24".
    """

    step: int
    factor: float
    cause: str
    text: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DiskTight:
    """The disk of the run's folder has room for ``saves`` more saves; told when they get few, and when many again.

    ``free_gb`` is free, ``save_gb`` what a save takes while it is written. ``removable`` names files and folders that
    nobody needs to go on, the oldest first, with their sizes in bytes (``sizes``); nothing removes them unasked.
    """

    saves: int
    free_gb: float
    save_gb: float
    removable: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class SteppedDown:
    """Memory ran out, and a setting was changed so that the run goes on; no step is lost or made twice.

    ``stage`` is "loading", "probing", "training" or "sampling"; ``step`` the optimizer step that is done
    again, or the last one done where it was none. ``setting`` is what was changed, from ``before`` to ``after``
    ("empty_cache" with both empty: memory that torch kept was given back). ``reason`` is what torch said.
    """

    stage: str
    step: int
    setting: str
    before: str
    after: str
    reason: str

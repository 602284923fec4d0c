"""What forecast, solver and their readers talk about: machines, jobs, settings, forecasts. Plain values, no torch.

A :class:`Job` is what is to be trained, in sizes alone; :class:`Settings` are the choices that decide memory and
time; a :class:`Machine` is where. ``profiles.estimate.forecast(job, settings, machine)`` makes a :class:`Forecast` of
the three, and ``profiles.solve.solve(job, machine, wishes, fixed)`` chooses the settings and gives a :class:`Fit`.

Memory is in bytes inside; what is called ``_gb`` is GiB (2^30), as drivers and boxes count it. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.hardware.cards import Card

GIB = 2**30

Precision = Literal["float32", "bf16", "fp8", "int8", "nf4"]
Kept = Literal["none", "attention", "full", "offload"]


@dataclass(frozen=True)
class Machine:
    """A machine as the forecast sees it.

    Attributes:
        card: the card that would train; None where there is none.
        free_vram_gb: what a run may take of it now: others' memory is left out.
        ram_gb: host memory; ``free_ram_gb`` is what new work may take.
        cache_disk_gb: free where the caches go; ``runs_disk_gb`` where runs go (equal and shared if ``one_disk``).
        bitsandbytes: installed: nf4 and 8-bit optimizers can be had.
        remarks: what could not be read or is unusual, in words.
    """

    card: Card | None
    free_vram_gb: float
    ram_gb: float
    free_ram_gb: float
    cores: int
    cache_disk_gb: float
    runs_disk_gb: float
    one_disk: bool = True
    bitsandbytes: bool = True
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bucket:
    """Pictures of one size: ``count`` turns an epoch, repeats included. Sides in pixels."""

    width: int
    height: int
    count: int


@dataclass(frozen=True)
class ModelSize:
    """The base model in sizes.

    Attributes:
        family: flux1.
        variant: dev, schnell, or a smaller one's name.
        params: as :attr:`engine.models.detect.ModelInfo.params` has them.
        transformer_bytes: the file's size, ``t5_bytes`` and the others' likewise.
        stored: dtype of the transformer's file: fp16, bf16, fp8_e4m3fn ...
        text_tokens: T of a caption: 512 for dev, 256 for schnell, or as configured.
    """

    family: str
    variant: str
    params: Mapping[str, Any]
    transformer_bytes: int
    t5_bytes: int
    clip_bytes: int
    autoencoder_bytes: int
    stored: str
    text_tokens: int


@dataclass(frozen=True)
class Draws:
    """Sample pictures: ``count`` prompts of a size, drawn ``times`` times in the run."""

    count: int = 0
    width: int = 1024
    height: int = 1024
    steps: int = 20
    cfg: bool = False
    times: int = 0


@dataclass(frozen=True)
class Job:
    """What is to be trained, and how long.

    Attributes:
        buckets: one epoch's pictures by size, regularization pictures included.
        pictures: files that the cache of latents is filled from; ``views`` are its entries (crops and flips apart).
        captions: different captions to encode, those of the prompts included.
        epochs: 0 where ``steps`` alone ends the run.
        steps: most steps; 0 leaves it to the epochs.
        saves: LoRA files written; ``layouts`` of each.
        kept: so many of them stand at most at a time; 0 where all stay.
        picture_megapixels: of a usual picture, for the time that decoding takes.
        base_is_packed: a packed copy of the base in some precision stands in the cache, by precision.
        diffusers: one of the layouts is diffusers', whose files hold the parts of fused matrices one by one.
        lora_itemsize: bytes of a value in LoRA files.
        keep_states: training states that stay on disk.
        processes: how many share each step.
    """

    model: ModelSize
    buckets: tuple[Bucket, ...]
    pictures: int
    views: int
    captions: int
    epochs: int
    steps: int = 0
    saves: int = 1
    kept: int = 0
    layouts: int = 1
    draws: Draws = field(default_factory=Draws)
    picture_megapixels: float = 2.0
    base_is_packed: frozenset[str] = frozenset()
    diffusers: bool = False
    lora_itemsize: int = 2
    keep_states: int = 2
    processes: int = 1


@dataclass(frozen=True)
class Settings:
    """The choices that decide memory and time; names as in the configuration.

    Attributes:
        precision: of the blocks' frozen weights, "auto" resolved: bf16 (float32 on a processor), fp8, int8 or nf4.
        compute: products with an 8-bit base: "8bit" or "wide".
    """

    precision: Precision = "bf16"
    compute: Literal["8bit", "wide"] = "8bit"
    blocks_to_swap: int = 0
    checkpointing: Kept = "full"
    modulation_cache: bool = True
    batch: int = 1
    accumulation: int = 1
    rank: int = 16
    targets: Literal["default", "all"] = "default"
    optimizer: str = "adamw8bit"


@dataclass(frozen=True)
class Stage:
    """One stage of a run: what it holds at its highest, by part in bytes, and how long it takes.

    Attributes:
        name: "encode latents", "encode captions", "load", "train" or "sample".
        vram: parts on the card; "context" is CUDA's own, "lost" what the allocator cannot use.
        ram: parts in host memory.
        seconds: all ``times`` together that it comes: samples are drawn again and again.
    """

    name: str
    vram: Mapping[str, int]
    ram: Mapping[str, int]
    seconds: float
    times: int = 1

    @property
    def vram_gb(self) -> float:
        """The stage's peak on the card."""
        return sum(self.vram.values()) / GIB

    @property
    def ram_gb(self) -> float:
        """The stage's peak in host memory."""
        return sum(self.ram.values()) / GIB


@dataclass(frozen=True)
class Forecast:
    """What a run will hold and take.

    Attributes:
        stages: in their order.
        disk: bytes that the run leaves on disk, by part: "cache" parts on the cache's, the others on the runs'.
        step_s: a step of ``batch`` pictures of the mean size, ``accumulation`` times.
        slowest: which of "computing", "memory", "PCIe" and "host" bounds the step.
        steps: of the whole run.
    """

    stages: tuple[Stage, ...]
    disk: Mapping[str, int]
    step_s: float
    slowest: str
    steps: int
    lora_bytes: int

    @property
    def peak(self) -> Stage:
        """The stage that holds most on the card."""
        return max(self.stages, key=lambda stage: stage.vram_gb)

    @property
    def peak_vram_gb(self) -> float:
        """Most on the card over all stages."""
        return self.peak.vram_gb

    @property
    def peak_ram_gb(self) -> float:
        """Most in host memory over all stages."""
        return max(stage.ram_gb for stage in self.stages)

    @property
    def disk_gb(self) -> float:
        """All that is left on disk."""
        return sum(self.disk.values()) / GIB

    @property
    def total_s(self) -> float:
        """The whole run, from the empty cache to the last file."""
        return sum(stage.seconds for stage in self.stages)

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)


@dataclass(frozen=True)
class Correction:
    """What was measured on a machine, against what had been forecast for it.

    Attributes:
        vram_factor: on all that a stage allocates on the card.
        extra_bytes: more on the card, whatever is allocated: a larger context than assumed, say. May be below zero.
        step_factor: on the time of a step.
        basis: what was measured, in words; empty where nothing was.
    """

    vram_factor: float = 1.0
    extra_bytes: int = 0
    step_factor: float = 1.0
    basis: str = ""


NONE = Correction()
"""Nothing was measured."""


@dataclass(frozen=True)
class Wishes:
    """What the user wants of the solver.

    Attributes:
        aim: "balanced" takes the quickest, and of those within 5 % of it the best in quality (bf16 before int8 before
            nf4); "fastest" gives nothing away; "quality" takes the best that fits at all, and of that the quickest.
        leave_gb: memory of the card to leave to others (a desktop, say), beyond what they have now.
        done_in_s: the run should be over by then; 0 is no limit.
        nf4: whether nf4 may be chosen; it costs accuracy.
    """

    aim: Literal["balanced", "fastest", "quality"] = "balanced"
    leave_gb: float = 0.0
    done_in_s: float = 0.0
    nf4: bool = True


@dataclass(frozen=True)
class Alternative:
    """Another value of a setting, all else chosen anew around it, and what the run would then need."""

    value: str
    fits: bool
    vram_gb: float
    ram_gb: float
    step_s: float
    note: str = ""


@dataclass(frozen=True)
class Reasoned:
    """One setting with its reason.

    Attributes:
        key: dotted name in the configuration; empty for what is no setting (T5's way over the card, say).
        value: as the configuration has it.
        fixed: the user chose it.
    """

    key: str
    label: str
    value: Any
    reason: str
    alternatives: tuple[Alternative, ...] = ()
    fixed: bool = False


@dataclass(frozen=True)
class Fit:
    """What the solver chose.

    Attributes:
        verdict: "fits", "fits, slowly" or "does not fit".
        limit_gb: what the run may take of the card; ``margin_gb`` of it are kept free on purpose.
        warnings: in words.
        remedies: where it does not fit, what would have to change; the most helpful first.
    """

    settings: Settings
    forecast: Forecast
    verdict: Literal["fits", "fits, slowly", "does not fit"]
    limit_gb: float
    margin_gb: float
    reasons: tuple[Reasoned, ...]
    warnings: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the run fits at all."""
        return self.verdict != "does not fit"

    def changes(self) -> dict[str, Any]:
        """The chosen settings by their dotted names in the configuration."""
        return {reasoned.key: reasoned.value for reasoned in self.reasons if reasoned.key}

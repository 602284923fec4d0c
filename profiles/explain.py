"""Why each setting has its value, and what its other values would cost. No torch.

An alternative is solved, not guessed: the setting is fixed to the other value and the rest is chosen anew around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from engine.hardware.cards import Card
from profiles import choices as names
from profiles.choices import Way, blocks_of, computes, config_value
from profiles.chooser import Choice, Task, choose
from profiles.schema import GIB, Alternative, Reasoned, Settings

LABELS = {
    names.PRECISION: "Base precision",
    names.COMPUTE: "Products",
    names.SWAP: "Blocks streamed",
    names.CHECKPOINTING: "Blocks keep",
    names.MODULATION: "Modulation ahead",
    names.BATCH: "Batch",
    names.ACCUMULATION: "Accumulation",
    names.OPTIMIZER: "Optimizer",
    names.RANK: "Rank",
    names.TARGETS: "Targets",
}

ERRORS = {
    "int8": "int8 rounds a weight by 0.7 to 0.9 %",
    "fp8": "fp8 rounds a weight by 2.6 %",
    "nf4": "nf4 rounds a weight by 9 to 10 %",
}
"""As measured; ``docs/performance.md`` has the table."""

AHEAD = (
    "What 27 % of FLUX.1's weights compute depends on noise level and caption alone: it is computed ahead, exactly"
)
T5_LABEL, CACHE_LABEL = "T5", "Caches"


def explain(task: Task, choice: Choice, alternatives: bool = True) -> tuple[Reasoned, ...]:
    """Every setting with its reason; where asked for, with its alternatives. T5 and the caches' place come last."""
    told = []
    for key in names.KEYS:
        value = config_value(choice.chosen.settings, key, task.machine.card)
        others = _alternatives(task, choice, key) if alternatives else ()
        is_fixed = key in task.fixed
        reason = "You have fixed it." if is_fixed else _REASONS[key](task, choice)
        told.append(Reasoned(key, LABELS[key], value, reason, others, is_fixed))
    return (*told, _t5(task, choice), _caches(choice))


# Alternatives


def _alternatives(task: Task, choice: Choice, key: str) -> tuple[Alternative, ...]:
    return tuple(_alternative(task, choice, key, value) for value in _others(task, choice, key))


def _alternative(task: Task, choice: Choice, key: str, value: object) -> Alternative:
    other = choose(task.with_fixed({key: value}))
    forecast = other.chosen.forecast
    remark = _remark(key, value, choice.chosen.settings, other.chosen.settings)
    return Alternative(
        value=_shown(key, value, task.machine.card),
        fits=other.fits,
        vram_gb=forecast.peak_vram_gb,
        ram_gb=forecast.peak_ram_gb,
        step_s=forecast.step_s,
        note=other.lacks[0].text() if other.lacks else remark,
    )


def _others(task: Task, choice: Choice, key: str) -> tuple[object, ...]:
    """The values worth knowing about besides the chosen one."""
    settings, card = choice.chosen.settings, task.machine.card
    everything = names.choices_for(task.job, task.machine, task.wishes, {}, task.start)
    blocks = blocks_of(task.job)
    of: dict[str, tuple[object, ...]] = {
        names.PRECISION: tuple(names.config_precision(way.precision) for way in everything.ways),
        names.COMPUTE: ("auto", "wide") if "8bit" in computes(settings.precision, card) else (),
        names.SWAP: _near(settings.blocks_to_swap, blocks) if card is not None else (),
        names.CHECKPOINTING: everything.kept,
        names.MODULATION: (True, False),
        names.BATCH: tuple(number for number in (settings.batch // 2, settings.batch * 2) if number),
        names.OPTIMIZER: ("adamw", "adamw8bit", "adafactor") if task.machine.bitsandbytes else ("adamw", "adafactor"),
        names.RANK: tuple(number for number in (settings.rank // 2, settings.rank * 2) if 1 <= number <= 1024),
    }
    chosen = config_value(settings, key, card)
    return tuple(dict.fromkeys(value for value in of.get(key, ()) if value != chosen))


def _near(swap: int, blocks: int) -> tuple[int, ...]:
    """None, some fewer, some more, all."""
    return tuple(sorted({0, max(swap - 8, 0), min(swap + 8, blocks), blocks}))


def _remark(key: str, value: object, settings: Settings, other: Settings) -> str:
    """What else is to be known: the error of a precision, a step's pictures, a precision that goes with the value."""
    if key == names.PRECISION:
        return ERRORS.get(str(value), "nothing is rounded")
    if key == names.BATCH and isinstance(value, int) and value > settings.batch * settings.accumulation:
        return f"{value} pictures a step: half as many steps"
    return f"with {other.precision}" if other.precision != settings.precision else ""


def _shown(key: str, value: object, card: Card | None) -> str:
    if key == names.PRECISION and value == "auto":
        return f"auto ({names.unquantised(card)})"
    return str(value).lower() if isinstance(value, bool) else str(value)


# Reasons


def _precision(task: Task, choice: Choice) -> str:
    settings = choice.chosen.settings
    mine = choice.choices.way_of(settings)
    better = _quickest(choice, lambda way: way.quality < mine.quality and way.precision != settings.precision)
    quicker = _quickest(choice, lambda way: way.quality > mine.quality and way.precision != settings.precision)
    if settings.precision in ERRORS:
        text = f"{ERRORS[settings.precision]}, which a LoRA hardly notices."
        if settings.precision == "nf4":
            text = f"{ERRORS['nf4']}: the last resort."
        if not choice.fits:
            return text
        if better is None:
            return f"{text} What is more exact does not fit."
        way, factor = better
        return f"{text} {_called(way)} would take {_times(factor)} as long."
    text = "The weights stay as they are: nothing is rounded."
    if quicker is not None and choice.fits and quicker[1] < 1.0:
        return f"{text} {_called(quicker[0])} would save {100 * (1 - quicker[1]):.0f} % of the time."
    return text


def _quickest(choice: Choice, wanted: Callable[[Way], bool]) -> tuple[Way, float] | None:
    """The quickest way among those wanted, and its time as a multiple of the chosen one's."""
    found = [(way, each) for way, each in choice.found.best.items() if wanted(way)]
    if not found:
        return None
    way, candidate = min(found, key=lambda pair: pair[1].order)
    return way, candidate.forecast.total_s / choice.chosen.forecast.total_s


def _called(way: Way) -> str:
    return {"bf16": "Unquantised weights", "float32": "Unquantised weights"}.get(way.precision, way.precision)


def _times(factor: float) -> str:
    return f"{factor:.1f} times" if factor >= 1.05 else "just"


def _compute(task: Task, choice: Choice) -> str:
    settings, card = choice.chosen.settings, task.machine.card
    if settings.precision not in ("int8", "fp8"):
        return "Only an 8-bit base can be multiplied in 8 bit."
    if "8bit" not in computes(settings.precision, card):
        return "The card does not multiply this format quicker; weights are unpacked for each product."
    if settings.compute == "wide":
        return "Weights are unpacked for each product: exact, and here no slower by more than is worth it."
    return "In 8 bit where the run's first batch shows the error to be small; the rest is unpacked."


def _swap(task: Task, choice: Choice) -> str:
    settings = choice.chosen.settings
    if task.machine.card is None:
        return "There is no card to stream to."
    if not settings.blocks_to_swap:
        return "All blocks fit on the card." if choice.fits else "No blocks are streamed."
    resident = task.forecast(replace(settings, blocks_to_swap=0))
    longer = choice.chosen.forecast.step_s / resident.step_s - 1
    hidden = longer < 0.02
    cost = "their transfers hide in computing" if hidden else f"a step takes {100 * longer:.0f} % longer for it"
    blocks = f"{settings.blocks_to_swap} of {blocks_of(task.job)} blocks"
    over = resident.peak_vram_gb
    return f"{blocks} wait in host memory; {cost}. All on the card, the run would want {over:.1f} GB of it."


def _kept(task: Task, choice: Choice) -> str:
    settings, forecast = choice.chosen.settings, choice.chosen.forecast
    text = {
        "none": "Nothing is computed twice",
        "attention": "Attention, the dearest part, is not computed twice",
        "full": "A block keeps its input alone and computes the rest again",
        "offload": "Blocks' inputs wait in host memory and leave the card to the weights",
    }[settings.checkpointing]
    quickest = replace(settings, checkpointing="none")
    if settings.checkpointing == "none" or "none" not in choice.choices.kept:
        return f"{text}."
    least = task.forecast(quickest)
    gain = 1 - least.step_s / forecast.step_s
    more = least.peak_vram_gb - forecast.peak_vram_gb
    if task.machine.card is None:
        more = least.peak_ram_gb - forecast.peak_ram_gb
    return f"{text}: keeping all would save {100 * max(gain, 0.0):.0f} % of a step and take {more:.1f} GB more."


def _modulation(task: Task, choice: Choice) -> str:
    settings = choice.chosen.settings
    if not settings.modulation_cache:
        return "The layers stay with the blocks: there is room for them, and no table is needed."
    other = task.forecast(replace(settings, modulation_cache=False))
    saved = other.stage("train").vram_gb - choice.chosen.forecast.stage("train").vram_gb
    return f"{AHEAD}." + (f" It keeps {saved:.1f} GB off the card." if saved > 0.05 else "")


def _batch(task: Task, choice: Choice) -> str:
    settings = choice.chosen.settings
    whole = settings.batch * settings.accumulation
    if settings.accumulation == 1:
        return "As asked for." if whole > 1 else "One picture a step, as asked for; guides to FLUX.1 advise it."
    return (
        f"{whole} pictures a step as asked for, {settings.batch} at a time: more at once would not be quicker here."
    )


def _accumulation(task: Task, choice: Choice) -> str:
    settings = choice.chosen.settings
    if settings.accumulation == 1:
        return "A step is one batch."
    whole = settings.batch * settings.accumulation
    return f"{settings.accumulation} batches make a step: as steady as a batch of {whole}."


def _optimizer(task: Task, choice: Choice) -> str:
    name = choice.chosen.settings.optimizer
    if name == "adamw8bit":
        return "AdamW whose states take a quarter of the memory; what most guides to FLUX.1 use."
    if name == "adafactor" and task.start.optimizer in names.ADAM:
        return "bitsandbytes is not installed, so there is no 8-bit AdamW; Adafactor's states are small too."
    if name == "adamw" and task.machine.card is None:
        return "On a processor torch's own AdamW is quickest."
    return "As asked for."


def _rank(task: Task, choice: Choice) -> str:
    megabytes = choice.chosen.forecast.lora_bytes / 1e6
    return f"As asked for: a LoRA file of {megabytes:.{0 if megabytes >= 10 else 1}f} MB."


def _targets(task: Task, choice: Choice) -> str:
    return "Attention and MLP of every block." if choice.chosen.settings.targets == "default" else "As asked for."


_REASONS: Mapping[str, Callable[[Task, Choice], str]] = {
    names.PRECISION: _precision,
    names.COMPUTE: _compute,
    names.SWAP: _swap,
    names.CHECKPOINTING: _kept,
    names.MODULATION: _modulation,
    names.BATCH: _batch,
    names.ACCUMULATION: _accumulation,
    names.OPTIMIZER: _optimizer,
    names.RANK: _rank,
    names.TARGETS: _targets,
}


def _t5(task: Task, choice: Choice) -> Reasoned:
    """T5 needs no choice: what decides about it is the file, which memory does not."""
    stage = choice.chosen.forecast.stage("encode captions")
    where = f"{stage.vram_gb:.1f} GB of the card" if task.machine.card is not None else f"{stage.ram_gb:.1f} GB"
    reason = f"It passes through layer by layer before training and takes {where}, whatever its file's precision:"
    reason += f" take the 16-bit file; fp8 saves disk only. This one has {_size(task.job.model.t5_bytes)}."
    return Reasoned("", T5_LABEL, "layer by layer", reason)


def _caches(choice: Choice) -> Reasoned:
    """Where the caches go, by what the disks have free."""
    forecast = choice.chosen.forecast
    if choice.limits.cache_beside_runs(forecast):
        reason = "Their usual disk has no room for them, the runs' has: set cache_dir to a folder there."
        return Reasoned("", CACHE_LABEL, "with the runs", reason)
    size = _size(sum(size for part, size in forecast.disk.items() if part.startswith("cache")))
    return Reasoned("", CACHE_LABEL, "usual place", f"{size} go there; later runs on these pictures use them.")


def _size(size: int) -> str:
    """A file's or folder's size in words: small ones in MB (1e6 bytes), others in GB as everywhere here."""
    megabytes = size / 1e6
    if size >= 0.1 * GIB:
        return f"{size / GIB:.1f} GB"
    return f"{megabytes:.{0 if megabytes >= 10 else 1}f} MB"

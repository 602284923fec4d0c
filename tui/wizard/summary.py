"""What the wizard says of a plan: time, disk and money in words, the review's lines, what else a value could be."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime, timedelta

from engine.config import RunConfig
from engine.files import next_run_folder
from engine.text import safe_text
from profiles.schema import Fit, Forecast, Machine, Reasoned
from tui.units import short_time, size
from tui.wizard.answers import wishes_of
from tui.wizard.memory import stage_name
from tui.wizard.planner import Place

Line = tuple[str, str]

_STEPS = ((86_400, "day"), (3_600, "h"), (60, "min"))


def about(seconds: float) -> str:
    """A span as one would say it: ``40 s``, ``12 min``, ``2 h 15 min``, ``3 days 4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    if days:
        return f"{days} day{'s' if days > 1 else ''}" + (f" {hours} h" if hours else "")
    if hours:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    return f"{minutes} min"


def step_words(seconds: float) -> str:
    """The time of a step: ``1.42 s a step``."""
    return f"{short_time(seconds) if seconds < 100 else about(seconds)} a step"


def verdict_words(fit: Fit, place: Place) -> str:
    """Whether it fits, in a sentence with the figures."""
    forecast, machine = fit.forecast, place.machine
    if machine.card is None:
        held = f"{forecast.peak_ram_gb:.1f} of {machine.free_ram_gb:.1f} GB of memory"
        if not fit.fits:
            return f"Does not fit without a card: wants {held} that is free"
        return f"{fit.verdict.capitalize()} without a card: at most {held}"
    peak, stage = forecast.peak_vram_gb, stage_name(forecast.peak.name)
    if not fit.fits and peak > fit.limit_gb:
        return f"Does not fit on {place.name}: wants {peak:.1f} GB ({stage}) where it may take {fit.limit_gb:.1f}"
    spare = f"; {fit.margin_gb:.1f} GB more stay free on purpose" if fit.margin_gb else ""
    return f"{fit.verdict.capitalize()} on {place.name}: at most {peak:.1f} of {fit.limit_gb:.1f} GB ({stage}){spare}"


def headline(fit: Fit) -> str:
    """Everything that counts in one line: whether it fits, time, disk."""
    forecast = fit.forecast
    words = [fit.verdict, step_words(forecast.step_s), about(forecast.total_s),
             f"{size(sum(forecast.disk.values()))} of disk"]  # fmt: skip
    return ", ".join(words)


def figures(fit: Fit, machine: Machine, price: float, now: datetime) -> list[Line]:
    """Time, disk and money beside the memory bars."""
    forecast = fit.forecast
    ends = now + timedelta(seconds=forecast.total_s)
    when = ends.strftime("%H:%M" if ends.date() == now.date() else "%a %H:%M")
    bound = {"computing": "computing", "memory": "the card's memory", "PCIe": "PCIe", "host": "the processor"}
    lines = [
        ("verdict", fit.verdict),
        ("step", f"{step_words(forecast.step_s)}, bound by {bound.get(forecast.slowest, forecast.slowest)}"),
        ("whole run", f"{about(forecast.total_s)} for {forecast.steps:,} steps, done {when} if begun now"),
        (
            "stages",
            ", ".join(
                f"{stage_name(stage.name)} {about(stage.seconds)}" for stage in forecast.stages if stage.seconds >= 1
            ),
        ),
        ("disk", disk_words(forecast, machine)),
    ]
    if price:
        lines.append(("cost", f"{forecast.total_s / 3600 * price:.2f} at {price:g} an hour"))
    return lines


def disk_words(forecast: Forecast, machine: Machine) -> str:
    """What is left on disk, and whether there is room."""
    cache = sum(count for part, count in forecast.disk.items() if "cache" in part)
    runs = sum(forecast.disk.values()) - cache
    free = f"{machine.cache_disk_gb:.0f} GB free"
    if not machine.one_disk:
        free = f"{machine.cache_disk_gb:.0f} and {machine.runs_disk_gb:.0f} GB free"
    return f"{size(cache)} of caches, {size(runs)} of results; {free}"


def review(config: RunConfig, fit: Fit, place: Place, steps: str, price: float) -> list[Line]:
    """What would be trained, and what comes of it."""
    lora, training = config.lora, config.training
    alpha = lora.rank if lora.alpha is None else lora.alpha
    chosen = ", ".join(f"{reasoned.label.lower()} {value_words(reasoned.key, reasoned.value)}" for reasoned in
                       fit.reasons if reasoned.key and reasoned.key not in _TOLD)  # fmt: skip
    cost = fit.forecast.total_s / 3600 * price
    lines = [
        ("model", f"{config.model.transformer.name} on {place.name}"),
        ("steps", steps),
        ("LoRA", f"rank {lora.rank}, alpha {alpha:g}: files of {size(fit.forecast.lora_bytes)}"),
        ("rate", f"{config.optimizer.learning_rate:g} {config.schedule.name}, {config.optimizer.name}"),
        ("batch", f"{training.batch_size} x {training.accumulation}, {config.dataset.resolution} px"),
        ("fit", chosen),
        ("time", f"{about(fit.forecast.total_s)}, {step_words(fit.forecast.step_s)}"),
        ("disk", disk_words(fit.forecast, place.machine)),
        ("goes to", str(next_run_folder(config.runs_dir, config.name))),
    ]
    return lines + ([("cost", f"{cost:.2f} at {price:g} an hour")] if price else [])


_TOLD = frozenset({"lora.rank", "training.batch_size", "training.accumulation", "optimizer.name"})
"""Settings that other lines of the review have."""

_VALUES = {
    "memory.precision": {"auto": "unpacked"},
    "memory.compute": {"auto": "in 8 bit where that is exact enough", "wide": "wide, of unpacked weights"},
    "training.gradient_checkpointing": {
        "none": "everything",
        "attention": "attention's outputs",
        "full": "their inputs",
        "offload": "their inputs, in host memory",
    },
}


def value_words(key: str, value: object) -> str:
    """A value as people call it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _VALUES.get(key, {}).get(str(value), str(value))


def plain(value: str) -> str:
    """An alternative's value without what is said of it in brackets."""
    return value.partition(" (")[0]


def instead(reasoned: Reasoned) -> list[tuple[str, bool, str]]:
    """The other values of a setting: as the configuration has it, whether it fits, what the run would need then."""
    found = []
    for other in reasoned.alternatives:
        words = f"{other.vram_gb:5.1f} GB {other.ram_gb:4.0f} GB {short_time(other.step_s):>8}"
        note = other.note.removeprefix(f"{other.value} ")
        remark = note if other.fits else f"does not fit{f': {note}' if note else ''}"
        found.append((plain(other.value), other.fits, f"{words}  {remark}".rstrip()))
    return found


def commands(file: str, answers: Mapping[str, str], fixed: Mapping[str, object], now: datetime) -> tuple[str, ...]:
    """The same from a shell: how it would be planned and trained there."""
    name = shlex.quote(safe_text(file, 100))
    wishes = f" --aim {answers['aim']}" if answers["aim"] != "balanced" else ""
    wishes += " --no-nf4" if answers["nf4"] == "no" else ""
    seconds = wishes_of(answers, now).done_in_s
    done = (now + timedelta(seconds=seconds)).strftime("%H:%M") if seconds else ""
    for option, answer in (("leave", answers["leave"]), ("done-by", done), ("price", answers["price"])):
        wishes += f" --{option} {shlex.quote(safe_text(answer, 20))}" if answer.strip() else ""
    for key, value in fixed.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        wishes += f" --set {shlex.quote(safe_text(f'{key}={text}', 80))}"
    return f"kiln plan {name}{wishes}", f"kiln train {name} --ui"

"""A plan in words for a terminal of any width: what fits, what is chosen and why, how long, what to mind.

Pure: values in, lines out, nothing in them that a terminal would obey. At 80 columns nothing is cut.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from engine.text import safe_text
from profiles.schema import GIB, Alternative, Fit, Machine, Reasoned, Stage
from tui.plan_report import Planned
from tui.units import duration, short_time, size

NARROWEST, WIDEST = 72, 110
"""Text is wrapped within these: longer lines are hard to read."""

_BAR = 30
_LABEL = 16


def plan_text(planned: Planned, width: int = 80, unicode: bool = True) -> str:
    """The whole plan.

    Args:
        width: of the terminal.
        unicode: whether bars may be drawn with block characters.
    """
    width, on_card = max(NARROWEST, min(width, WIDEST)), planned.machine.card is not None
    lines = [*_head(planned, width), "", *_verdict(planned, width), "", *_bars(planned, unicode), ""]
    lines += [*_stages(planned.fit.forecast.stages), "", *_settings(planned.fit.reasons, width, on_card)]
    for title, told in _notes(planned):
        lines += ["", title]
        for text in told:
            lines += _wrapped(text, width, "  - ", "    ")
    return "\n".join(line.rstrip() for line in lines)


def _head(planned: Planned, width: int) -> Iterator[str]:
    yield from _wrapped(planned.title, width, "", "  ")
    yield from _wrapped(machine_in_words(planned.machine), width, "", "  ")


def machine_in_words(machine: Machine) -> str:
    """Card and memory on one line."""
    memory = f"{machine.free_ram_gb:.0f} of {machine.ram_gb:.0f} GB host memory free"
    if machine.card is None:
        return f"no GPU, {machine.cores} cores, {memory}"
    card = f"{safe_text(machine.card.label, 60)}, {machine.free_vram_gb:.1f} of {machine.card.vram_gb:.1f} GB free"
    return f"{card}; {memory}"


def _verdict(planned: Planned, width: int) -> Iterator[str]:
    fit, forecast = planned.fit, planned.fit.forecast
    if not fit.fits:
        yield from _wrapped("DOES NOT FIT. What comes nearest to it is shown.", width, "", "")
        return
    words = f"{fit.verdict.upper()}: {short_time(forecast.step_s)} a step, {forecast.steps:,} steps, "
    words += f"{duration(forecast.total_s)} in all; what bounds a step is {forecast.slowest}."
    words += f" A LoRA file takes {size(forecast.lora_bytes)}."
    if planned.cost is not None:
        words += f" It costs {planned.cost:.2f} at {planned.price:g} an hour."
    yield from _wrapped(words, width, "", "")


def _bars(planned: Planned, unicode: bool) -> Iterator[str]:
    fit, forecast, machine = planned.fit, planned.fit.forecast, planned.machine
    if machine.card is not None:
        yield _bar("VRAM", forecast.peak_vram_gb, fit.limit_gb, unicode) + f"  {forecast.peak.name}"
        yield f"{'':{_LABEL - 6}}{fit.margin_gb:.1f} GB of it are kept free: a forecast may be off by so much"
    most = max(forecast.stages, key=lambda stage: stage.ram_gb)
    yield _bar("RAM", forecast.peak_ram_gb, machine.free_ram_gb, unicode) + f"  {most.name}"
    yield _bar("disk", forecast.disk_gb, min(machine.cache_disk_gb, machine.runs_disk_gb), unicode)


def _bar(label: str, taken: float, there: float, unicode: bool) -> str:
    share = taken / there if there > 0 else 2.0
    full, empty = ("█", "░") if unicode else ("#", ".")
    cells = min(round(share * _BAR), _BAR)
    over = "!" if taken > there else " "
    return f"{label:{_LABEL - 6}}{full * cells}{empty * (_BAR - cells)}{over} {taken:5.1f} of {there:5.1f} GB"


def _stages(stages: tuple[Stage, ...]) -> Iterator[str]:
    yield f"{'STAGE':{_LABEL}}  {'VRAM':>8}  {'RAM':>8}  {'TIME':>8}  MOST OF IT"
    for stage in stages:
        parts = stage.vram or stage.ram
        largest = sorted(parts.items(), key=lambda part: -part[1])[:2]
        words = ", ".join(f"{name} {held / GIB:.1f}" for name, held in largest)
        card = f"{stage.vram_gb:.1f} GB" if stage.vram else "-"
        row = f"{stage.name:{_LABEL}}  {card:>8}  {stage.ram_gb:>5.1f} GB  {duration(stage.seconds):>8}  {words}"
        yield row


def _settings(reasons: tuple[Reasoned, ...], width: int, on_card: bool) -> Iterator[str]:
    yield "SETTINGS"
    for reasoned in reasons:
        value = _value(reasoned.value) + (" (yours)" if reasoned.fixed else "")
        name = reasoned.key or reasoned.label
        yield f"  {name} = {value}" if reasoned.key else f"  {name}: {value}"
        yield from _wrapped(reasoned.reason, width, "      ", "      ")
        if reasoned.alternatives:
            words = "or " + "; ".join(_alternative(each, on_card) for each in reasoned.alternatives)
            yield from _wrapped(words, width, "      ", "         ")


def _alternative(alternative: Alternative, on_card: bool) -> str:
    if not alternative.fits:
        return f"{alternative.value}: does not fit"
    note = f" {alternative.note}" if alternative.note.startswith("with ") else ""
    gb = alternative.vram_gb if on_card else alternative.ram_gb
    return f"{alternative.value}: {short_time(alternative.step_s)}, {gb:.1f} GB{note}"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _notes(planned: Planned) -> Iterator[tuple[str, list[str]]]:
    fit: Fit = planned.fit
    if fit.remedies:
        yield "WHAT WOULD HELP", list(fit.remedies)
    if fit.warnings:
        yield "MIND", list(fit.warnings)
    if planned.advice:
        yield "THE RECIPE SAYS", [f"{each.key} ({each.level}): {each.text}" for each in planned.advice]
    if planned.machine.remarks:
        yield "THE MACHINE", list(planned.machine.remarks)


def _wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    safe = safe_text(text, 2000)
    return textwrap.wrap(safe, width, initial_indent=first, subsequent_indent=rest, break_long_words=True)

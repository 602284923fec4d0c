"""Says of a choice whether it trains well, and what the user should know of it. No torch.

"Fits" and "trains well" are two things. A run that fits is called slow where

- memory makes a step at least half as long again as it would be on the same card with memory to spare, or
- a picture takes more than :data:`SLOW_PICTURE_S`, so that the 2,000 of a usual run take over two and a half hours.
"""

from __future__ import annotations

from typing import Literal

from profiles import choices as names
from profiles.chooser import Choice, Task, choose
from profiles.limits import PACKED_COPY
from profiles.remedies import RESOLUTIONS, at_resolution, resolution_of
from profiles.schema import GIB, Forecast, Settings

SLOW_FACTOR = 1.5
SLOW_PICTURE_S = 4.5
USUAL_PICTURES = 2000
NARROW_LINK_GB_S = 5.0
"""A link below this is a slot of few lanes: what streams does not hide behind computing."""

Verdict = Literal["fits", "fits, slowly", "does not fit"]


def verdict(choice: Choice) -> Verdict:
    """What the choice amounts to."""
    if not choice.fits:
        return "does not fit"
    return "fits, slowly" if slowness(choice) else "fits"


def slowness(choice: Choice) -> str:
    """Why the run is called slow; empty where it is not."""
    forecast, settings = choice.chosen.forecast, choice.chosen.settings
    each = _picture_s(forecast, settings)
    ideal = _picture_s(choice.ideal.forecast, choice.ideal.settings)
    if each > SLOW_FACTOR * ideal:
        return f"with memory to spare the same card would take {ideal:.1f} s for a picture, not {each:.1f} s"
    if each > SLOW_PICTURE_S:
        hours = each * USUAL_PICTURES / 3600
        return f"a picture takes {each:.1f} s, so the {USUAL_PICTURES:,} of a usual run take {hours:.1f} hours"
    return ""


def _picture_s(forecast: Forecast, settings: Settings) -> float:
    return forecast.step_s / (settings.batch * settings.accumulation)


def warnings(task: Task, choice: Choice) -> tuple[str, ...]:
    """What the user should know, the weightiest first."""
    told = [f"{lack.text()}." for lack in choice.lacks]
    told += [*_of_machine(task, choice), *_of_model(task)]
    if choice.fits and (why := slowness(choice)):
        told.append(f"It fits, slowly: {why}.")
    told += [*_of_time(task, choice), *_of_settings(task, choice), *_of_disk(choice)]
    return tuple(told)


def _of_machine(task: Task, choice: Choice) -> list[str]:
    card, settings = task.machine.card, choice.chosen.settings
    if card is None:
        step = _picture_s(choice.chosen.forecast, settings)
        text = f"No GPU takes part: the processor trains, {_span(step)} for each picture."
        sensible = " That suits the pocket model." if step < 1 else " FLUX.1 wants a card; the pocket model does not."
        return [text + sensible]
    told = []
    if card.capability < (8, 0):
        told.append(f"{card.name} has no bfloat16 units: the run computes in float32, which is slower.")
    if settings.blocks_to_swap and card.link_gb_s < NARROW_LINK_GB_S:
        told.append(
            f"Weights reach the card at {card.link_gb_s:.1f} GB/s only: see whether its slot has all its lanes."
        )
    return told


def _span(seconds: float) -> str:
    return (
        f"{seconds * 1000:.0f} ms"
        if seconds < 1
        else f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
    )


def _of_model(task: Task) -> list[str]:
    if not task.job.model.variant.startswith("schnell"):
        return []
    return [
        "FLUX.1-schnell is distilled to draw in four steps, and training undoes that: train on dev, whose LoRAs work "
        "on schnell too."
    ]


def _of_time(task: Task, choice: Choice) -> list[str]:
    wishes, forecast = task.wishes, choice.chosen.forecast
    if not choice.fits or not wishes.done_in_s or forecast.total_s <= wishes.done_in_s:
        return []
    train = forecast.stage("train").seconds
    left = wishes.done_in_s - (forecast.total_s - train)
    steps = int(forecast.steps * left / train) if train else 0
    text = f"It will not be done in time: {_hours(forecast.total_s)} against {_hours(wishes.done_in_s)}."
    if steps > 0:
        text += f" About {steps:,} of {forecast.steps:,} steps would be; a LoRA is saved on the way."
    else:
        text += " Not even the caches would be ready."
    return [text, *_in_time(task)]


def _in_time(task: Task) -> list[str]:
    """The largest smaller resolution that is done in time, if one is."""
    side = resolution_of(task.job)
    for smaller in (each for each in RESOLUTIONS if each < side):
        found = choose(task.elsewhere(at_resolution(task.job, smaller)))
        if found.fits and found.chosen.forecast.total_s <= task.wishes.done_in_s:
            return [f"At {smaller} px it would be done in {_hours(found.chosen.forecast.total_s)}."]
    return []


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"


def _of_disk(choice: Choice) -> list[str]:
    if not choice.fits or choice.limits.keeps_packed_copy(choice.chosen.forecast):
        return []
    size = choice.chosen.forecast.disk.get(PACKED_COPY, 0) / GIB
    return [f"There is no room for a packed copy of the base ({size:.1f} GB): each start packs it anew."]


def _of_settings(task: Task, choice: Choice) -> list[str]:
    settings = choice.chosen.settings
    told = []
    if settings.precision == "nf4" and choice.fits:
        told.append("nf4 rounds the base coarsely: look at samples early, and leave nf4 once memory allows.")
    if settings.batch * settings.accumulation > 8:
        whole = settings.batch * settings.accumulation
        told.append(f"{whole} pictures a step are many for a LoRA: few steps are left to learn in.")
    return told + (_of_fixed(task, choice) if choice.fits else [])


def _of_fixed(task: Task, choice: Choice) -> list[str]:
    """Where something that the user has fixed costs a third of the time or more."""
    told = []
    for key in task.fixed:
        if key in (names.BATCH, names.ACCUMULATION, names.RANK, names.TARGETS):
            continue  # these change what is learned, not only how quickly
        free = choose(task.without_fixed(key))
        gain = 1 - free.chosen.forecast.total_s / choice.chosen.forecast.total_s
        if free.fits and gain > 1 / 3:
            better = names.config_value(free.chosen.settings, key, task.machine.card)
            told.append(f"{key} is fixed; with {_said(better)} the run would save {100 * gain:.0f} % of its time.")
    return told


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

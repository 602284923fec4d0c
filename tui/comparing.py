"""Runs compared: which settings differ, how each learned, and which did best where that can be said. Pure.

Comes in: each run's configuration and view. Held-out losses are ranked only between runs that were measured on the
same pictures with the same noise. Events do not name the pictures; but a base model asked the same questions gives
the same losses, so two runs whose measurements of the base agree, picture by picture, were asked the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from engine.config import RunConfig
from engine.config_names import flat
from engine.events import Measured
from engine.text import safe_text
from tui.epochs import advice_of
from tui.report import Points, decimated
from tui.view import RunView

SAME = 0.02
"""Part by which the base's loss on a picture may differ and the question still count as the same: another precision
of the base moves it by less, another noise or picture by more."""

CURVE_POINTS = 240
WEAKER = 1
"""Index of the smoothing taken: the same for all runs, to compare them, and weak enough for short ones."""

NOT_SETTINGS = frozenset({"name", "runs_dir", "version"})
"""What differs between any two runs and changes nothing."""

NOWHERE: Points = ((), ())


@dataclass(frozen=True)
class Compared:
    """One run's side of a comparison.

    Attributes:
        settings: by dotted name; what cannot be read says so under "settings".
        step, steps, elapsed_s: steps made, of how many, in what time.
        verdict: the advisor's, of the newest measurement; empty where nothing was measured.
        first, last, best: the advised range of epochs and the earliest good one; 0 while there is none.
        held_out: the loss on held-out pictures at ``best``, or the lowest where none is advised; None without any.
        drift: at the same epoch.
        step_s: typical time of a step.
        peak_gb: most memory on the card; None where that is not known.
        lora_bytes: of the newest file; 0 while there is none.
        by_epoch, by_step: the held-out loss over epochs and over steps; ``losses`` the smoothed training loss.
        base: what was measured of the base model, held-out pictures included.
        group: runs of one number were measured alike; -1 for one that was not measured.
        rank: within its group, from 1; 0 where there is nothing to rank it against.
    """

    name: str
    folder: Path
    state: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    elapsed_s: float = 0.0
    verdict: str = ""
    first: int = 0
    last: int = 0
    best: int = 0
    held_out: float | None = None
    drift: float | None = None
    step_s: float | None = None
    peak_gb: float | None = None
    lora_bytes: int = 0
    by_epoch: Points = NOWHERE
    by_step: Points = NOWHERE
    losses: Points = NOWHERE
    base: Measured | None = None
    group: int = -1
    rank: int = 0


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: group by group, the best first; those that cannot be ranked last.
        differing: settings that are not the same in all runs: the value in each, in the order of ``runs``.
        apart: why some runs are not ranked with the others, in words.
    """

    runs: tuple[Compared, ...]
    differing: Mapping[str, tuple[str, ...]]
    apart: tuple[str, ...]

    @property
    def winners(self) -> tuple[Compared, ...]:
        """The best of each group of runs that can be ranked."""
        return tuple(run for run in self.runs if run.rank == 1)


def compared(folder: Path, state: str, config: RunConfig | None, view: RunView, problem: str = "") -> Compared:
    """One run's side; ``problem`` says why there is no configuration."""
    held = [one for one in view.measured if one.held_out and math.isfinite(fmean(one.held_out))]
    advice = advice_of(view, config.stop if config is not None else None) if held else None
    losses = [fmean(one.held_out) for one in held]
    at = next((one for one in reversed(held) if advice and advice.best and one.epoch == advice.best), None)
    if at is None and held:
        at = held[min(range(len(held)), key=lambda number: losses[number])]
    steps, epochs = [float(one.step) for one in held], [float(one.epoch) for one in held]
    memory = [view.memory.vram_peak_gb if view.memory else 0.0, view.memory_held.peak_gb if view.memory_held else 0.0]
    return Compared(
        name=folder.name,
        folder=folder,
        state=state,
        settings=flat(config.model_dump(mode="json")) if config is not None else {"settings": problem},
        step=view.step,
        steps=view.steps,
        elapsed_s=view.done.elapsed_s if view.done is not None else view.active_s,
        verdict=advice.verdict if advice else "",
        first=advice.first if advice else 0,
        last=advice.last if advice else 0,
        best=advice.best if advice else 0,
        held_out=fmean(at.held_out) if at else None,
        drift=at.drift if at else None,
        step_s=view.step_s,
        peak_gb=max(memory) or None,
        lora_bytes=view.checkpoints[-1].size_bytes if view.checkpoints else 0,
        by_epoch=(epochs, losses),
        by_step=(steps, losses),
        losses=loss_points(view),
        base=held[0] if held and held[0].step == 0 else None,
    )


def compare(runs: Sequence[Compared]) -> Comparison:
    """Group and rank ``runs``, and find the settings in which they differ."""
    groups: list[list[Compared]] = []
    for run in runs:
        if run.held_out is None:
            continue
        alike = next((group for group in groups if not why_not(group[0], run)), None)
        if alike is None:
            groups.append([run])
        else:
            alike.append(run)
    groups.sort(key=len, reverse=True)
    ordered = [one for number, group in enumerate(groups) for one in _ranked(group, number)]
    ordered += [run for run in runs if run.held_out is None]
    return Comparison(tuple(ordered), _differing(ordered), tuple(_apart(ordered)))


def why_not(one: Compared, two: Compared) -> str:
    """Why the held-out losses of two runs cannot be compared; empty where they can."""
    for run in (one, two):
        if run.held_out is None:
            return f"{shown(run.name)} was not measured on held-out pictures"
        if run.base is None:
            return f"{shown(run.name)} has no measurement of the base model to tell what it was measured on"
    first, second = one.base, two.base
    assert first is not None and second is not None
    for what, count in (("pictures", "held_out_pictures"), ("noise seeds", "held_out")):
        counts = [len(getattr(side, count)) for side in (first, second)]
        if counts[0] != counts[1]:
            return f"measured on {counts[0]} held-out {what} and on {counts[1]}"
    for name, what in (("seed", "the noise is another"), ("validation.sigmas", "other noise levels")):
        values = [str(side.settings.get(name)) for side in (one, two)]
        if values[0] != values[1]:
            return f"{what} ({name} {shown(values[0])} and {shown(values[1])})"
    pairs = zip(first.held_out_pictures or first.held_out, second.held_out_pictures or second.held_out, strict=True)
    if any(not math.isclose(a, b, rel_tol=SAME, abs_tol=1e-6) for a, b in pairs):
        losses = fmean(first.held_out), fmean(second.held_out)
        return f"other held-out pictures, or another base ({losses[0]:.4f} and {losses[1]:.4f} before the first step)"
    return ""


def loss_points(view: RunView, points: int = CURVE_POINTS) -> Points:
    """The smoothed training loss over the steps, as few points."""
    course = view.courses.smoothed[WEAKER].course
    pairs = [pair for pair in zip(view.courses.step, course, strict=True) if math.isfinite(pair[1])]
    places, losses = decimated([loss for _, loss in pairs], points) if pairs else ([], [])
    return tuple(float(pairs[int(place) - 1][0]) for place in places), tuple(losses)


def shown(value: object, limit: int = 60) -> str:
    """A name or a value as it is shown: a number short, an unset one a dash, other text safe."""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else safe_text(value, limit)


def _ranked(group: list[Compared], number: int) -> Iterator[Compared]:
    group = sorted(group, key=lambda run: run.held_out if run.held_out is not None else math.inf)
    for rank, run in enumerate(group, start=1):
        yield replace(run, group=number, rank=rank if len(group) > 1 else 0)


def _differing(runs: Sequence[Compared]) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys(name for run in runs for name in run.settings)
    found = {name: tuple(shown(run.settings.get(name), 200) for run in runs) for name in names}
    return {
        safe_text(name, 120): values
        for name, values in found.items()
        if name not in NOT_SETTINGS and len(set(values)) > 1
    }


def _apart(runs: Sequence[Compared]) -> Iterator[str]:
    """A line for each group but the first, and for runs that were not measured."""
    told = {0}
    for run in runs:
        if run.group not in told:
            told.add(run.group)
            names = ", ".join(shown(one.name) for one in runs if one.group == run.group)
            if run.group < 0:
                yield f"Not ranked, nothing was measured on held-out pictures: {names}"
            else:
                yield f"Not to be compared with {shown(runs[0].name)}: {names}: {why_not(runs[0], run)}"

"""A pilot run: a few minutes of the real thing, in a folder of its own, before the real one is begun.

The same configuration and caches, fewer steps. It shows that the memory holds, how long a step really takes, and what
the sample pictures look like at the start; its LoRA is not worth keeping.
"""

from __future__ import annotations

from pathlib import Path

from engine.config import RunConfig
from profiles.schema import Fit
from tui.view import RunView

MINUTES = 3.0
DRAWN = 2
"""Times that sample pictures are drawn: at its start and at its end."""

LEAST, MOST = 10, 300
"""Steps: fewer than ten tell nothing of the time of one."""

ENDING = "-pilot"
FOLDER = "pilots"


def steps_for(fit: Fit, minutes: float = MINUTES) -> int:
    """As many steps as take a few minutes by the forecast, and no more than the run has."""
    step_s = fit.forecast.step_s
    fitting = int(minutes * 60 / step_s) if step_s > 0 else MOST
    return max(1, min(max(LEAST, min(MOST, fitting)), fit.forecast.steps or MOST))


def seconds_for(fit: Fit, steps: int) -> float:
    """How long a pilot of so many steps takes in all: what the run does once, some steps, two rounds of samples."""
    total = steps * fit.forecast.step_s
    for stage in fit.forecast.stages:
        if stage.name != "train":
            total += stage.seconds * min(DRAWN, stage.times) / stage.times
    return total


def pilot_of(config: RunConfig, steps: int) -> RunConfig:
    """The pilot of a configuration: no more than ``steps`` steps, sample pictures at its start and its end.

    The name and the folder tell it apart from real runs; its one saved file is the last.
    """
    table = config.model_dump()
    table["name"] = f"{config.name[: 80 - len(ENDING)]}{ENDING}"
    table["runs_dir"] = config.runs_dir / FOLDER
    training = table["training"]
    training["steps"] = min(steps, training["steps"]) if training["steps"] else steps
    table["saving"] |= {"every_epochs": 0, "every_steps": 0}
    table["sampling"] |= {"every_epochs": 0, "every_steps": steps, "at_start": True}
    table["validation"] |= {"every_epochs": 0, "every_steps": 0}
    return RunConfig.model_validate(table)


def is_pilot(folder: Path) -> bool:
    """Whether a run's folder is a pilot's."""
    return folder.parent.name == FOLDER and ENDING in folder.name


def forecast_words(fit: Fit) -> str:
    """What was forecast, to be kept until the pilot is over."""
    peak = f", peak {fit.forecast.peak_vram_gb:.1f} GB" if fit.forecast.peak_vram_gb else ""
    return f"{fit.forecast.step_s:.2f} s{peak}"


def told(name: str, view: RunView, forecast: str) -> str:
    """What a pilot showed, against what was forecast."""
    if not view.step or view.step_s is None:
        return f"{name}: {view.state}, no step was made"
    words = f"{name}: {view.state}, {view.step} steps at {view.step_s:.2f} s"
    peak = view.memory.vram_peak_gb if view.memory is not None else 0.0
    words += f", peak {peak:.1f} GB" if peak else ""
    return words + (f" (forecast {forecast})" if forecast else "")

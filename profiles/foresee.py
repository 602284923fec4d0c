"""The forecast for what a live run does right now, and what the run then measured against it. No torch.

A probe, or the steps of one size, are compared with a forecast for a job of that size alone: like with like, whatever
mixture of sizes the run has. Measurements are held against the uncorrected forecast; what is shown is the corrected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from engine.config import RunConfig
from engine.config_memory import Rung
from engine.dataset.scan import Sample
from engine.events import Foreseen, MemoryHeld, Probed, StepDone
from engine.files import default_cache_dir
from engine.hardware.gpu import read_gpus, visible_gpus
from engine.memory.rungs import footing_of
from engine.models.detect import detect
from profiles.estimate import forecast
from profiles.job import job_of, settings_of
from profiles.machine import read_machine
from profiles.measured import Measured, Measurement, arithmetic, kind_of
from profiles.schema import GIB, NONE, Bucket, Correction, Draws, Forecast, Job, Machine, Settings

MODEL_FILES = ("transformer", "autoencoder", "clip_l", "t5")

SIDE = 16
"""Pixels of a token's side."""

FEWEST = 30
"""Steps of one size whose median is worth keeping."""


@dataclass(frozen=True)
class Load:
    """What the card works on at once: micro-batches of ``batch`` pictures of one size, so many to a step."""

    width: int
    height: int
    batch: int
    accumulation: int


def machine_of(config: RunConfig) -> Machine:
    """The machine as the run will find it; without its card where the run takes the processor.

    Raises:
        ConfigError: there is no such GPU.
    """
    device = config.training.device
    number = int(device.partition(":")[2] or 0) if device.startswith("cuda:") else -1
    gpus = visible_gpus(read_gpus()) if number >= 0 else []
    uuid = gpus[number].uuid if 0 <= number < len(gpus) else ""
    machine = read_machine(config.cache_dir or default_cache_dir(), config.runs_dir, uuid)
    return replace(machine, card=None, free_vram_gb=0.0) if device == "cpu" else machine


def settings_of_load(config: RunConfig, machine: Machine, load: Load) -> Settings:
    """The run's settings for ``load``."""
    return replace(settings_of(config, machine), batch=load.batch, accumulation=load.accumulation)


def job_of_load(config: RunConfig, load: Load) -> Job:
    """An epoch of one step of ``load``, on the run's model.

    Raises:
        ModelFileError: a model file cannot be read.
    """
    model = config.model
    infos = {name: detect(getattr(model, name)) for name in MODEL_FILES}
    pictures = load.batch * load.accumulation
    bucket = Bucket(load.width, load.height, pictures)
    side = config.dataset.resolution
    some = Sample(0, model.transformer, "", None, "", side, side, 1, False)  # what it stands for comes below
    job = job_of(config, (some,), infos)
    return replace(job, buckets=(bucket,), pictures=pictures, views=pictures, captions=1, epochs=1, draws=Draws())


def stepped_down(config: RunConfig, setting: str, after: str) -> RunConfig:
    """The configuration that a run goes on with after a rung of its ladder."""
    below = footing_of(config).below(Rung(setting, after))
    return config if below is None else below.applied_to(config)


class Foresight:
    """One run's forecasts and measurements.

    Args:
        config: the run's settings as they are now.
        machine: as it was before the run began.
        measured: where measurements are kept.
    """

    def __init__(self, config: RunConfig, machine: Machine, measured: Measured) -> None:
        self.config = config
        self.machine = machine
        self.measured = measured

    def of_probe(self, probed: Probed) -> tuple[Foreseen, Measurement]:
        """What is told beside a probe, and what is kept of it.

        Raises:
            EngineError: no forecast can be made.
        """
        load = _load_of(probed, self.config)
        settings = settings_of_load(self.config, self.machine, load)
        correction = self.measured.correction_for(self.machine, settings)
        plain, told = (self._forecast(load, settings, each) for each in (NONE, correction))
        vram, context = _peak(plain)
        kept = self._measurement(settings, "probe", probed.step_s, plain.step_s)
        if self.machine.card is not None:
            kept = replace(
                kept,
                vram_gb=round(probed.peak_gb - probed.context_gb, 4),
                vram_forecast_gb=round(vram, 4),
                context_gb=probed.context_gb,
                context_forecast_gb=round(context, 4),
            )
        # Without a context measured the peak has none in it: neither may the forecast beside it.
        peak, held = _peak(told)
        shown = peak + (held if probed.context_gb else 0.0)
        if self.machine.card is None:
            shown = told.stage("train").ram_gb
        return Foreseen(round(shown, 4), round(told.step_s, 6), correction.basis), kept

    def of_steps(
        self, steps: Sequence[StepDone], held: Sequence[MemoryHeld] = (), probed: Probed | None = None
    ) -> Measurement | None:
        """What a run's steps are worth keeping: the time of its usual size, and a peak above the probe's.

        Raises:
            EngineError: no forecast can be made.
        """
        if len(steps) < FEWEST:
            return None
        tokens, count = Counter(step.tokens for step in steps).most_common(1)[0]
        load = self._load_of_tokens(tokens)
        if load is None or count < FEWEST:
            return None
        settings = settings_of_load(self.config, self.machine, load)
        took = median(step.step_s for step in steps if step.tokens == tokens)
        kept = self._measurement(settings, "run", took, self._forecast(load, settings).step_s)
        above = max((_sum(each) for each in held), default=0.0)
        if probed is None or self.machine.card is None or above <= probed.allocated_gb:
            return kept
        largest = _load_of(probed, self.config)
        vram, _ = _peak(self._forecast(largest, settings_of_load(self.config, self.machine, largest)))
        reserved = (probed.peak_gb - probed.context_gb) * above / probed.allocated_gb
        return replace(kept, vram_gb=round(reserved, 4), vram_forecast_gb=round(vram, 4))

    def _forecast(self, load: Load, settings: Settings, correction: Correction = NONE) -> Forecast:
        return forecast(job_of_load(self.config, load), settings, self.machine, correction)

    def _measurement(self, settings: Settings, source: str, step_s: float, forecast_s: float) -> Measurement:
        precision, compute, checkpointing, streamed = kind_of(settings)
        found = Measurement(precision, compute, checkpointing, streamed, arithmetic=arithmetic(), source=source)
        return replace(found, step_s=round(step_s, 6), step_forecast_s=round(forecast_s, 6))

    def _load_of_tokens(self, tokens: int) -> Load | None:
        """Whole micro-batches of one size that make ``tokens``; None where sizes are mixed in a step."""
        training = self.config.training
        pictures = training.batch_size * training.accumulation
        text = job_of_load(self.config, Load(SIDE, SIDE, 1, 1)).model.text_tokens
        image, rest = divmod(tokens, pictures)
        if rest or image <= text:
            return None
        # Time and memory depend on how many tokens there are, not on the picture's shape.
        return Load((image - text) * SIDE, SIDE, training.batch_size, training.accumulation)


def _load_of(probed: Probed, config: RunConfig) -> Load:
    return Load(probed.width, probed.height, probed.batch, config.training.accumulation)


def _peak(found: Forecast) -> tuple[float, float]:
    """What the card holds at most while it trains: all but the context, and the context, GiB."""
    vram = found.stage("train").vram
    context = vram.get("context", 0)
    return (sum(vram.values()) - context) / GIB, context / GIB


def _sum(held: MemoryHeld) -> float:
    return held.weights_gb + held.adapters_gb + held.checkpoints_gb + held.working_gb + held.other_gb

"""How long a sweep will take, by the forecast that `kiln plan` has. Reads headers of model files and pictures."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config import RunConfig
from engine.dataset.decoder import Decoder
from engine.dataset.scan import scan_dataset
from profiles.estimate import forecast
from profiles.foresee import machine_of
from profiles.job import job_of, model_infos, settings_of
from profiles.measured import Measured

CACHED = ("encode latents", "encode captions")
"""Stages whose work the first run leaves to the others."""


def sweep_seconds(configs: Sequence[RunConfig]) -> float:
    """What the runs of ``configs``, which share caches, take one after the other; measuring apart.

    Raises:
        EngineError: no forecast can be made.
    """
    first = configs[0]
    infos, machine, measured = model_infos(first), machine_of(first), Measured()
    with Decoder(first.dataset.max_megapixels) as decoder:
        samples = scan_dataset(first.dataset, decoder).samples
    total = 0.0
    for number, config in enumerate(configs):
        settings = settings_of(config, machine)
        found = forecast(
            job_of(config, samples, infos), settings, machine, measured.correction_for(machine, settings)
        )
        total += sum(stage.seconds for stage in found.stages if not number or stage.name not in CACHED)
    return total

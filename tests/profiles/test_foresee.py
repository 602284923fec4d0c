"""Forecasts for what a live run does, and what its probe and steps are worth keeping against them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pocket import pocket_config

import profiles.foresee as foresee
from engine.config import RunConfig
from engine.errors import ModelFileError
from engine.events import MemoryHeld, Probed, StepDone
from engine.hardware.cards import card_named
from profiles.foresee import FEWEST, Foresight, Load, job_of_load, settings_of_load, stepped_down
from profiles.measured import Measured
from profiles.schema import Machine

CARD = Machine(card_named("RTX 4090"), 23.0, 64.0, 50.0, 16, 500.0, 500.0)
PROCESSOR = replace(CARD, card=None, free_vram_gb=0.0)


def config(home: Path, **changes: Any) -> RunConfig:
    return pocket_config(home, **({"training": {"accumulation": 2, "device": "auto"}} | changes))


def probed(**changes: Any) -> Probed:
    return replace(Probed(2.0, 1.4, 1.2, 0.5, 72, 64, 64, 1, 24.0, 0.4), **changes)


def test_a_probe_is_compared_with_a_forecast_of_its_own_size(tmp_path: Path) -> None:
    foresight = Foresight(config(tmp_path), CARD, Measured(tmp_path / "m"))
    told, kept = foresight.of_probe(probed())
    assert kept.vram_gb == pytest.approx(1.6) and kept.context_gb == 0.4
    assert 0 < kept.vram_forecast_gb < 1.0 < told.peak_gb + 1 and told.basis == ""
    assert told.peak_gb == pytest.approx(kept.vram_forecast_gb + kept.context_forecast_gb, abs=1e-3)
    assert told.step_s == pytest.approx(kept.step_forecast_s, abs=1e-5) and kept.step_s == 0.5
    larger, _ = foresight.of_probe(probed(width=128, height=128, batch=4))
    assert larger.peak_gb > told.peak_gb and larger.step_s > told.step_s


def test_without_a_context_measured_none_is_compared(tmp_path: Path) -> None:
    told, kept = Foresight(config(tmp_path), CARD, Measured(tmp_path / "m")).of_probe(probed(context_gb=0.0))
    assert told.peak_gb == pytest.approx(kept.vram_forecast_gb, abs=1e-3) and kept.context_gb == 0.0


def test_what_was_kept_corrects_the_next_forecast_and_is_measured_without_it(tmp_path: Path) -> None:
    store = Measured(tmp_path / "m")
    foresight = Foresight(config(tmp_path), CARD, store)
    first, kept = foresight.of_probe(probed(step_s=0.001))
    store.add(CARD, replace(kept, step_s=1.5 * kept.step_forecast_s))
    second, again = foresight.of_probe(probed(step_s=0.001))
    assert second.step_s == pytest.approx(1.5 * first.step_s, rel=0.01)
    assert second.basis == "1 measurement on this machine"
    assert again.step_forecast_s == kept.step_forecast_s, "held against the uncorrected one"


def test_on_a_processor_time_and_host_memory_are_compared(tmp_path: Path) -> None:
    told, kept = Foresight(config(tmp_path), PROCESSOR, Measured(tmp_path / "m")).of_probe(probed(total_gb=0.0))
    assert told.peak_gb > 0 and (kept.vram_gb, kept.vram_forecast_gb) == (0.0, 0.0)
    assert (kept.precision, kept.compute) == ("float32", "wide")


def steps(count: int, tokens: int = 144, step_s: float = 0.5) -> list[StepDone]:
    return [StepDone(n, 1, 0.5, 1e-4, 0.1, step_s, 0.0, step_s, 0.0, tokens=tokens) for n in range(count)]


def test_a_runs_usual_steps_are_kept(tmp_path: Path) -> None:
    foresight = Foresight(config(tmp_path), CARD, Measured(tmp_path / "m"))
    told, _ = foresight.of_probe(probed(width=64, height=208, tokens=2 * 72))
    image = 144 // 2 - 20
    assert image == 64 * 208 // 256
    kept = foresight.of_steps([*steps(FEWEST), *steps(10, tokens=100, step_s=9.0)])
    assert kept is not None and kept.step_s == 0.5 and kept.vram_gb == 0.0 and kept.source == "run"
    assert kept.step_forecast_s == pytest.approx(told.step_s, rel=0.01), "tokens decide, not the picture's shape"
    assert foresight.of_steps(steps(FEWEST - 1)) is None
    assert foresight.of_steps([*steps(FEWEST, tokens=145)]) is None, "sizes are mixed in a step"
    assert foresight.of_steps([*steps(FEWEST, tokens=40)]) is None, "no picture at all"
    assert foresight.of_steps([each for n in range(20) for each in steps(2, tokens=144 + 2 * n)]) is None


def test_a_peak_above_the_probes_is_kept(tmp_path: Path) -> None:
    foresight = Foresight(config(tmp_path), CARD, Measured(tmp_path / "m"))
    low, high = MemoryHeld(0.5, 0.1, 0.1, 0.1, 0.1, 3.0), MemoryHeld(0.5, 0.1, 0.5, 0.4, 0.25, 3.0)
    kept = foresight.of_steps(steps(FEWEST), [low, high], probed())
    assert kept is not None and kept.vram_gb == pytest.approx(1.6 * 1.75 / 1.4)
    assert kept.vram_forecast_gb > 0
    for held, probe in (([low], probed()), ([high], None)):
        kept = foresight.of_steps(steps(FEWEST), held, probe)
        assert kept is not None and kept.vram_gb == 0.0


LOAD = Load(64, 64, 1, 2)


def test_the_settings_are_the_runs_with_the_loads_pictures(tmp_path: Path) -> None:
    found = settings_of_load(config(tmp_path, memory={"precision": "int8", "blocks_to_swap": 2}), CARD, LOAD)
    assert (found.precision, found.compute, found.blocks_to_swap) == ("int8", "8bit", 2)
    assert (found.batch, found.accumulation, found.rank) == (1, 2, 4)


def test_a_job_has_the_sizes_of_the_runs_files(tmp_path: Path) -> None:
    settings = config(tmp_path)
    job = job_of_load(settings, LOAD)
    assert job.model.transformer_bytes == settings.model.transformer.stat().st_size
    assert job.model.text_tokens == 20 and job.model.family == "flux1" and job.model.params["depth"] > 0
    broken = settings.model_copy(update={"model": settings.model.model_copy(update={"transformer": Path("/none")})})
    with pytest.raises(ModelFileError):
        job_of_load(broken, LOAD)


def test_a_rung_changes_the_settings(tmp_path: Path) -> None:
    settings = config(tmp_path)
    assert stepped_down(settings, "blocks_to_swap", "5").memory.blocks_to_swap == 5
    assert stepped_down(settings, "gradient_checkpointing", "offload").training.gradient_checkpointing == "offload"
    assert stepped_down(settings, "empty_cache", "") == settings


def test_the_machine_is_that_of_the_runs_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def read(cache: Path, runs: Path, uuid: str = "") -> Machine:
        asked.append(uuid)
        return CARD

    class Seen:
        def __init__(self, uuid: str) -> None:
            self.uuid = uuid

    monkeypatch.setattr(foresee, "read_machine", read)
    monkeypatch.setattr(foresee, "read_gpus", lambda: [Seen("GPU-a"), Seen("GPU-b")])
    monkeypatch.setattr(foresee, "visible_gpus", lambda gpus: gpus[::-1])
    devices = ("auto", "cuda", "cuda:0", "cuda:1", "cuda:7")
    machines = [foresee.machine_of(config(tmp_path, training={"device": device})) for device in devices]
    assert asked == ["", "", "GPU-b", "GPU-a", ""] and all(machine.card is not None for machine in machines)
    assert foresee.machine_of(config(tmp_path, training={"device": "cpu"})).card is None

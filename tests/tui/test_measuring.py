"""Who shows a run also measures it: what is told of a probe, what is kept, and what disturbs it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pocket import pocket_config

from engine.errors import DiskError, ModelFileError
from engine.events import Entry, Event, Foreseen, Log, MemoryHeld, Probed, RunStarted, Slowed, StepDone, SteppedDown
from engine.run import Run
from profiles.foresee import FEWEST
from profiles.measured import Measured, Measurement, arithmetic
from profiles.schema import Machine
from tui.bridge import view_of
from tui.headless import run_headless
from tui.measuring import SKIPPED, Measuring, measure

PROBED = Probed(14.2, 13.0, 9.0, 2.1, 4608, 1024, 1024, 1, 24.0, 0.5)
KEPT = Measurement("int8", "8bit", "full", False, 14.0, 13.5, 0.5, 0.5, 2.1, 2.0, 0.0, arithmetic(), "probe")
MACHINE = Machine(None, 0.0, 64.0, 50.0, 16, 500.0, 500.0)


class Foresees:
    """Forecasts made by hand."""

    def __init__(self, home: Path, fails: Exception | None = None) -> None:
        self.config, self.machine, self.measured = pocket_config(home), MACHINE, Measured(home / "m")
        self.fails = fails
        self.asked: list[tuple[int, int, Any]] = []

    def of_probe(self, probed: Probed) -> tuple[Foreseen, Measurement]:
        if self.fails:
            raise self.fails
        return Foreseen(14.0, 2.0, "1 measurement on this machine"), KEPT

    def of_steps(self, steps: Any, held: Any, probed: Any) -> Measurement | None:
        self.asked.append((len(steps), len(held), probed))
        if self.fails:
            raise self.fails
        return replace(KEPT, source="run") if len(steps) >= FEWEST else None

    def kept(self) -> list[str]:
        path = self.measured.path(MACHINE)
        return [each["source"] for each in json.loads(path.read_text())["measurements"]] if path.exists() else []


def fed(foresees: Foresees, *events: Event) -> list[Event]:
    measuring = Measuring(foresees)  # type: ignore[arg-type]
    told = [each for n, event in enumerate(events, start=1) for each in measuring.take(Entry(n, 1.0, event))]
    return told + measuring.finish()


def steps(count: int) -> list[Event]:
    return [StepDone(n, 1, 0.5, 1e-4, 0.1, 2.0, 0.0, 2.0, 0.0, tokens=4608) for n in range(count)]


def test_a_probe_and_a_run_are_told_and_kept(tmp_path: Path) -> None:
    foresees = Foresees(tmp_path)
    (told,) = fed(foresees, PROBED, *steps(FEWEST + SKIPPED))
    assert told == Foreseen(14.0, 2.0, "1 measurement on this machine")
    assert foresees.asked == [(FEWEST, 0, PROBED)] and foresees.kept() == ["probe", "run"]
    kept = json.loads(foresees.measured.path(MACHINE).read_text())["measurements"]
    assert kept[0]["at"] > 1e9


def test_what_disturbed_a_run_is_not_kept(tmp_path: Path) -> None:
    slow, over = Slowed(40, 1.6, "heat", "hot"), Slowed(80, 1.0, "over", "as before")
    assert fed(foresees := Foresees(tmp_path), *steps(50), slow, over, *steps(50)) == [] and foresees.kept() == []
    fed(foresees := Foresees(tmp_path), *steps(50), over)
    assert foresees.kept() == ["run"]


def test_after_a_rung_only_what_follows_counts(tmp_path: Path) -> None:
    down = SteppedDown("training", 30, "blocks_to_swap", "0", "4", "out of memory")
    foresees = Foresees(tmp_path)
    held = MemoryHeld(1.0, 1.0, 1.0, 1.0, 1.0, 5.0)
    assert fed(before := Foresees(tmp_path / "held"), held, PROBED, *steps(50), held) and before.asked[0][1] == 1
    fed(foresees, PROBED, *steps(50), held, down, *steps(35))
    assert foresees.config.memory.blocks_to_swap == 4 and foresees.asked == [(35, 0, None)]
    split = SteppedDown("probing", 0, "micro_batch", "4", "2", "out of memory")
    foresees = Foresees(tmp_path / "split")
    assert fed(foresees, split, PROBED, *steps(50)) == [Foreseen(14.0, 2.0, "1 measurement on this machine")]
    assert foresees.kept() == []


def test_a_resumed_run_does_not_count_what_it_told_before(tmp_path: Path) -> None:
    foresees = Foresees(tmp_path)
    fed(foresees, *steps(50), RunStarted("r", "/r", "flux1", "dev", 1, 50, 5, 50), *steps(10))
    assert foresees.asked == [(10, 0, None)]


def test_no_forecast_is_said_and_nothing_fails(tmp_path: Path) -> None:
    for err in (ModelFileError("Not a model", "x\x1b[31m.safetensors", ""), FileNotFoundError(2, "No such file")):
        foresees = Foresees(tmp_path, fails=err)
        (told,) = fed(foresees, PROBED, *steps(60))
        assert isinstance(told, Foreseen) and told.peak_gb == 0 and told.basis and "\x1b" not in told.basis
        assert foresees.kept() == []


def test_a_measurement_that_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise DiskError("The disk is full", "writing failed", "")

    monkeypatch.setattr(Measured, "add", full)
    found = fed(Foresees(tmp_path), PROBED)
    assert isinstance(found[1], Log) and found[1].level == "warning" and "The disk is full" in found[1].text


def test_a_damaged_file_is_said_in_the_log(tmp_path: Path) -> None:
    foresees = Foresees(tmp_path)
    foresees.measured.folder.mkdir()
    foresees.measured.path(MACHINE).write_text("{")
    found = fed(foresees, PROBED)
    assert isinstance(found[1], Log) and "is damaged" in found[1].text and foresees.kept() == ["probe"]


def test_a_run_without_a_configuration_is_not_measured() -> None:
    class Bare:
        folder = None

    assert measure(Bare()) is None  # type: ignore[arg-type]


def test_kiln_train_compares_its_probe_in_one_line_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = Run(pocket_config(tmp_path, training={"epochs": 20, "accumulation": 1}, memory={"probe": "on"}))
    assert run_headless(run) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "probe of " in line]
    assert len(lines) == 1 and "peak" in lines[0] and "forecast" in lines[0] and "a step" in lines[0]
    (file,) = (tmp_path / "state" / "lorakiln" / "measured").glob("*.json")
    assert json.loads(file.read_text())["measurements"][0]["source"] == "probe"
    assert run.folder is not None
    view = view_of(run.folder.events)
    assert view.probed is not None and view.foreseen is not None and view.foreseen.step_s > 0

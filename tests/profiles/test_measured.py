"""Measurements: what they correct, what a wrong one can do, and what a damaged file does to nobody."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import profiles.measured as measured
from engine.errors import DiskError
from engine.hardware.cards import card_named
from profiles.estimate import forecast
from profiles.job import job_for
from profiles.measured import MOST, NEWEST, Measured, Measurement, arithmetic, kind_of
from profiles.schema import GIB, NONE, Machine, Settings
from profiles.solve import learned

MACHINE = Machine(card_named("RTX 4090"), 23.0, 64.0, 50.0, 16, 500.0, 500.0)
SETTINGS = Settings(precision="int8", compute="8bit", checkpointing="full", blocks_to_swap=0)
USUAL = Measurement("int8", "8bit", "full", False, 14.0, 14.0, 0.5, 0.5, 2.0, 2.0)


def filled(folder: Path, *made: Measurement, machine: Machine = MACHINE) -> Measured:
    store = Measured(folder)
    for each in made:
        store.add(machine, replace(each, arithmetic=each.arithmetic or arithmetic()))
    return Measured(folder)


def test_nothing_measured_corrects_nothing(tmp_path: Path) -> None:
    store = Measured(tmp_path / "none")
    assert store.correction_for(MACHINE, SETTINGS) == NONE and store.remarks == []
    assert not (tmp_path / "none").exists(), "asking leaves no trace"


def test_a_measurement_corrects_forecasts_with_its_settings(tmp_path: Path) -> None:
    store = filled(tmp_path, replace(USUAL, vram_gb=14.7, step_s=2.6, context_gb=0.9))
    found = store.correction_for(MACHINE, SETTINGS)
    assert found.vram_factor == pytest.approx(1.05) and found.step_factor == pytest.approx(1.3)
    assert found.extra_bytes == pytest.approx(0.4 * GIB, abs=8)
    assert found.basis == "1 measurement on this machine"


def test_other_settings_are_corrected_half_the_way(tmp_path: Path) -> None:
    store = filled(tmp_path, replace(USUAL, vram_gb=15.4, step_s=2.88))
    for other in (
        replace(SETTINGS, precision="bf16"),
        replace(SETTINGS, checkpointing="offload"),
        replace(SETTINGS, compute="wide"),
        replace(SETTINGS, blocks_to_swap=9),
    ):
        found = store.correction_for(MACHINE, other)
        assert found.step_factor == pytest.approx(1.2) and found.vram_factor == pytest.approx(1.1**0.5, abs=1e-4)
        assert "other settings" in found.basis
    assert kind_of(Settings("bf16", "8bit")) == kind_of(Settings("bf16", "wide")), "it has no 8-bit products"
    alike = replace(SETTINGS, rank=64, batch=4, optimizer="lion")
    assert store.correction_for(MACHINE, alike).step_factor == pytest.approx(1.44)


def test_the_median_of_the_newest_counts(tmp_path: Path) -> None:
    old = [replace(USUAL, step_s=8.0)] * 10
    new = [replace(USUAL, step_s=s) for s in (2.2, 2.2, 2.2, 40.0, 2.2, 0.1, 2.2)]
    assert len(new) == NEWEST
    assert filled(tmp_path, *old, *new).correction_for(MACHINE, SETTINGS).step_factor == pytest.approx(1.1)


def test_a_wrong_measurement_is_bounded(tmp_path: Path) -> None:
    high = filled(tmp_path / "high", replace(USUAL, vram_gb=900.0, step_s=9e9, context_gb=90.0))
    found = high.correction_for(MACHINE, SETTINGS)
    assert (found.vram_factor, found.step_factor, found.extra_bytes) == (1.25, 4.0, 2 * GIB)
    low = filled(tmp_path / "low", replace(USUAL, vram_gb=0.001, step_s=1e-9, context_gb=1e-9))
    found = low.correction_for(MACHINE, SETTINGS)
    assert (found.vram_factor, found.step_factor) == (0.95, 0.5) and found.extra_bytes >= -GIB // 2


def test_what_was_not_measured_corrects_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, replace(USUAL, vram_gb=0.0, context_gb=0.0, step_s=2.4))
    found = store.correction_for(MACHINE, SETTINGS)
    assert (found.vram_factor, found.extra_bytes, found.step_factor) == (1.0, 0, 1.2)


def test_other_arithmetic_says_nothing_and_is_dropped(tmp_path: Path) -> None:
    store = filled(tmp_path, replace(USUAL, step_s=8.0, arithmetic="of an earlier version"))
    assert store.correction_for(MACHINE, SETTINGS) == NONE
    store = filled(tmp_path, replace(USUAL, step_s=2.2))
    kept = json.loads(store.path(MACHINE).read_text())["measurements"]
    assert [each["step_s"] for each in kept] == [2.2]


def test_the_arithmetic_is_that_of_all_forecasts() -> None:
    """A new module of the forecast must be named, or its changes would be missed."""
    import ast

    folder = Path(measured.__file__).parent
    seen, todo = set(), ["estimate.py"]
    while todo:
        name = todo.pop()
        seen.add(name)
        for node in ast.walk(ast.parse((folder / name).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("profiles"):
                parts = (
                    [node.module.removeprefix("profiles.")] if "." in node.module else [a.name for a in node.names]
                )
                todo += [f"{part}.py" for part in parts if f"{part}.py" not in seen]
    assert seen - {"schema.py", "disk_model.py"} == set(measured.ARITHMETIC)


def test_cards_have_files_of_their_own(tmp_path: Path) -> None:
    store = filled(tmp_path, replace(USUAL, step_s=3.0))
    for other in (replace(MACHINE, card=card_named("RTX 3090")), replace(MACHINE, card=None)):
        assert store.correction_for(other, SETTINGS) == NONE
    hostile = replace(MACHINE, card=replace(card_named("RTX 4090"), name="../../etc/\x1b[31mpasswd"))
    assert store.path(hostile).parent == tmp_path and "\x1b" not in store.path(hostile).name


def test_a_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.files.flush", lambda path: None)
    store = filled(tmp_path, *[replace(USUAL, at=float(n)) for n in range(MOST + 5)])
    kept = json.loads(store.path(MACHINE).read_text())["measurements"]
    assert len(kept) == MOST and kept[0]["at"] == 5.0
    assert store.path(MACHINE).stat().st_size < measured.MOST_BYTES / 4


GOOD = {"format": 1, "measurements": [dict(vars(USUAL), arithmetic="x")]}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null",
        b'{"format": 2, "measurements": []}', b'{"format": 1}', b"\xff\xfe", b"[" * 100_000,
        json.dumps(GOOD | {"measurements": [1]}).encode(),
        json.dumps(GOOD | {"measurements": [dict(vars(USUAL), step_s="2")]}).encode(),
        json.dumps(GOOD | {"measurements": [dict(vars(USUAL), step_s=float("nan"))]}).encode(),
        json.dumps(GOOD | {"measurements": [dict(vars(USUAL), vram_gb=-1.0)]}).encode(),
        json.dumps(GOOD | {"measurements": [{"step_s": 1.0}]}).encode(),
        b" " * (measured.MOST_BYTES + 1),
    ],
)  # fmt: skip
def test_a_damaged_file_is_said_and_set_aside(tmp_path: Path, text: bytes) -> None:
    store = Measured(tmp_path)
    path = store.path(MACHINE)
    path.write_bytes(text)
    assert store.correction_for(MACHINE, SETTINGS) == NONE
    (remark,) = store.remarks
    assert "is damaged" in remark and not path.exists()
    assert path.with_suffix(".damaged").read_bytes() == text
    store.add(MACHINE, replace(USUAL, step_s=3.0, arithmetic=arithmetic()))
    assert store.correction_for(MACHINE, SETTINGS).step_factor == 1.5


def test_a_file_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    store = Measured(tmp_path)
    store.path(MACHINE).mkdir()
    assert store.correction_for(MACHINE, SETTINGS) == NONE and "cannot be read" in store.remarks[0]
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        Measured(tmp_path / "file").add(MACHINE, USUAL)


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    import threading

    def add(number: int) -> None:
        for count in range(5):
            Measured(tmp_path).add(MACHINE, replace(USUAL, at=float(10 * number + count), arithmetic=arithmetic()))

    threads: list[Any] = [threading.Thread(target=add, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(Measured(tmp_path).path(MACHINE).read_text())["measurements"]) == 15


def test_a_solver_learns_from_it(tmp_path: Path) -> None:
    store = filled(tmp_path, replace(USUAL, step_s=2.6))
    job, estimate = job_for(), learned(store.correction_for)
    plain = forecast(job, SETTINGS, MACHINE)
    assert estimate(job, SETTINGS, MACHINE).step_s == pytest.approx(1.3 * plain.step_s)
    other = replace(MACHINE, card=card_named("RTX 3090"))
    assert estimate(job, SETTINGS, other) == forecast(job, SETTINGS, other), "another card than was measured"


def test_how_much_is_known_is_said(tmp_path: Path) -> None:
    assert Measured(tmp_path).words(MACHINE) == ""
    assert (
        filled(tmp_path, USUAL, USUAL).words(MACHINE) == "Forecasts are corrected by 2 measurements on this machine."
    )

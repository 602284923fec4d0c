"""`kiln bench`: figures from a run's events, the floor by the card's name, and nothing left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.config import RunConfig
from engine.events import Entry, MemoryHeld, MemorySampled, StepDone
from engine.hardware.machine import Machine, processor
from engine.hardware.rates import measured_tflops, rates_of
from engine.models.flux_work import FluxWork
from tui.__main__ import main
from tui.bench import Figures, Floor, memory_of, settings_of, shares_of, spread_of, text_of, walls_of
from tui.commands.bench import _floor


def step(number: int, seconds: float = 1.0, tokens: int = 0) -> StepDone:
    return StepDone(
        number, 1, 0.5, 1e-4, 1.0, seconds, 0.1, 0.8, 0.1, forward_s=0.3, backward_s=0.5, stall_s=0.05, tokens=tokens
    )


def test_wall_times_lie_between_two_steps_and_leave_out_the_first() -> None:
    entries = [Entry(number, float(number**2), step(number)) for number in range(1, 6)]
    walls = walls_of(entries, warm_up=2)
    assert [(wall, event.step) for wall, event in walls] == [(5.0, 3), (7.0, 4), (9.0, 5)]


def test_median_and_quartiles() -> None:
    spread = spread_of([1.0, 2.0, 3.0, 4.0, 50.0])
    assert (spread.low_s, spread.median_s, spread.high_s) == (2.0, 3.0, 4.0)
    assert spread_of([2.0]).median_s == 2.0


def test_shares_add_up_and_an_older_run_has_a_model_alone() -> None:
    shares = shares_of([step(1), step(2)], 1.0)
    assert shares["forward"] == 0.3 and shares["backward"] == 0.5 and shares["waiting for copies"] == 0.05
    assert sum(share for name, share in shares.items() if name != "waiting for copies") == pytest.approx(1.0)
    old = shares_of([StepDone(1, 1, 0.5, 1e-4, 1.0, 1.0, 0.1, 0.8, 0.1)], 1.0)
    assert old["forward"] == 0.8 and old["backward"] == 0.0


def test_memory_is_the_cards_where_there_is_one() -> None:
    host = Entry(1, 1.0, MemorySampled(1.0, 8.0, 0.5))
    card = Entry(2, 2.0, MemorySampled(1.0, 8.0, 0.5, 3.0, 8.0, 2.5))
    held = Entry(3, 3.0, MemoryHeld(1.0, 0.5, 0.25, 0.5, 0.125, 2.75))
    assert memory_of([host]) == (0.5, {})
    peak, split = memory_of([host, card, held])
    assert peak == 2.75 and split == {
        "weights": 1.0, "adapters": 0.5, "checkpoints": 0.25, "working": 0.5, "other": 0.125, "peak": 2.75,
    }  # fmt: skip


def test_the_floor_takes_the_cards_rate_by_its_whole_name(pocket: RunConfig) -> None:
    rates = rates_of("NVIDIA GeForce RTX 4090")
    assert rates is not None and rates.bf16 == 165.2
    laptop = rates_of("NVIDIA GeForce RTX 4090 Laptop GPU")
    assert laptop is not None and laptop.bf16 < rates.bf16 / 2
    assert rates_of("RTX 4090 of a later year") is None and rates_of("") is None
    tokens = 4096 + pocket.model.t5_length
    floor = _floor(pocket, FluxWork(), [step(1, tokens=tokens)], "dev", "NVIDIA GeForce RTX 4090")
    assert floor is not None and floor.linear_rate == floor.attention_rate == 165.2
    packed = pocket.model_copy(update={"memory": pocket.memory.model_copy(update={"precision": "int8"})})
    eight = _floor(packed, FluxWork(), [step(1, tokens=tokens)], "dev", "NVIDIA GeForce RTX 4090")
    assert eight is not None and eight.linear_rate == 660.6 and eight.attention_rate == 165.2
    assert eight.seconds < floor.seconds
    turing = _floor(pocket, FluxWork(), [step(1, tokens=tokens)], "dev", "NVIDIA GeForce RTX 2080 Ti")
    assert turing is not None and turing.linear_rate == turing.attention_rate == 13.4 and "float32" in turing.source
    assert _floor(pocket, FluxWork(), [step(1)], "dev", "") is None


def test_the_published_floor_of_a_4090_at_1024_px() -> None:
    linear, attention = FluxWork().step(4096, 512, kept="attention")
    floor = Floor(linear / 1e12, attention / 1e12, 165.2, 165.2, "")
    assert floor.seconds == pytest.approx(1.26, abs=0.01)


def test_a_product_is_timed_where_no_rate_is_known() -> None:
    assert 0 < measured_tflops("cpu", "float32", size=64, repeats=1) < 100


def test_the_processor_is_named(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some Processor 9\n")
    assert processor(info) == "Some Processor 9"
    assert processor(tmp_path / "missing")


def test_the_text_tells_every_figure(pocket: RunConfig) -> None:
    figures = Figures(
        Machine("Some Processor 9", 8, "Some Card", "570.1", 24.0, "2.13.0", "3.11"),
        settings_of(pocket, "dev"), 20, 5, spread_of([1.0, 1.1, 1.2]), {"forward": 0.3}, 4608,
        Floor(100.0, 20.0, 165.2, 165.2, "published"), 12.5, {"weights": 8.7, "peak": 12.5}, 453.0,
    )  # fmt: skip
    text = text_of(figures)
    for told in (
        "Some Card, 24 GiB",
        "1.10 s median",
        "4,189 a second",
        "12.50 GiB",
        "weights 8.70",
        "453.0 MB",
        "%",
    ):
        assert told in text
    assert figures.to_dict()["floor"]["seconds"] == pytest.approx(120 / 165.2)


def test_a_bench_of_the_demo_measures_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(["bench", "demo", "--steps", "3", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["steps"] == 3 and told["step"]["median_s"] > 0 and told["peak_gb"] > 0
    assert told["machine"]["torch"] and told["settings"]["batch"] == "8 x 1"
    assert os.listdir(tmp_path) == ["work"] and not os.listdir(work)


def test_a_kept_run_stands_under_a_name_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from pocket import pocket_config

    from engine.config_file import save_config

    file = tmp_path / "run.toml"
    save_config(pocket_config(tmp_path, training={"epochs": 3}), file)
    assert main(["bench", str(file), "--steps", "2", "--keep"]) == 0
    assert "median" in capfd.readouterr().out
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["test-bench"]


def test_a_broken_configuration_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err


@pytest.fixture
def pocket(tmp_path: Path) -> RunConfig:
    """The small run of the tests, one sample a step."""
    from pocket import pocket_config

    return pocket_config(tmp_path, training={"accumulation": 1})

"""`kiln plan`: words, JSON, exit codes, writing into a file; through the command line's own entry, without a GPU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from engine.config_file import load_config, save_config
from profiles.starters import demo_config
from profiles.tiers import FOLDER as TIERS
from tui.__main__ import main

DOCUMENTED = {
    "verdict", "fits", "peak_vram_gb", "peak_ram_gb", "disk_gb", "limit_gb", "margin_gb", "step_s", "steps",
    "total_s", "slowest", "lora_mb", "price", "cost", "settings", "reasons", "stages", "disk", "warnings",
    "remedies", "advice", "machine", "job",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of this user's recipes and tiers is read."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "lorakiln"


def planned(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["plan", *words, "--json"]) == code
    return dict(json.loads(capsys.readouterr().out))


@pytest.fixture
def run_toml(tmp_path: Path) -> Path:
    """The demonstration as a run's file, with a comment of the user's."""
    path = tmp_path / "RUN.toml"
    save_config(demo_config(tmp_path / "runs"), path)
    path.write_text(path.read_text().replace("[training]", "# mine\n[training]"))
    return path


@pytest.mark.parametrize("vram", [8, 10, 12, 16, 24, 32, 48, 80])
def test_every_size_of_card_has_an_answer_in_time(vram: int, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.process_time()
    words = ["--model", "flux1-dev", "--resolution", "1024", "--rank", "16", "--batch", "1", "--vram", str(vram)]
    plan = planned(capsys, *words)
    assert time.process_time() - began < 2.0
    assert set(plan) == DOCUMENTED
    assert plan["fits"] and plan["verdict"] in ("fits", "fits, slowly")
    assert plan["peak_vram_gb"] <= plan["limit_gb"] - plan["margin_gb"] < vram
    assert plan["peak_vram_gb"] == max(stage["vram_gb"] for stage in plan["stages"])
    assert plan["peak_ram_gb"] == max(stage["ram_gb"] for stage in plan["stages"])
    assert plan["settings"]["lora.rank"] == 16 and plan["steps"] == 2000
    assert all(reason["reason"] for reason in plan["reasons"])
    assert any(reason["alternatives"] for reason in plan["reasons"])


def test_smaller_cards_take_longer_and_8_gb_is_called_slow(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = (planned(capsys, "--vram", size) for size in ("8", "80"))
    assert small["verdict"] == "fits, slowly" and large["verdict"] == "fits"
    assert small["step_s"] > large["step_s"]
    assert any("slowly" in text for text in small["warnings"])


def test_in_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns nothing is cut, and what matters is there."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", "--gpu", "RTX 4060", "--ram", "32", "--price", "0.4", "--recipe", "style"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for words in ("RTX 4060", "FITS", "a step", "STAGE", "encode captions", "memory.precision = ", "at 0.4 an hour"):
        assert words in out
    assert "recipe style" in " ".join(out.split()) and "lora.rank = 32" in out


def test_a_job_that_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--vram", "8", "--set", "memory.precision=auto", "--set", "memory.blocks_to_swap=0")
    plan = planned(capsys, *words, code=1)
    assert plan["verdict"] == "does not fit" and not plan["fits"]
    assert any("Leave memory.precision" in text for text in plan["remedies"])
    assert main(["plan", *words]) == 1
    assert "DOES NOT FIT" in (out := capsys.readouterr().out) and "WHAT WOULD HELP" in out


def test_wishes(capsys: pytest.CaptureFixture[str]) -> None:
    usual = planned(capsys, "--gpu", "RTX 4090")
    left = planned(capsys, "--gpu", "RTX 4090", "--leave", "2")
    assert left["limit_gb"] == pytest.approx(usual["limit_gb"] - 2, abs=0.01)
    exact = planned(capsys, "--gpu", "RTX 4090", "--aim", "quality")
    assert exact["settings"]["memory.precision"] == "auto" and exact["step_s"] >= usual["step_s"]
    fixed = planned(capsys, "--gpu", "RTX 4090", "--set", "training.gradient_checkpointing=full")
    assert fixed["settings"]["training.gradient_checkpointing"] == "full"
    whole = planned(capsys, "--gpu", "RTX 4090", "--batch", "4")["settings"]
    assert whole["training.batch_size"] * whole["training.accumulation"] == 4


def test_done_by_is_the_next_time_that_the_clock_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "--vram", "8", "--epochs", "100000", "--done-by", "07:00")
    assert any("not be done in time" in text for text in plan["warnings"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gpu", "RTX 9999"], "RTX 9999"),
        (["--recipe", "nothing"], "character"),
        (["--tier", "7gb"], "8gb"),
        (["--write"], "RUN.toml"),
        (["--vram", "8", "--set", "memory.blocks=3"], "memory.blocks_to_swap"),
        (["--done-by", "25:00"], "07:00"),
        (["--resolution", "12"], "64 to 4096"),
        (["--set", "rank"], "KEY=VALUE"),
        (["missing.toml"], "missing.toml"),
    ],
)
def test_bad_input_is_2(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and not captured.out


def test_a_runs_file(run_toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Model headers and pictures are read; steps are those of the run."""
    plan = planned(capsys, str(run_toml), "--gpu", "RTX 4090")
    config = load_config(run_toml)
    assert plan["steps"] == config.training.epochs * (plan["steps"] // config.training.epochs)
    assert plan["job"]["pictures"] > 100 and plan["job"]["buckets"]
    assert plan["settings"]["lora.rank"] == 8
    batch = plan["settings"]["training.batch_size"] * plan["settings"]["training.accumulation"]
    assert batch == config.training.batch_size


def test_a_file_and_a_described_job_are_two(run_toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(run_toml), "--rank", "4", "--vram", "12"]) == 2
    assert "--rank" in capsys.readouterr().err


def test_writing_keeps_comments_and_changes_nothing_else(run_toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, text = load_config(run_toml), run_toml.read_text()
    command = ["plan", str(run_toml), "--gpu", "RTX 4090", "--set", "training.gradient_checkpointing=full"]
    assert main([*command, "--write"]) == 0
    assert "gradient_checkpointing = full" in capsys.readouterr().out.splitlines()[-1]
    after = load_config(run_toml)
    assert "# mine" in run_toml.read_text()
    assert after.training.gradient_checkpointing == "full"
    assert after.dataset == before.dataset and after.sampling == before.sampling and after.name == before.name
    assert len(run_toml.read_text().splitlines()) == len(text.splitlines())
    once = run_toml.read_text()
    assert main([*command, "--write"]) == 0 and run_toml.read_text() == once
    assert "says all of it already" in capsys.readouterr().out


def test_nothing_is_written_where_nothing_fits(run_toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run_toml.read_text()
    assert main(["plan", str(run_toml), "--vram", "1", "--leave", "1", "--write"]) == 2
    assert run_toml.read_text() == text and "Nothing was written" in capsys.readouterr().err


def test_own_recipes_and_tiers(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are found by name; a bad file is told on stderr and the rest goes on."""
    (own_home / "tiers").mkdir(parents=True)
    shipped = (TIERS / "12gb.toml").read_text(encoding="utf-8")
    mine = shipped.replace("blocks_to_swap = ", "blocks_to_swap = 57 # was ")
    (own_home / "tiers" / "mine.toml").write_text(mine)
    (own_home / "tiers" / "bad.toml").write_text("title = 3\n")
    assert main(["plan", "--tier", "mine", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["settings"]["memory.blocks_to_swap"] == 57
    assert "skipped" in captured.err and "bad.toml" in captured.err and "line 1" in captured.err
    assert main(["plan", "--tiers"]) == 0
    out = capsys.readouterr().out
    assert "mine" in out and "(yours)" in out and "80gb" in out and "bad" not in out


def test_a_processor_alone(
    run_toml: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pocket model trains there; FLUX.1 is told to want a card."""
    monkeypatch.setattr("profiles.machine.probe_gpus", lambda: ([], "no driver"))
    plan = planned(capsys, str(run_toml), "--ram", "16")
    assert plan["fits"] and plan["machine"]["gpu"] is None and plan["peak_vram_gb"] == 0
    flux = planned(capsys, "--ram", "16", code=1)
    assert any("Train on a GPU" in text for text in flux["remedies"])
    assert any("--vram" in text for text in flux["machine"]["remarks"])

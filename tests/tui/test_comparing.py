"""Comparing runs: what differs, what can be ranked, and what cannot and why."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.config import RunConfig
from engine.config_file import parse_config, save_config
from engine.events import (
    CheckpointSaved,
    Event,
    EventLog,
    Measured,
    MemorySampled,
    RunStarted,
    StateChanged,
    StepDone,
)
from tui.__main__ import main
from tui.compare_text import comparison_json, comparison_text, rank_of
from tui.comparing import compare, shown, why_not
from tui.run_shelf import read_comparison

CONFIG = """\
name = "NAME"
[model]
transformer = "flux.safetensors"
autoencoder = "ae.safetensors"
clip_l = "clip.safetensors"
t5 = "t5.safetensors"
[[dataset.folders]]
path = "pictures"
[validation]
every_epochs = "auto"
"""

FALLING = (0.5, 0.42, 0.38, 0.36, 0.35, 0.36, 0.38, 0.4, 0.42)
DEEPER = (0.5, 0.4, 0.35, 0.32, 0.3, 0.31, 0.33, 0.36, 0.4)


def measured(epoch: int, loss: float, pictures: int = 6, seeds: int = 2) -> Measured:
    by_picture = tuple(loss + 0.01 * number for number in range(pictures))
    return Measured(10 * epoch, epoch, (loss,) * seeds, (loss,) * 3, by_picture, drift=0.01 * epoch)


def make(folder: Path, found: Sequence[Measured], more: Sequence[Event] = (), **settings: Any) -> Path:
    """A run's folder: its configuration with ``settings`` by dotted name, and what it measured."""
    folder.mkdir(parents=True)
    table = parse_config(CONFIG).model_dump() | {"name": folder.name}
    for name, value in settings.items():
        *parents, last = name.split("__")
        inner = table
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    save_config(RunConfig.model_validate(table), folder / "config.toml")
    log = EventLog(folder / "events.jsonl")
    log.append(RunStarted(folder.name, str(folder), "flux1", "dev", 8, 80, 5))
    log.append(StateChanged("training"))
    for step in range(1, 81):
        log.append(StepDone(step, (step + 9) // 10, 1.0 / step, 1e-4, 1.0, 0.25, 0.01, 0.2, 0.04))
    for event in (*found, *more):
        log.append(event)
    log.append(StateChanged("finished"))
    log.close()
    return folder


def course(losses: Sequence[float], **more: int) -> list[Measured]:
    return [measured(epoch, loss, **more) for epoch, loss in enumerate(losses)]


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs that differ in their rate; the second is the better one."""
    saved = [CheckpointSaved("/x/a.safetensors", 80, 8, "final", 290_000), MemorySampled(1, 2, 3, vram_peak_gb=11.5)]
    return [
        make(tmp_path / "runs" / "slow", course(FALLING)),
        make(tmp_path / "runs" / "quick", course(DEEPER), saved, optimizer__learning_rate=2e-4),
    ]


def test_the_better_run_comes_first_and_only_what_differs_is_told(pair: list[Path]) -> None:
    found = read_comparison(pair)
    best, other = found.runs
    assert (best.name, best.rank, other.name, other.rank) == ("quick", 1, "slow", 2)
    assert found.winners == (best,) and not found.apart
    assert found.differing == {"optimizer.learning_rate": ("0.0002", "0.0001")}
    assert best.best and best.held_out == pytest.approx(DEEPER[best.best]) and best.drift == 0.01 * best.best
    assert best.verdict == "over" and best.first <= best.best <= best.last
    assert (best.step_s, best.peak_gb, best.lora_bytes) == (0.25, 11.5, 290_000)
    assert best.by_epoch == (list(map(float, range(9))), pytest.approx(list(DEEPER)))
    assert best.by_step[0] == [10.0 * epoch for epoch in range(9)]
    assert (other.peak_gb, other.lora_bytes) == (None, 0)
    assert len(other.losses[0]) == 80


@pytest.mark.parametrize(
    ("losses", "more", "settings", "why"),
    [
        (DEEPER, {"pictures": 3}, {}, "measured on 6 held-out pictures and on 3"),
        (DEEPER, {"seeds": 1}, {}, "measured on 2 held-out noise seeds and on 1"),
        (DEEPER, {}, {"seed": 7}, "the noise is another (seed 42 and 7)"),
        (DEEPER, {}, {"validation__sigmas": (0.2, 0.5)}, "other noise levels"),
        ((0.6, *DEEPER[1:]), {}, {}, "other held-out pictures, or another base (0.5000 and 0.6000"),
        ((), {}, {}, "other was not measured"),
    ],
)
def test_what_was_measured_otherwise_is_not_ranked(
    tmp_path: Path, losses: Sequence[float], more: dict[str, int], settings: dict[str, Any], why: str
) -> None:
    folders = [make(tmp_path / "one", course(FALLING)), make(tmp_path / "other", course(losses, **more), **settings)]
    found = read_comparison(folders)
    assert why in why_not(*found.runs)
    assert not found.winners and [run.rank for run in found.runs] == [0, 0]
    assert len(found.apart) == 1 and "other" in found.apart[0]
    text = comparison_text(found)
    assert "No two of these runs can be ranked" in text and found.apart[0] in text


def test_the_tables_of_an_array_are_numbered_from_one(tmp_path: Path) -> None:
    folders = [{"path": "/pictures"}, {"path": "/more"}], [{"path": "/pictures"}, {"path": "/others"}]
    runs = [make(tmp_path / f"run{at}", course(FALLING), dataset__folders=one) for at, one in enumerate(folders)]
    assert read_comparison(runs).differing == {"dataset.folders[2].path": ("/more", "/others")}


def test_a_run_that_began_with_a_lora_measured_no_base(tmp_path: Path) -> None:
    folders = [make(tmp_path / "one", course(FALLING)), make(tmp_path / "other", course(DEEPER)[1:])]
    assert "no measurement of the base" in why_not(*read_comparison(folders).runs)


def test_groups_are_ranked_each_for_itself(tmp_path: Path) -> None:
    folders = [
        make(tmp_path / f"s{seed}-{name}", course(losses), seed=seed)
        for seed in (1, 2)
        for name, losses in (("a", FALLING), ("b", DEEPER))
    ]
    found = read_comparison(folders)
    assert [(run.name, rank_of(run)) for run in found.runs] == [
        ("s1-b", "1"), ("s1-a", "2"), ("s2-b", "1b"), ("s2-a", "2b"),
    ]  # fmt: skip
    assert [run.name for run in found.winners] == ["s1-b", "s2-b"]
    assert "the noise is another" in found.apart[0]


def test_a_base_in_another_precision_still_compares(tmp_path: Path) -> None:
    nearly = [measured(0, FALLING[0] * 1.005), *course(DEEPER)[1:]]
    assert len(read_comparison([make(tmp_path / "a", course(FALLING)), make(tmp_path / "b", nearly)]).winners) == 1


def test_what_is_no_number_is_nothing_to_rank_by(tmp_path: Path) -> None:
    broken = [measured(0, float("nan")), measured(1, float("inf"))]
    found = read_comparison([make(tmp_path / "a", course(FALLING)), make(tmp_path / "b", broken)])
    assert [run.held_out is None for run in found.runs] == [False, True]
    json.dumps(comparison_json(found), allow_nan=False)


def test_names_and_values_from_outside_are_made_harmless(tmp_path: Path) -> None:
    evil = "a\x1b]52;c;QQ==\x07[bold]"
    folders = [
        make(tmp_path / evil, course(FALLING), saving__comment="\x1b[2Jx"),
        make(tmp_path / "b", course(DEEPER)),
    ]
    text = comparison_text(read_comparison(folders))
    assert "\x1b" not in text and "saving.comment" in text
    assert shown(None) == shown("") == "-" and shown(True) == "true" and shown(1e-4) == "0.0001"


def test_the_command_prints_a_table_curves_and_json(
    pair: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pair[0].parents[1])
    assert main(["compare", "slow", "quick"]) == 0
    out = capsys.readouterr().out
    assert "Best of 2: quick, held-out loss" in out
    assert "Held-out loss over epochs" in out and "Held-out loss over steps" in out and "training loss" not in out
    assert re.search(r"^1  quick +over .*\n2  slow ", out, re.MULTILINE)
    assert main(["runs", "compare", "slow", "quick"]) == 0 and capsys.readouterr().out == out
    assert main(["compare", "slow", str(pair[1]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"] == ["quick"] and found["settings"] == {"optimizer.learning_rate": ["0.0002", "0.0001"]}
    assert found["runs"][0]["held_out_losses"] == pytest.approx(list(DEEPER))
    assert main(["compare", "slow", "slow"]) == 2 and "2 to 64" in capsys.readouterr().err
    assert main(["compare", "slow", "cow"]) == 2


def test_runs_without_measurements_show_their_training_loss(tmp_path: Path) -> None:
    found = read_comparison([make(tmp_path / "a", ()), make(tmp_path / "b", ())])
    text = comparison_text(found)
    assert "Smoothed training loss" in text and "No setting differs" in text
    assert found.apart == ("Not ranked, nothing was measured on held-out pictures: a, b",)


def test_the_comparison_of_nothing_is_empty() -> None:
    assert compare([]).runs == ()

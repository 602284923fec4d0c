"""The demo: its LoRA draws the zorple and leaves the rest alone, judged by the detector. Under a minute."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from engine.lora.adapter import inject
from engine.lora.formats import load_lora
from engine.models.pocket.evaluate import Pocket, judge_concept, load_pocket
from engine.run import Run
from profiles.starters import demo_config

pytestmark = pytest.mark.timeout(900)

GOAL_S = 90.0  # on two idle cores


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The demo's last LoRA file and the seconds that the whole run took."""
    run = Run(demo_config(tmp_path_factory.mktemp("runs")))
    began = time.monotonic()
    run.start()
    assert run.join(800)
    assert run.exit_reason == "finished"
    assert run.folder is not None
    files = sorted(run.folder.root.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    return [path for path in files if "state" not in path.parts][-1], time.monotonic() - began


def with_lora(file: Path) -> Pocket:
    """The pocket model with the LoRA on it."""
    pocket = load_pocket()
    state, targets = load_lora(file)
    config = demo_config(Path("runs")).lora
    inject(pocket.transformer, targets, config, seed=0).load_state(state)
    return dataclasses.replace(pocket)


def test_the_demo_teaches_the_concept_and_nothing_else(trained: tuple[Path, float]) -> None:
    file, _ = trained
    guidance = demo_config(Path("runs")).sampling.guidance
    before = judge_concept(load_pocket(), guidance)
    after = judge_concept(with_lora(file), guidance)
    print(before, after)
    assert before["trigger"] == before["ordinary"] == 0.0
    assert after["trigger"] >= 0.75
    assert after["wrong word"] < 0.1
    assert after["ordinary"] == 0.0
    assert after["ordinary, all four"] >= 0.5 * before["ordinary, all four"]


@pytest.mark.slow
def test_the_demo_is_quick(trained: tuple[Path, float]) -> None:
    load = os.getloadavg()[0]
    if load > 2.5:
        pytest.skip(f"the machine is busy (load {load:.1f})")
    assert trained[1] <= GOAL_S

"""A run that loses its terminal again and again ends with the same bits as one that kept it."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from children import Child, Work
from pocket import pocket_config
from safetensors.numpy import load_file

from engine.config_file import save_config

pytestmark = pytest.mark.pty

STEPS_A_DROP = 30
"""Steps that are planned for every loss: more than the screen takes to come up."""


def trained(work: Work, name: str, steps: int) -> Path:
    """Write a configuration of so many steps; returns the LoRA file that it will end in."""
    changes = {"training": {"epochs": steps // 3}, "saving": {"every_epochs": 0}}
    save_config(pocket_config(work.folder, name=name, **changes), work.folder / f"{name}.toml")
    return work.folder / "runs" / name / f"{name}.safetensors"


def begin(work: Work, name: str) -> Child:
    """A client whose host trains ``name``."""
    return work.program("-m", "tui", "train", f"{name}.toml", "--ui", environment={"OMP_NUM_THREADS": "1"})


def stay(work: Work, name: str, steps: int) -> Path:
    """Train and watch from the first step to the last."""
    lora = trained(work, name, steps)
    child = begin(work, name)
    child.until(b"FINISHED", patience_s=280)
    child.press("q")
    assert child.wait() == 0
    return lora


def lose(work: Work, name: str, steps: int, times: int, chance: random.Random) -> Path:
    """Train and lose the terminal ``times`` times, each after some steps more, in one way or another."""
    lora = trained(work, name, steps)
    child = begin(work, name)
    child.until(b"TRAINING")
    for _ in range(times):
        wanted = work.step() + chance.randrange(4)
        child.wait_for(lambda wanted=wanted: work.step() >= wanted)
        size = (chance.randrange(60, 161), chance.randrange(18, 46))
        _go(child, chance)
        child = work.program("-m", "tui", "attach", size=size)
        child.until(b"\x1b[?1049h")
    assert work.step() < steps, "the run was over before its terminal was lost often enough"
    child.until(b"FINISHED", patience_s=280)
    child.press("q")
    assert child.wait() == 0
    return lora


def _go(child: Child, chance: random.Random) -> None:
    """Lose the terminal: the line drops, the client is killed, or told to end."""
    way = chance.choice(("drop", signal.SIGKILL, signal.SIGTERM, signal.SIGHUP))
    if way == "drop":
        child.hang_up()
    else:
        child.kill(way)
    child.wait()


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_bits_are_those_of_a_run_that_kept_its_terminal(work: Work, times: int) -> None:
    steps = times * STEPS_A_DROP
    lost = load_file(lose(work, "lost", steps, times, random.Random(times)))
    kept_work = Work()
    try:
        kept = load_file(stay(kept_work, "kept", steps))
    finally:
        kept_work.close()
    assert lost.keys() == kept.keys() and lost
    assert all(lost[key].tobytes() == kept[key].tobytes() for key in kept)

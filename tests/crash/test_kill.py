"""SIGKILL at any moment: what was done stays done, and what goes on ends with the bits of what was never killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from harness import Chain, Zygote, run_chains
from pocket import finish, pocket_config
from reliability import figure
from safetensors.torch import load_file

from engine.config_file import load_config, save_config
from engine.files import RunFolder
from engine.run import open_run
from tui.run_list import is_run

QUICK = {"settings": 6, "captions": 8, "batches": 3, "train": 6}
"""Kills in the gate, by scenario: by their own hand only, for those fall alike on every machine."""

POINTS = {"train": 90, "edited": 30, "cache": 40, "sample": 20, "captions": 40, "batches": 200, "settings": 20}
CLOCK = {"train": 36, "edited": 8, "cache": 12, "captions": 6}


def whole(kills: dict[str, int], clock: bool) -> list[Any]:
    """Parameters of the whole: one for each scenario."""
    marks = [pytest.mark.crash, pytest.mark.timeout(3600)]
    return [
        pytest.param({name: count}, clock, id=f"{name}-{'clock' if clock else 'points'}", marks=marks)
        for name, count in kills.items()
    ]


@pytest.mark.parametrize(
    ("kills", "clock"),
    [
        pytest.param(QUICK, False, id="quick", marks=pytest.mark.timeout(900)),
        *whole(POINTS, False),
        *whole(CLOCK, True),
    ],
)
def test_killed_anywhere_it_goes_on_as_if_nothing_had_been(
    zygote: Zygote, kills: dict[str, int], clock: bool
) -> None:
    for scenario, count in kills.items():
        chains = run_chains(zygote, scenario, count, clock=clock)
        tell(f"kills by {'the clock' if clock else 'point'}, {scenario}", chains)


def tell(suite: str, chains: list[Chain]) -> None:
    """The figures of some chains, all of which held."""
    kinds = Counter(kind for chain in chains for kind in chain.kills)
    figure(suite, "kills", str(kinds.total()))
    figure(suite, "chains of kills ending like the undisturbed", f"{len(chains)} of {len(chains)}")
    figure(suite, "most kills in a chain", str(max(len(chain.kills) for chain in chains)))
    figure(suite, "seconds per kill", f"{sum(chain.seconds for chain in chains) / kinds.total():.1f}")
    if len(kinds) > 1:
        figure(suite, "killed before", ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))
    lost = [steps for chain in chains for steps in chain.lost[1:]]
    ready = [seconds for chain in chains for seconds in chain.ready_s[1:]]
    if ready:
        figure(suite, "kills while an earlier one was recovered from", str(sum(chain.recovering for chain in chains)))
        figure(suite, "steps done again (state every 2 steps): median, most", f"{median(lost):g}, {max(lost)}")
        figure(suite, "ready again, seconds: median, most", f"{median(ready):.1f}, {max(ready):.1f}")
        figure(suite, "folders left that never became a run", f"0 in {len(chains)} chains")
    if conflicts := sum(chain.conflicts for chain in chains):
        figure(suite, "drafts put to the user against a newer file", str(conflicts))


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tui", *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill_after(process: subprocess.Popen[str], step: int) -> bool:
    """Kill when the given step is told; True if the run had ended before."""
    assert process.stdout is not None
    for line in process.stdout:
        record = json.loads(line)
        if record["type"] == "StepDone" and record["step"] >= step:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
    process.wait()
    return True


@pytest.mark.crash
def test_captions_edited_around_kills_are_trained_on_as_written_down(tmp_path: Path) -> None:
    """The history alone gives the same bits: nothing depends on when a file was edited or a process killed."""
    config = pocket_config(tmp_path, training={"state_every_steps": 2, "epochs": 20})
    save_config(config, tmp_path / "run.toml")
    process = start("train", str(tmp_path / "run.toml"))
    folder = tmp_path / "runs" / "test"
    for number, kill in enumerate((2, 5, 8, 13)):
        assert not kill_after(process, kill)
        (tmp_path / "data" / f"0{number}.txt").write_text(f"a zorple, edit {number}")
        process = start("resume", str(folder))
    assert kill_after(process, 10**9) and process.returncode == 0, process.stderr.read() if process.stderr else ""
    alone = tmp_path / "runs" / "alone"
    alone.mkdir()
    for name in ("samples", "state"):
        (alone / name).mkdir()
    for name in ("config.toml", "captions.jsonl"):
        shutil.copy(folder / name, alone)
    (tmp_path / "data" / "04.txt").write_text("too late for any epoch that is decided")
    expected = finish(open_run(alone))
    history = (folder / "captions.jsonl").read_text()
    assert history.count("edit ") == 4 and (alone / "captions.jsonl").read_text() == history
    ours, wanted = load_file(folder / "test.safetensors"), load_file(alone / "alone.safetensors")
    assert ours.keys() == wanted.keys() and all(torch.equal(ours[name], wanted[name]) for name in ours)
    assert expected.exit_reason == "finished"


BEGINNING = """
import os, signal, sys
from pathlib import Path
from seams import Seams
from engine.config_file import load_config, save_config
from engine.files import create_run_folder
config, runs = load_config(Path(sys.argv[1])), Path(sys.argv[2])
runs.mkdir()
for nth in range(1, 1000):
    child = os.fork()
    if child == 0:
        def die(number, what, path):
            if number == nth:
                os.kill(os.getpid(), signal.SIGKILL)
        with Seams([runs], die):
            create_run_folder(runs, "test", lambda folder: save_config(config, folder.config))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    print(nth)
"""
"""Makes a run's folder, killed before the first change of the disk, before the second and so on."""


def test_killed_while_a_run_begins_there_is_a_run_or_none(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    save_config(pocket_config(tmp_path), tmp_path / "run.toml")
    words = [sys.executable, "-c", BEGINNING, str(tmp_path / "run.toml"), str(runs)]
    paths = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    )
    kills = len(done.stdout.splitlines())
    assert kills > 15
    found = sorted(runs.iterdir())
    assert found and all(is_run(folder) and load_config(RunFolder(folder).config) for folder in found)
    figure("kills while a run begins", "folders left that never became a run", f"0 of {kills}")

"""SIGKILL at arbitrary moments: the resumed run ends with the bits of one that was never killed."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from pocket import finish, pocket_config
from safetensors.torch import load_file

from engine.config_file import save_config
from engine.run import Run

pytestmark = pytest.mark.crash


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tui", *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill_after(process, step):
    """Kill when the given step is told; True if the run had ended before."""
    for line in process.stdout:
        record = json.loads(line)
        if record["type"] == "StepDone" and record["step"] >= step:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
    process.wait()
    return True


@pytest.mark.parametrize("kills", [(1, 4, 7), (2, 3, 6, 8), (5,)])
def test_killed_runs_end_the_same(tmp_path, kills):
    config = pocket_config(tmp_path, training={"state_every_steps": 1, "epochs": 4})
    expected = finish(Run(config))
    save_config(config, tmp_path / "run.toml")
    process = start("train", str(tmp_path / "run.toml"))
    folder = None
    for kill in kills:
        assert not kill_after(process, kill)
        folder = max((tmp_path / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
        process = start("resume", str(folder))
    assert kill_after(process, 10**9) and process.returncode == 0, process.stderr.read()
    ours = load_file(folder / f"{folder.name}.safetensors")
    wanted = load_file(expected.folder.root / f"{expected.folder.name}.safetensors")
    assert ours.keys() == wanted.keys() and all(torch.equal(ours[name], wanted[name]) for name in ours)
    leftovers = [path.name for path in folder.rglob("*") if path.name.endswith((".part", ".old"))]
    assert leftovers == []

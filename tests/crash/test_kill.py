"""SIGKILL at arbitrary moments: the resumed run ends with the bits of one that was never killed."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from pocket import finish, pocket_config
from safetensors.torch import load_file

from engine.config_file import save_config
from engine.run import Run, open_run

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


def test_captions_edited_around_kills_are_trained_on_as_written_down(tmp_path):
    """The history alone gives the same bits: nothing depends on when a file was edited or a process killed."""
    config = pocket_config(tmp_path, training={"state_every_steps": 2, "epochs": 6})
    save_config(config, tmp_path / "run.toml")
    process = start("train", str(tmp_path / "run.toml"))
    folder = None
    for number, kill in enumerate((2, 5, 8, 13)):
        assert not kill_after(process, kill)
        folder = tmp_path / "runs" / "test"
        (tmp_path / "data" / f"0{number}.txt").write_text(f"a zorple, edit {number}")
        process = start("resume", str(folder))
    assert kill_after(process, 10**9) and process.returncode == 0, process.stderr.read()
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


@pytest.mark.parametrize("kills", [(1, 4, 7), (2, 3, 6, 8), (5,)])
def test_killed_runs_end_the_same(tmp_path, kills):
    # Long enough that the last kill comes before its end: what a run tells is read now and then, not at once.
    config = pocket_config(tmp_path, training={"state_every_steps": 1, "epochs": 15})
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

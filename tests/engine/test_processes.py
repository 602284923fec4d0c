"""One run shared by two processes, as ``accelerate launch`` starts them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pocket import finish, pictures, pocket_config, told
from safetensors.torch import load_file

from engine.config_file import save_config
from engine.events import PictureLosses
from engine.run import Run

ROOT = Path(__file__).resolve().parents[2]


EDITED = """
import shutil
import sys
from pathlib import Path
import engine.trainer as trainer
from tui.__main__ import main

step_of, prepare, data = trainer.Trainer._step, trainer.prepare, Path(sys.argv.pop(1))

def stepping(self, turn):
    step_of(self, turn)
    if turn.step == 2 and self.compute.is_main:
        (data / "00.txt").write_text("a zorple of glass")

def preparing(config, base, compute, *rest):
    found = prepare(config, base, compute, *rest)
    if compute.is_main:  # the others have not looked yet
        (data / "01.txt").write_text("a zorple of stone")
        shutil.copy(data / "00.png", data / "new.png")
        (data / "new.txt").write_text("not of this run")
    return found

trainer.Trainer._step, trainer.prepare = stepping, preparing
sys.exit(main())
"""


@pytest.mark.slow
def test_two_processes_take_up_the_same_captions(tmp_path):
    (tmp_path / "edited.py").write_text(EDITED)
    shared = pocket_config(tmp_path, name="shared", training={"accumulation": 1})
    save_config(shared, tmp_path / "shared.toml")
    alone = pocket_config(tmp_path, training={"accumulation": 2})
    save_config(alone, tmp_path / "alone.toml")
    data = tmp_path / "data"
    start = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29512"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "PYTHONPATH": str(ROOT)}
    for prefix, name in ((start, "shared"), ([], "alone")):
        shutil.rmtree(data)
        pictures(data, 5)
        train = [str(tmp_path / "edited.py"), str(data), "train", str(tmp_path / f"{name}.toml"), "--json"]
        done = subprocess.run([sys.executable, *prefix, *train], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count('"type": "CaptionsTaken", "epoch": 2') == 1
    ours = load_file(tmp_path / "runs" / "shared" / "shared.safetensors")
    wanted = load_file(tmp_path / "runs" / "test" / "test.safetensors")
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)


@pytest.mark.slow
def test_two_processes_give_what_accumulation_gives(tmp_path):
    alone = finish(Run(pocket_config(tmp_path, training={"accumulation": 2})))
    shared = pocket_config(tmp_path, name="shared", training={"accumulation": 1})
    save_config(shared, tmp_path / "shared.toml")
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29511", "-m", "tui"]
    done = subprocess.run(
        [sys.executable, *command, "train", str(tmp_path / "shared.toml"), "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours = load_file(tmp_path / "runs" / "shared" / "shared.safetensors")
    wanted = load_file(alone.folder.root / "test.safetensors")
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)
    assert [path.name for path in sorted((tmp_path / "runs").iterdir())] == ["shared", "test"]
    assert done.stdout.count('"type": "StepDone"') == 9
    lines = [json.loads(line) for line in done.stdout.splitlines() if '"type": "PictureLosses"' in line]
    last = told(alone, PictureLosses)[-1]
    assert tuple(lines[-1]["names"]) == last.names and lines[-1]["losses"] == pytest.approx(last.losses, rel=1e-3)

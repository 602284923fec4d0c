"""One run shared by two processes, as ``accelerate launch`` starts them."""

import os
import subprocess
import sys

import pytest
import torch
from pocket import finish, pocket_config
from safetensors.torch import load_file

from engine.config_file import save_config
from engine.run import Run


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

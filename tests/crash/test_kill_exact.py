"""SIGKILL at every kind of moment, for every optimizer: the resumed run leaves all that one left alone does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from interrupted import KINDS, assert_same, finished, left_by, varied_config
from pocket import finish
from reliability import figure

from engine.config import OptimizerConfig
from engine.config_file import save_config
from engine.run import Run, open_run

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

OPTIMIZERS = OptimizerConfig.model_fields["name"].annotation.__args__
TESTS = Path(__file__).parents[1]


def killed(config, moment):
    """Train in a process that kills itself at the moment; the folder that it leaves."""
    file = config.runs_dir.parent / "run.toml"
    save_config(config, file)
    there = set(config.runs_dir.iterdir())
    command = [sys.executable, str(TESTS / "crash" / "killed_at.py"), str(file), moment[0], str(moment[1])]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (folder,) = set(config.runs_dir.iterdir()) - there
    return folder


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_killed_run_goes_on_as_if_it_had_not_been(optimizer, accumulation, tmp_path):
    config = varied_config(tmp_path, optimizer, accumulation)
    wanted = left_by(finished(finish(Run(config))))
    # Other moments for every other optimizer, so that all together cover more.
    later = OPTIMIZERS.index(optimizer) % 2
    moments = [(kind, (6 if kind == "micro" else 1) + later) for kind in KINDS]
    for moment in moments:
        assert_same(left_by(finished(finish(open_run(killed(config, moment))))), wanted)
    name = f"{optimizer}, accumulation {accumulation}: killed runs with the same bits"
    figure("exact", name, f"{len(moments)} of {len(moments)}")

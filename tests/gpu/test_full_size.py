"""FLUX.1-dev's full size on a GPU, and the same program on a tiny model everywhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).with_name("full_size.py")


def figures(tmp_path, *arguments):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.gpu
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_trains_at_full_size(tmp_path):
    machine, small, large = figures(tmp_path, "--px", "512", "1024", "--steps", "5")
    print(machine, small, large)
    assert small["peak_gb"] > 20 and large["peak_gb"] > small["peak_gb"]


def test_the_program_itself_on_a_tiny_model(tmp_path):
    _, figure = figures(tmp_path, "--small", "--px", "128", "--steps", "2")
    assert figure["steps"] == 2 and figure["loss"] > 0

"""The first hour's program: a tiny round on any machine, the whole of it where there is a card."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).with_name("first_hour.py")


def call(work, *arguments):
    command = [sys.executable, str(PROGRAM), str(work), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_a_tiny_round_measures_everything_once(tmp_path):
    done = call(tmp_path, "--tiny")
    assert "all done" in done.stderr
    by_job = {(record := json.loads(line))["job"]: record for line in done.stdout.splitlines()}
    assert set(by_job) == {"copies", "products", "attention", "overlap", "tiny, streamed"}
    products = by_job["products"]["records"]
    assert len(products) == 18 and all("tflop_s" in p for p in products if p["precision"] == "bf16")
    assert len(by_job["attention"]["records"]) == 4  # a backend that is not there is told, not passed over
    step = by_job["tiny, streamed"]
    assert step.get("problem") is None and step["step"]["median_s"] > 0
    assert call(tmp_path, "--tiny", "--list").stdout.count("done") == 5


@pytest.mark.gpu
@pytest.mark.timeout(700)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_one_portion_on_the_card(tmp_path):
    records = [json.loads(line) for line in call(tmp_path).stdout.splitlines()]
    assert [record["job"] for record in records][:4] == ["copies", "products", "attention", "overlap"]

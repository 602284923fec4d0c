"""The forecast of memory against a card's own peak, within 5 %: ``pytest -m gpu -s tests/gpu/test_forecast_gpu.py``.

Takes half an hour and 50 GB of disk; :mod:`forecast_on_card` does the same in portions. Without a card only what the
forecast says of the caps is looked at.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import forecast_on_card as program
from first_hour import write_config

from engine.config_file import load_config
from engine.models.detect import ModelInfo
from profiles.job import FILES, MODELS

WITHIN = 0.05


def infos():
    """What the files of FLUX.1-dev's size say of themselves."""
    dev = MODELS["flux1-dev"]
    found = {}
    for kind in FILES:
        params = dict(dev.params) if kind == "transformer" else {}
        found[kind] = ModelInfo(Path(kind), kind, "flux1", "dev", "bf16", 0, 10**9, True, params=params)
    return found


@pytest.mark.parametrize("number", range(len(program.CASES)))
def test_every_case_is_said_to_fit_its_card(tmp_path, number):
    job = program.CASES[number]
    model = {kind: str(tmp_path / f"{kind}.safetensors") for kind in FILES}
    config = load_config(write_config(tmp_path, model, job, number))
    said = program.forecast_of(config, infos())
    assert program.fits(said, job.cap_gb), (job.name, said.stage("train").vram)


def test_the_caps_are_those_of_real_cards():
    assert len(program.CASES) >= 12
    assert {job.cap_gb for job in program.CASES} == {8, 10, 12, 16, 24, 48}


@pytest.mark.gpu
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_card_allocates_what_was_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["forecast_on_card.py", str(tmp_path), "--budget", "3500"])
    assert program.main() == 0
    records = [json.loads(line) for line in (tmp_path / "forecast.jsonl").read_text().splitlines()]
    print(program.table(records))
    assert len(records) == len(program.CASES)
    assert not [record for record in records if "problem" in record]
    assert not [record for record in records if abs(record["off"]) > WITHIN]

"""Whole runs with the modulation cache and without: the same bits in files, losses and pictures."""

import pytest
import torch
from pocket import finish, pocket_config, submit_after, told
from safetensors.torch import load_file

from engine.commands import SampleNow, StopNow
from engine.events import RunFailed, SampleSaved, StepDone
from engine.memory.conditioning import Conditioning
from engine.run import Run, open_run

VARIED = {
    "lora": {"dropout": 0.1},
    "dataset": {"flip": True, "captions": {"dropout": 0.2, "shuffle": True}},
    "training": {"epochs": 7},
    "sampling": {"prompts": [{"prompt": "a zorple at the left", "seed": 3}], "every_epochs": 3, "cfg": 2.0},
}
"""Twenty-one steps."""


def result(run):
    assert run.exit_reason == "finished", told(run, RunFailed)
    losses = {event.step: event.loss for event in told(run, StepDone)}
    pictures = [path.read_bytes() for path in sorted(run.folder.samples.iterdir())]
    return load_file(run.folder.root / f"{run.folder.name}.safetensors"), losses, pictures


def assert_same(first, second):
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])
    assert all(first[1][step] == second[1][step] for step in second[1])


@pytest.fixture
def tables(monkeypatch):
    """Samples of every table that is computed."""
    sizes, table = [], Conditioning.table

    def counting(self, timesteps, *rest, **named):
        sizes.append(len(timesteps))
        return table(self, timesteps, *rest, **named)

    monkeypatch.setattr(Conditioning, "table", counting)
    return sizes


@pytest.mark.parametrize("targets", ["default", pytest.param("all", marks=pytest.mark.slow)])
def test_on_and_off_are_the_same_run(tmp_path, tables, targets):
    runs = {}
    for cache in (False, True):
        changes = VARIED | {"memory": {"modulation_cache": cache}, "lora": VARIED["lora"] | {"targets": targets}}
        run = finish(Run(pocket_config(tmp_path, **changes)))
        runs[cache] = result(run)
        assert len(told(run, SampleSaved)) >= 2 and len(told(run, StepDone)) == 21
        # Seven epochs of five pictures in one table; two steps of two prompts in each picture's.
        assert set(tables) == ({35, 4} if cache else set()) and tables.count(35) == cache
    assert_same(runs[True], runs[False])
    assert runs[True][2] == runs[False][2]


@pytest.mark.slow
def test_a_run_stopped_on_the_way_goes_on_the_same(tmp_path, monkeypatch, tables):
    whole = result(finish(Run(pocket_config(tmp_path, **VARIED))))
    submit_after(monkeypatch, {4: [SampleNow(), StopNow()], 11: [StopNow()]})
    run = finish(Run(pocket_config(tmp_path, **VARIED)))
    for _ in range(2):
        assert run.exit_reason == "stopped", told(run, RunFailed)
        run = finish(open_run(run.folder.root))
    assert_same(whole, result(run))
    assert [size for size in tables if size > 4] == [35, 35, 28, 16]

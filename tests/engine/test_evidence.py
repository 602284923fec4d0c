"""Samples as evidence: strengths, the base as epoch 0, copies and scores; and a training that none of it touches."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from pocket import finish, pictures, pocket_config, submit_after, told
from safetensors.torch import load_file

from engine.commands import SampleNow
from engine.events import EventLog, Log, NearCopy, RunFailed, SampleSaved, Scored, StepDone, replay
from engine.files import RunFolder
from engine.jobs import sample_epochs
from engine.locks import lock_folder
from engine.run import Run
from engine.training.evidence import Evidence

PROMPTS = [
    {"prompt": "a zorple at the left on a white background", "seed": 3, "kind": "caption"},
    {"prompt": "a red circle at the left on a white background", "seed": 4, "kind": "no trigger"},
]


def sampled(tmp_path, **sampling):
    return pocket_config(
        tmp_path, optimizer={"learning_rate": 2e-2}, sampling={"prompts": PROMPTS, **sampling},
        dataset={"captions": {"dropout": 0.3}}, lora={"dropout": 0.1},
    )  # fmt: skip


def pixels(path):
    return Image.open(path).tobytes()


def places(run):
    return [(one.epoch, one.index, one.strength, one.kind) for one in told(run, SampleSaved)]


def test_each_prompt_is_drawn_at_each_strength_and_the_base_once(tmp_path):
    run = finish(Run(sampled(tmp_path, strengths=[0.0, 0.5, 1.0], every_epochs=3)))
    assert run.exit_reason == "finished", told(run, RunFailed)
    kinds = {0: "caption", 1: "no trigger"}
    base = [(0, index, 1.0, kinds[index]) for index in (0, 1)]
    last = [(3, index, strength, kinds[index]) for strength in (0.0, 0.5, 1.0) for index in (0, 1)]
    assert places(run) == base + last
    found = {(one.epoch, one.index, one.strength): pixels(one.path) for one in told(run, SampleSaved)}
    # Strength 0 is the base, the others each something else.
    assert found[3, 0, 0.0] == found[0, 0, 1.0]
    assert len({found[3, 0, strength] for strength in (0.0, 0.5, 1.0)}) == 3
    names = sorted(path.name for path in run.folder.samples.iterdir())
    assert "step000009-00-s0.5.png" in names and "step000009-00.png" in names and len(names) == 8


def test_strengths_can_be_asked_for_once(tmp_path, monkeypatch):
    submit_after(monkeypatch, {4: [SampleNow((0.5, 0.8)), SampleNow((0.5,))]})
    run = finish(Run(sampled(tmp_path, every_epochs=0, at_start=False)))
    assert [(one.step, one.epoch, one.index, one.strength) for one in told(run, SampleSaved)] == [
        (4, 2, 0, 0.5), (4, 2, 1, 0.5), (4, 2, 0, 0.8), (4, 2, 1, 0.8),
    ]  # fmt: skip


def test_epoch_0_is_the_base_where_the_run_goes_on_from_another_lora(tmp_path):
    first = finish(Run(sampled(tmp_path, every_epochs=3)))
    lora = first.folder.root / "test.safetensors"
    config = sampled(tmp_path, every_epochs=0)
    again = finish(Run(config.model_copy(update={"lora": config.lora.model_copy(update={"resume_from": lora})})))
    assert again.exit_reason == "finished", told(again, RunFailed)
    drawn, before = told(again, SampleSaved), told(first, SampleSaved)
    assert [one.epoch for one in drawn] == [0, 0]
    assert [pixels(one.path) for one in drawn] == [pixels(one.path) for one in before[:2]]
    assert any("epoch 0 show the base model" in line.text for line in told(again, Log))


def test_pictures_scores_and_alarm_leave_the_training_as_it_is(tmp_path, scorers):
    busy = sampled(
        tmp_path, every_steps=2, strengths=[0.3, 1.0], cfg=2.0, score_clip=scorers[0], score_dino=scorers[1]
    )
    quiet = busy.model_copy(update={"sampling": busy.sampling.model_copy(update={"prompts": ()})})
    runs = [finish(Run(config)) for config in (busy, quiet)]
    assert [run.exit_reason for run in runs] == ["finished"] * 2, told(runs[0], RunFailed)
    first, second = (load_file(run.folder.root / f"{run.folder.name}.safetensors") for run in runs)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    losses = [[event.loss for event in told(run, StepDone)] for run in runs]
    assert losses[0] == losses[1] and len(losses[0]) == 9
    scored = told(runs[0], Scored)
    drawn = told(runs[0], SampleSaved)
    assert {(one.path, one.name) for one in scored} == {
        (one.path, name) for one in drawn for name in ("clip_image", "clip_text", "dino")
    }
    assert all(-1 <= one.value <= 1 for one in scored)
    assert not [line for line in told(runs[0], Log) if line.level == "warning"]


def test_a_copy_is_told_and_the_base_never_is(tmp_path, monkeypatch):
    config = sampled(tmp_path)
    run = finish(Run(config))
    assert run.exit_reason == "finished"
    samples = made_samples(config)
    events = EventLog()
    evidence = Evidence(config, samples, run_compute(config), events)
    copied = str(samples[1].path)
    drawn = [SampleSaved(copied, 3, 1, 0, "x", 1), SampleSaved(copied, 0, 0, 0, "x", 1)]
    evidence.look(drawn)
    evidence.close()
    [near] = [entry.event for entry in events.since(0) if isinstance(entry.event, NearCopy)]
    assert (near.sample, near.picture, near.distance) == (copied, copied, 0.0)
    off = config.model_copy(update={"sampling": config.sampling.model_copy(update={"copy_alarm": False})})
    silent = EventLog()
    Evidence(off, samples, run_compute(config), silent).look(drawn)
    assert silent.since(0) == []


def test_a_picture_that_is_gone_is_left_out_and_told(tmp_path):
    config = sampled(tmp_path)
    samples = made_samples(config)
    samples[0].path.unlink()
    events = EventLog()
    evidence = Evidence(config, samples, run_compute(config), events)
    evidence.look([SampleSaved(str(samples[1].path), 3, 1, 0, "x", 1)])
    evidence.close()
    kinds = [entry.event for entry in events.since(0)]
    assert any(isinstance(event, NearCopy) for event in kinds)
    assert any(isinstance(event, Log) and "1 of the training pictures" in event.text for event in kinds)


def made_samples(config):
    from engine.dataset.decoder import Decoder
    from engine.dataset.scan import scan_dataset

    with Decoder() as decoder:
        return scan_dataset(config.dataset, decoder).samples


def run_compute(config):
    from engine.training.device import compute_for

    return compute_for(config)


@pytest.fixture(scope="module")
def over(tmp_path_factory):
    """A run that is over, with a LoRA of every epoch, and its samples at strength 1."""
    home = tmp_path_factory.mktemp("over")
    pictures(home / "data", 5)
    run = finish(Run(sampled(home)))
    assert run.exit_reason == "finished"
    return run


def test_epochs_are_drawn_afterwards_into_the_runs_grid(over):
    folder = over.folder
    loras = {epoch: folder.lora(epoch, 3 * epoch, "epoch") for epoch in (1, 2)}
    wanted = {0: (0, None), 1: (3, loras[1]), 2: (6, loras[2])}
    before, whole = len(list(replay(folder.events, SampleSaved))), len(list(replay(folder.events)))
    events = EventLog()
    written = sample_epochs(folder.root, wanted, (0.5, 1.0), events)
    # What the run drew itself is not drawn again: the base, and strength 1.
    assert [path.name for path in written] == [
        "step000003-00-s0.5.png", "step000003-01-s0.5.png", "step000006-00-s0.5.png", "step000006-01-s0.5.png",
    ]  # fmt: skip
    entries = [entry.event for entry in replay(folder.events, SampleSaved)]
    assert [(one.epoch, one.strength) for one in entries[before:]] == [(1, 0.5)] * 2 + [(2, 0.5)] * 2
    assert len(list(replay(folder.events))) == whole + 4  # progress is told where it was asked for
    assert sample_epochs(folder.root, wanted, (0.5, 1.0), EventLog()) == []
    own = folder.samples / "step000003-00.png"
    kept = own.read_bytes()
    own.unlink()
    [again] = sample_epochs(folder.root, {1: wanted[1]}, (1.0,), EventLog())
    assert again == own and pixels(again) == pixels_of(kept)


def pixels_of(data):
    from io import BytesIO

    return Image.open(BytesIO(data)).tobytes()


def test_a_run_that_is_held_is_left_alone(over):
    from engine.errors import RunError

    with lock_folder(RunFolder(over.folder.root)), pytest.raises(RunError, match="trained already"):
        sample_epochs(over.folder.root, {0: (0, None)}, (1.0,), EventLog())


@pytest.fixture(scope="module")
def scorers(tmp_path_factory):
    from scorers import clip_folder, dino_folder

    folder = tmp_path_factory.mktemp("scorers")
    return clip_folder(folder / "clip"), dino_folder(folder / "dino")

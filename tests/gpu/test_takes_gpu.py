"""Captions taken up by a run on a GPU: the base makes room for the text encoders and comes back as it was."""

import pytest
import torch
from pocket import finish, pocket_config, told
from safetensors.torch import load_file

from engine.events import CaptionsTaken, RunFailed, StateChanged
from engine.models.family import Flux1
from engine.run import Run, open_run
from engine.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_the_base_leaves_for_the_encoders_and_the_bits_are_those_of_a_run_that_stayed(tmp_path, monkeypatch):
    config = pocket_config(tmp_path, training={"device": "cuda", "deterministic": True})
    step_of, load, places = Trainer._step, Flux1.load_text_encoder, []
    trainers = []

    def stepping(self, turn):
        trainers[:] = [self]
        step_of(self, turn)
        if turn.step == 2:
            (tmp_path / "data" / "00.txt").write_text("a zorple of glass")

    def watching(self, *arguments):
        places.extend(next(trainer.kit.transformer.parameters()).device.type for trainer in trainers)
        return load(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", stepping)
    monkeypatch.setattr(Flux1, "load_text_encoder", watching)
    run = finish(Run(config))
    assert run.exit_reason == "finished", told(run, RunFailed)
    assert [event.epoch for event in told(run, CaptionsTaken)] == [2] and places == ["cpu"]
    assert [event.state for event in told(run, StateChanged)].count("caching") == 2
    # The same history from the start: everything is encoded before the base is loaded, nothing ever moves.
    alone = tmp_path / "runs" / "alone"
    for name in ("samples", "state"):
        (alone / name).mkdir(parents=True)
    for name in ("config.toml", "captions.jsonl"):
        (alone / name).write_bytes((run.folder.root / name).read_bytes())
    assert finish(open_run(alone)).exit_reason == "finished" and places == ["cpu"]
    ours, wanted = load_file(run.folder.root / "test.safetensors"), load_file(alone / "alone.safetensors")
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)

"""Filling caches and drawing pictures without a run."""

import pytest
from PIL import Image
from pocket import finish, pocket_config

from engine.config import PromptConfig
from engine.errors import EngineError
from engine.events import EventLog, Progress, SampleSaved
from engine.jobs import fill_caches, sample_pictures
from engine.run import Run


def test_caches_filled_beforehand_are_used_by_the_run(tmp_path):
    config = pocket_config(tmp_path)
    events = EventLog()
    assert fill_caches(config, events)
    stages = {entry.event.stage for entry in events.since(0) if isinstance(entry.event, Progress)}
    assert {"scan", "cache latents", "cache text"} <= stages
    entries = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    finish(Run(config))
    assert {path: path.stat().st_mtime_ns for path in entries} == entries


def test_filling_stops_when_asked(tmp_path):
    assert not fill_caches(pocket_config(tmp_path), EventLog(), should_stop=lambda: True)


def test_pictures_with_and_without_lora(tmp_path):
    config = pocket_config(tmp_path, optimizer={"learning_rate": 2e-2}, sampling={"steps": 3})
    run = finish(Run(config))
    lora = run.folder.root / "test.safetensors"
    prompt = PromptConfig(prompt="a zorple at the left", seed=5, width=96, height=64)
    events = EventLog()
    out = tmp_path / "out"
    [base] = sample_pictures(config, None, [prompt], out, events)
    [first] = sample_pictures(config, lora, [prompt], out, events)
    [again] = sample_pictures(config, lora, [prompt], out, events)
    assert (base.name, first.name, again.name) == ("base-seed5.png", "test-seed5.png", "test-seed5-1.png")
    assert Image.open(first).size == (96, 64)
    assert first.read_bytes() != base.read_bytes()
    assert Image.open(first).tobytes() == Image.open(again).tobytes() != Image.open(base).tobytes()
    assert "a zorple at the left" in Image.open(first).text["parameters"]
    assert len([e for e in events.since(0) if isinstance(e.event, SampleSaved)]) == 3


def test_a_broken_lora_is_refused(tmp_path):
    config = pocket_config(tmp_path)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x80\x04pickle")
    with pytest.raises(EngineError, match=r"(?s)bad\.safetensors"):
        sample_pictures(config, bad, [PromptConfig(prompt="x")], tmp_path / "out", EventLog())

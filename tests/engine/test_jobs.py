"""Filling caches and drawing pictures without a run."""

import json
import shutil
from types import SimpleNamespace

import pytest
from PIL import Image
from pocket import finish, pocket_config

from engine.config import PromptConfig
from engine.errors import EngineError
from engine.events import EventLog, Log, Progress, SampleSaved
from engine.jobs import fill_caches, sample_pictures
from engine.memory.calibration import decisions
from engine.run import Run
from engine.training.pictures import Painter
from engine.training.products import _linears


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


@pytest.mark.slow
def test_pictures_are_computed_as_the_run_computed(tmp_path, monkeypatch):
    """What the run measured counts for its LoRA; without it every product is wide."""
    config = pocket_config(tmp_path, training={"epochs": 0, "steps": 1})
    packed = config.memory.model_copy(update={"precision": "int8", "compute": "8bit", "blocks_to_swap": 3})
    config = config.model_copy(update={"memory": packed})
    run = finish(Run(config))
    table = json.loads(run.folder.products.read_bytes())["linears"]
    lora = run.folder.root / "test.safetensors"
    elsewhere = shutil.copy(lora, tmp_path / "moved.safetensors")
    found = {}
    draw = Painter.draw

    def drawing(self, transformer, *rest, **more):
        found[len(found)] = decisions(_linears(SimpleNamespace(source=transformer.source)))
        return draw(self, transformer, *rest, **more)

    monkeypatch.setattr(Painter, "draw", drawing)
    logs = []
    for file in (lora, elsewhere, None):
        events = EventLog()
        [picture] = sample_pictures(config, file, [PromptConfig(prompt="x", seed=1)], tmp_path / "out", events)
        assert picture.is_file()
        logs.append([entry.event.text for entry in events.since(0) if isinstance(entry.event, Log)])
    assert found[0] == {name: tuple(pair) for name, pair in table.items()}
    assert any(map(any, found[0].values()))
    assert not any(map(any, found[1].values())) and not any(map(any, found[2].values()))
    assert any("as in the run" in text for text in logs[0])
    assert all(any("none was measured" in text for text in log) for log in logs[1:])
    for log in logs:
        assert any("emulated on a processor" in text for text in log) and any("kernels" in text for text in log)


def test_a_broken_lora_is_refused(tmp_path):
    config = pocket_config(tmp_path)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x80\x04pickle")
    with pytest.raises(EngineError, match=r"(?s)bad\.safetensors"):
        sample_pictures(config, bad, [PromptConfig(prompt="x")], tmp_path / "out", EventLog())

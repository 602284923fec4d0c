"""A small run on the pocket model: what whole-run tests start from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import engine
from engine.commands import Command
from engine.config import RunConfig
from engine.events import Entry, Event
from engine.run import Run

POCKET = Path(engine.__file__).parent / "models" / "pocket"
FILES = POCKET / "files"
DEMO = POCKET / "demo"


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def pictures(folder: Path, count: int, source: str = "train") -> Path:
    """Copy the first ``count`` demo pictures with their captions into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in sorted((DEMO / source).glob("*.png"))[:count]:
        shutil.copy(picture, folder)
        shutil.copy(picture.with_suffix(".txt"), folder)
    return folder


def measuring(home: Path) -> dict[str, Any]:
    """Measure after every epoch, and little: two held-out pictures at one level of noise, the drift on one prompt.

    All that is measured by itself costs as much as twelve steps.
    """
    held_out = pictures(home / "held-out", 2, "held_out")
    return {"folder": held_out, "every_epochs": 1, "sigmas": (0.4,), "prompts": ("a red circle",)}


def pocket_config(tmp_path: Path, **changes: Any) -> RunConfig:
    """Five pictures, three epochs of three steps (micro-batches of 1, two a step), no samples."""
    data = tmp_path / "data"
    if not data.exists():
        pictures(data, 5)
    base: dict[str, Any] = {
        "name": "test",
        "seed": 11,
        "runs_dir": tmp_path / "runs",
        "cache_dir": tmp_path / "cache",
        "model": {
            "transformer": FILES / "flux-pocket.safetensors",
            "autoencoder": FILES / "ae-pocket.safetensors",
            "clip_l": FILES / "clip-pocket.safetensors",
            "t5": FILES / "t5-pocket.safetensors",
            "t5_length": 20,
            "download_tokenizers": False,
        },
        "dataset": {
            "folders": [{"path": data}],
            "resolution": 64,
            "buckets": {"min_side": 32, "max_side": 128, "step": 16},
            "captions": {"trigger_word": "zorple"},
        },
        "lora": {"rank": 4},
        "optimizer": {"learning_rate": 2e-3},
        "training": {"epochs": 3, "batch_size": 1, "accumulation": 2, "device": "cpu"},
        "sampling": {"prompts": [], "width": 64, "height": 64, "steps": 2},
        "saving": {"dtype": "float32"},
    }
    return RunConfig.model_validate(merge(base, changes))


def finish(run: Run, timeout_s: float = 120) -> Run:
    """Start a run and wait for its end."""
    run.start()
    assert run.join(timeout_s), f"the run did not end; its state is {run.state}"
    return run


def told(run: Run, *kinds: type[Event]) -> list[Any]:
    """The run's events of these kinds, in order."""
    entries: list[Entry] = run.events.since(0)
    return [entry.event for entry in entries if isinstance(entry.event, kinds)]


def submit_after(monkeypatch: Any, plan: dict[int, list[Command]]) -> None:
    """Submit commands right after the given steps, from inside the loop: exact where a watcher would race."""
    from engine.trainer import Trainer

    step_of = Trainer._step

    def stepping(self: Any, turn: Any) -> None:
        step_of(self, turn)
        for command in plan.get(turn.step, []):
            self.control.commands.submit(command)

    monkeypatch.setattr(Trainer, "_step", stepping)

"""The whole command line on the pocket model: train, stop by signal, resume, sample, cache, list."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image
from pocket import pictures

from engine.config import RunConfig
from engine.config_file import load_config, save_config
from engine.events import CheckpointSaved, Event, RunDone, RunFailed, RunStarted, StepDone, entry_from_json
from profiles.starters import demo_config
from tui.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
PICTURES = 4


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four pictures, a configuration of two steps, and shared caches."""
    folder = tmp_path_factory.mktemp("cli")
    pictures(folder / "pictures", PICTURES)
    save_config(small(folder, "two", epochs=2), folder / "two.toml")
    save_config(small(folder, "endless", epochs=500), folder / "endless.toml")
    return folder


def small(folder: Path, name: str, epochs: int) -> RunConfig:
    """The demo on four pictures: one step an epoch, one sample, at the end."""
    values = demo_config(folder / "runs").model_dump()
    values["name"] = name
    values["dataset"]["folders"] = [{"path": folder / "pictures"}]
    values["training"] |= {"epochs": epochs, "steps": 0, "batch_size": PICTURES}
    values["sampling"] |= {"prompts": [{"prompt": "a zorple", "steps": 1}], "at_start": False, "every_epochs": 2}
    values["saving"] |= {"every_epochs": 10}
    return RunConfig.model_validate(values)


def events_of(text: str) -> list[Event]:
    return [entry_from_json(line).event for line in text.splitlines()]


@pytest.fixture
def two(work: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """The folder of a finished run, trained by the first test that wants it: each may be the first of its process."""
    folder = work / "runs/two"
    if not folder.exists():
        assert main(["train", str(work / "two.toml")]) == 0
        capfd.readouterr()
    return folder


def test_cache_then_train_as_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "pictures", PICTURES)
    save_config(small(tmp_path, "two", epochs=2), tmp_path / "two.toml")
    work = tmp_path
    assert main(["cache", str(work / "two.toml")]) == 0
    assert capfd.readouterr().out == ""
    assert main(["train", str(work / "two.toml"), "--json"]) == 0
    events = events_of(capfd.readouterr().out)
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2]
    assert any(isinstance(event, CheckpointSaved) and event.kind == "final" for event in events)
    run = work / "runs/two"
    assert [json.loads(line) for line in run.joinpath("events.jsonl").read_text().splitlines()]
    assert load_config(run / "config.toml") == load_config(work / "two.toml")
    assert (run / "two.safetensors").is_file()


def test_a_second_run_never_overwrites_and_reports_in_words(
    work: Path, two: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(work / "two.toml")]) == 0
    out, err = capfd.readouterr()
    assert "Run two-2 finished at step 2 of 2" in out
    assert "two-2.safetensors" in out
    assert "\x1b" not in out + err
    assert main(["runs", str(work / "runs")]) == 0
    assert "two-2  finished  2/2    2/2" in capfd.readouterr().out


def test_sample_draws_with_the_last_lora(two: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [
        "sample",
        str(two),
        "--prompt",
        "a zorple",
        "--seed",
        "3",
        "--steps",
        "1",
        "--size",
        "64x80",
    ]
    assert main(words) == 0
    path = Path(capfd.readouterr().out.strip())
    assert path.parent == two / "samples/by-hand"
    with Image.open(path) as picture:
        assert picture.size == (64, 80)
        assert "a zorple" in str(picture.info)


def test_a_lora_of_another_model_is_bad_input(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = work / "wrong.safetensors"
    wrong.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    assert main(["sample", str(work / "two.toml"), "--lora", str(wrong), "--steps", "1"]) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_a_failed_run_is_exit_code_1_and_says_why(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    values = small(work, "bad", 1).model_dump()
    values["dataset"]["folders"] = [{"path": work / "none \x1b[2J"}]
    save_config(RunConfig.model_validate(values), work / "bad.toml")
    assert main(["train", str(work / "bad.toml"), "--json"]) == 1
    out, err = capfd.readouterr()
    assert any(isinstance(event, RunFailed) for event in events_of(out))
    assert err.startswith("error: ") and "\x1b" not in err and "Traceback" not in err


def check_stopped(work: Path, seen: list[Event], resumed: bool) -> None:
    """The run stopped, saved, and made every step from where it began to where it ended."""
    done = next(event for event in seen if isinstance(event, RunDone))
    assert done.reason == "stopped" and Path(done.lora).is_file()
    started = next(event for event in seen if isinstance(event, RunStarted))
    steps = [event.step for event in seen if isinstance(event, StepDone)]
    assert steps == list(range(started.resumed_step + 1, done.step + 1))
    assert (started.resumed_step > 0) is resumed
    assert os.listdir(work / "runs/endless/state")


def test_a_run_that_sigterm_stopped_goes_on_until_sigint(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "tui", "train", str(work / "endless.toml"), "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen: list[Event] = []
        while not (seen and isinstance(seen[-1], StepDone)):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            seen += events_of(line)
        process.send_signal(signal.SIGTERM)
        # Not communicate(): it would pass over the lines that readline() has read ahead.
        out = process.stdout.read()
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 143, err
    check_stopped(work, seen + events_of(out), resumed=False)

    events = work / "runs/endless/events.jsonl"
    before = events.stat().st_size
    over = threading.Event()

    def interrupt() -> None:
        while b"StepDone" not in events.read_bytes()[before:]:
            if over.wait(0.02):
                return
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        assert main(["train", str(work / "endless.toml"), "--json", "--resume"]) == 130
    finally:
        over.set()
        watcher.join()
    check_stopped(work, events_of(capfd.readouterr().out), resumed=True)

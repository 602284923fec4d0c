"""Trackers: what they are told, that they cost a run nothing, and that they go on where a run does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pocket import finish, pocket_config, submit_after, told

from engine.commands import StopNow
from engine.config_file import load_config
from engine.errors import RunError
from engine.events import (
    EventLog,
    Log,
    Measured,
    MemorySampled,
    RunFailed,
    RunStarted,
    SampleSaved,
    StateChanged,
    StepDone,
)
from engine.run import Run, open_run
from engine.training import trackers
from engine.training.trackers import TensorBoard, require_trackers, wandb_id
from engine.training.tracking import Beginning, Tracking, numbers_of, settings_of


class Notes:
    """A tracker that keeps what it is told."""

    def __init__(self, begin: Beginning) -> None:
        self.begin = begin
        self.numbers: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[str, str, int]] = []
        self.finished = False

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.numbers.append((step, dict(values)))

    def picture(self, name: str, path: Path, caption: str, step: int) -> None:
        self.pictures.append((name, caption, step))

    def finish(self) -> None:
        self.finished = True


def step(number: int, loss: float = 0.5) -> StepDone:
    return StepDone(number, 1, loss, 1e-4, 0.3, 0.1, 0.0, 0.1, 0.0)


def begun(events: EventLog, resumed: int = 0) -> None:
    events.append(StateChanged("preparing"))
    events.append(RunStarted("cat", "/runs/cat", "flux1", "dev", 2, 8, 4, resumed))


def warnings(events: EventLog) -> list[str]:
    return [entry.event.text for entry in events.since(0) if isinstance(entry.event, Log)]


def test_what_trackers_are_told(tmp_path: Path) -> None:
    events, made = EventLog(), []

    def make(begin: Beginning) -> Notes:
        made.append(Notes(begin))
        return made[0]

    tracking = Tracking(events, {"notes": make}, {"lora.rank": 4})
    events.append(MemorySampled(9.0, 64.0, 1.5))
    begun(events, 3)
    tracking.start()
    events.append(step(4))
    events.append(step(5, float("nan")))
    events.append(SampleSaved("/runs/cat/samples/a.png", 5, 1, 2, "a\x1b]52;c;QQ==\x07 cat/dog", 1, strength=0.8))
    events.append(MemorySampled(9.0, 64.0, 1.5, 10.0, 24.0, 12.0))
    events.append(Measured(5, 1, (0.4, 0.6), train=(0.3,), drift=0.02, update=(("single", 3.0), ("img_attn", 4.0))))
    tracking.close()
    (notes,) = made
    assert notes.begin == Beginning("cat", Path("/runs/cat"), {"lora.rank": 4}, 3) and notes.finished
    assert notes.numbers[0] == (
        4, {"train/loss": 0.5, "train/lr": 1e-4, "train/grad_norm": 0.3, "train/step_s": 0.1, "train/epoch": 1.0},
    )  # fmt: skip
    assert "train/loss" not in notes.numbers[1][1], "what is no number is not told as one"
    assert notes.numbers[2] == (
        5, {"memory/process_gb": 1.5, "memory/host_gb": 9.0, "memory/vram_gb": 10.0, "memory/vram_peak_gb": 12.0},
    )  # fmt: skip
    found = {"measured/held_out": 0.5, "measured/train": 0.3, "measured/drift": 0.02, "measured/update": 5.0}
    assert notes.numbers[3] == (5, found)
    ((name, caption, at),) = notes.pictures
    assert name.startswith("samples/2 a") and name.count("/") == 1 and "at 0.8" in caption and at == 5
    assert "\x1b" not in name + caption and not warnings(events)
    assert numbers_of(StateChanged("x")) == {}


class Hanging(Notes):
    """Answers when it is let."""

    let = threading.Event()

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.let.wait(30)


class Raising(Notes):
    """Breaks."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        raise ValueError("a\x1b[2J key: hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm")


@pytest.fixture
def hanging() -> Iterator[type[Hanging]]:
    Hanging.let.clear()
    yield Hanging
    Hanging.let.set()


def test_one_that_hangs_or_breaks_is_told_of_once_and_the_others_go_on(hanging: type[Hanging]) -> None:
    events, notes = EventLog(), []

    def make(begin: Beginning) -> Notes:
        notes.append(Notes(begin))
        return notes[0]

    def refuse(begin: Beginning) -> Notes:
        raise OSError("nowhere to write")

    makers: dict[str, Any] = {"slow": hanging, "broken": Raising, "none": refuse, "good": make}
    tracking = Tracking(events, makers, {}, patience_s=0.2)
    tracking.start()
    begun(events)
    for number in range(1, 6):
        events.append(step(number))
    end = time.monotonic() + 20
    while len(warnings(events)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    events.append(step(6))
    began = time.monotonic()
    tracking.close(30)
    assert time.monotonic() - began < 20, "one that was dropped is not waited for"
    said = sorted(warnings(events))
    assert len(said) == 3, said
    assert said[0].startswith("broken is told nothing more of this run: ValueError: a") and "hf_" not in said[0]
    assert "\x1b" not in said[0] and said[1].startswith("none is told nothing more of this run: OSError: nowhere")
    assert "has not answered" in said[2]
    assert [number for number, _ in notes[0].numbers] == [1, 2, 3, 4, 5, 6]


def test_a_run_does_not_wait_for_a_tracker_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: type[Hanging]
) -> None:
    monkeypatch.setattr(trackers, "TensorBoard", lambda begin, logs: hanging(begin))
    close = Tracking.close
    monkeypatch.setattr(Tracking, "close", lambda self: close(self, 0.5))
    run = finish(Run(pocket_config(tmp_path, tracking={"tensorboard": True})))
    assert run.state == "finished" and len(told(run, StepDone)) == 9
    (said,) = [one.text for one in told(run, Log) if "is told nothing more" in one.text]
    assert said == "TensorBoard is told nothing more of this run: it was not done when the run was"


def test_what_is_not_installed_is_said_before_the_run_has_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    for table in ({"tensorboard": True}, {"wandb": "cats"}):
        config = pocket_config(tmp_path, tracking=table)
        with pytest.raises(RunError, match=r'pip install "lorakiln\[(tensorboard|wandb)\]"'):
            require_trackers(config)
        run = finish(Run(config))
        assert run.state == "failed" and "not installed" in told(run, RunFailed)[0].title
    assert not (tmp_path / "runs").exists()
    require_trackers(pocket_config(tmp_path))


def test_settings_are_plain_and_hold_no_secret_and_no_place(tmp_path: Path) -> None:
    token = "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm"
    config = pocket_config(tmp_path, saving={"comment": f"with {token}\x1b[2J"}, validation={"sigmas": [0.2, 0.5]})
    found = settings_of(config)
    assert all(value is None or isinstance(value, str | int | float | bool) for value in found.values())
    assert found["lora.rank"] == 4 and found["validation.sigmas"] == "0.2, 0.5"
    assert found["model.transformer"] == "flux-pocket.safetensors" and found["dataset.folders[1].path"] == "data"
    text = json.dumps(found)
    assert token not in text and "\\u001b" not in text and str(tmp_path) not in text


def test_nothing_is_imported_unless_it_is_asked_for(tmp_path: Path) -> None:
    run = finish(Run(pocket_config(tmp_path, training={"epochs": 1})))
    assert run.state == "finished" and not any(thread.name.startswith("track") for thread in threading.enumerate())
    code = "import engine.run, sys; print([name for name in ('tensorboard', 'wandb') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard's own reader finds in a folder of logs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()
    values = {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in tags["scalars"]}
    pictures = {tag: [(one.step, float(one.width)) for one in found.Images(tag)] for tag in tags["images"]}
    return values | pictures | {tag: [] for tag in tags["tensors"]}


def test_tensorboard_reads_back_what_a_run_told_and_a_resumed_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    submit_after(monkeypatch, {5: [StopNow()]})
    config = pocket_config(
        tmp_path, tracking={"tensorboard": True}, validation={"every_epochs": 1, "held_out": 2},
        sampling={"prompts": [{"prompt": "a zorple"}], "every_epochs": 1}, training={"epochs": 3},
    )  # fmt: skip
    run = finish(Run(config))
    assert run.state == "stopped" and run.folder is not None
    logs = run.folder.root / "tensorboard"
    assert [number for number, _ in scalars(logs)["train/loss"]] == [1, 2, 3, 4, 5]
    # What was told after the state that is gone on from, as by a process that was killed, is hidden.
    lost = TensorBoard(Beginning("test", run.folder.root, {}, 5))
    lost.log({"train/loss": 9.0}, 6)
    lost.finish()
    again = finish(open_run(run.folder.root))
    assert again.state == "finished"
    found = scalars(logs)
    losses = {one.step: one.loss for one in [*told(run, StepDone), *told(again, StepDone)]}
    assert found["train/loss"] == [(number, pytest.approx(loss)) for number, loss in sorted(losses.items())]
    assert found["measured/held_out"][0][0] == 0 and found["measured/held_out"][-1][0] == max(losses)
    assert {"train/lr", "train/grad_norm", "measured/drift", "measured/update", "memory/process_gb"} < set(found)
    (picture,) = [tag for tag in found if tag.startswith("samples/")]
    assert picture == "samples/0 a zorple" and found[picture][0] == (0, 64.0)
    assert any(tag.startswith("settings") for tag in found)


def test_logs_of_all_runs_may_lie_in_one_folder_and_never_behind_a_link(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = TensorBoard(Beginning("cat", tmp_path / "cat", {}), tmp_path / "logs")
    board.finish()
    assert any((tmp_path / "logs" / "cat").iterdir())
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "tensorboard").symlink_to(tmp_path / "logs")
    with pytest.raises(RunError, match="link"):
        TensorBoard(Beginning("dog", tmp_path / "dog", {}))


class FakeRun:
    """A run at a made-up Weights & Biases."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, values: dict[str, Any], step: int) -> None:
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def made_up_wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """A module of the same interface: what is asked of it is kept."""
    runs: list[FakeRun] = []
    config: dict[str, Any] = {}

    def init(**options: Any) -> FakeRun:
        runs.append(FakeRun(**options, config=config))
        return runs[-1]

    module = SimpleNamespace(
        init=init,
        Settings=type("Settings", (dict,), {"model_fields": ("console", "silent")}),
        Image=lambda pixels, caption: (pixels.shape, caption),
        config=SimpleNamespace(update=lambda values, allow_val_change: config.update(values)),
        __spec__=SimpleNamespace(name="wandb"),
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_weights_and_biases_is_told_and_goes_on_by_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up_wandb: list[FakeRun]
) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    submit_after(monkeypatch, {4: [StopNow()]})
    sampling = {"prompts": [{"prompt": "a zorple"}], "every_epochs": 0, "at_start": True}
    run = finish(Run(pocket_config(tmp_path, tracking={"wandb": "cats"}, sampling=sampling)))
    assert run.folder is not None and finish(open_run(run.folder.root)).state == "finished"
    first, second = made_up_wandb
    assert first.options["project"] == "cats" and first.options["name"] == "test"
    assert first.options["id"] == second.options["id"] == wandb_id(run.folder.root)
    assert first.options["settings"] == {"console": "off", "silent": True}
    assert os.environ["WANDB_ERROR_REPORTING"] == "false", "its reports of errors tell of the machine"
    assert first.options["config"]["lora.rank"] == 4 and first.finished and second.finished
    steps = [number for one in made_up_wandb for number, values in one.rows if "train/loss" in values]
    assert steps == list(range(1, 10))
    (picture,) = [values for _, values in first.rows if any(name.startswith("samples/") for name in values)]
    assert picture == {"samples/0 a zorple": [((64, 64, 3), "a zorple, epoch 0")]}


def test_a_damaged_id_is_replaced(tmp_path: Path) -> None:
    made = wandb_id(tmp_path)
    assert wandb_id(tmp_path) == made
    path = tmp_path / "tracking.json"
    for damage in (b"", b"{}", b'{"wandb": "../x"}', path.read_bytes().replace(made[:4].encode(), b"zzzz")):
        path.write_bytes(damage)
        assert wandb_id(tmp_path) != made and wandb_id(tmp_path) == wandb_id(tmp_path)


@pytest.mark.slow
def test_weights_and_biases_itself_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = (
        "import sys; sys.path[:0] = ['tests']\n"
        "from pathlib import Path\nfrom pocket import pocket_config, finish\nfrom engine.run import Run\n"
        f"config = pocket_config(Path({str(tmp_path)!r}), tracking={{'wandb': 'cats'}}, training={{'epochs': 2}})\n"
        "run = finish(Run(config))\n"
        "print(run.state, [e.event.text for e in run.events.since(0) if hasattr(e.event, 'text')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"WANDB_MODE": "offline"}, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("finished") and "told nothing more" not in done.stdout, done.stdout + done.stderr
    (log,) = (tmp_path / "runs" / "test" / "wandb").glob("offline-run-*/run-*.wandb")
    data = log.read_bytes()
    assert b"train/loss" in data and wandb_id(tmp_path / "runs" / "test").encode() in data
    assert str(Path.home()).encode() not in data and str(tmp_path).encode() not in data
    assert b"j" + bytes([len(os.uname().nodename)]) + os.uname().nodename.encode() not in data, "the run's host"
    assert load_config(tmp_path / "runs/test/config.toml").tracking.wandb == "cats"

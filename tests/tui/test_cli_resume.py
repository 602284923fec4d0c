"""`kiln resume`: what it says before it goes on, when it asks, and what it refuses."""

from __future__ import annotations

import fcntl
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pocket import finish, merge, pocket_config, submit_after

from engine.commands import StopAtEpoch, StopNow
from engine.config import RunConfig
from engine.config_file import load_config, save_config
from engine.events import RunDone, StateChanged, entry_from_json
from engine.files import RunFolder
from engine.run import Run
from tui.__main__ import main
from tui.terminal import orders


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was stopped at its fourth step of nine."""
    home = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        submit_after(patch, {4: [StopNow()]})
        assert finish(Run(pocket_config(home))).exit_reason == "stopped"
    return home


@pytest.fixture
def run(home: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run's folder, on the pictures that it was begun with."""
    shutil.copytree(home / "runs" / "test", tmp_path / "test")
    return RunFolder(tmp_path / "test")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Orders that would have begun a run."""
    orders: list[Any] = []
    for command in ("resume", "train"):
        monkeypatch.setattr(f"tui.commands.{command}.launch", lambda order, args: orders.append(order) or 0)
    yield orders


def change(folder: RunFolder, **changes: Any) -> None:
    """Edit the run's configuration."""
    values = load_config(folder.config).model_dump()
    save_config(RunConfig.model_validate(merge(values, changes)), folder.config)


def say(folder: RunFolder, event: Any) -> None:
    """Let the run have told something more."""
    from engine.events import EventLog

    log = EventLog(folder.events)
    log.append(event)
    log.close()


def test_harmless_changes_are_listed_and_the_run_goes_on_and_tells_them(
    run: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    change(run, training={"epochs": 2, "threads": 1}, saving={"title": "\x1b]0;evil\x07"})
    assert main(["resume", str(run.root), "--json"]) == 0
    out, err = capfd.readouterr()
    assert "This changes only how long it trains:\n  training.epochs: 3 -> 2" in err
    assert "This changes only speed and memory:\n  training.threads: 0 -> 1" in err
    assert "\x1b" not in err and "\\x1b]0;evil" in err
    told = [json.loads(line) for line in out.splitlines()]
    names = {record["name"]: record["meaning"] for record in told if record["type"] == "Changed"}
    assert names == {"training.epochs": "length", "training.threads": "speed", "saving.title": "saved"}
    assert [record["step"] for record in told if record["type"] == "StepDone"] == [5, 6]


def test_a_change_of_course_is_asked_about(
    run: RunFolder, begun: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(run, optimizer={"learning_rate": 1e-3})
    assert main(["resume", str(run.root)]) == 2 and begun == []
    err = capsys.readouterr().err
    assert "This changes what it learns:\n  optimizer.learning_rate: 0.002 -> 0.001" in err and "--yes" in err
    assert main(["resume", str(run.root), "--json"]) == 2 and begun == []
    (line,) = capsys.readouterr().out.splitlines()
    assert str(entry_from_json(line).event) == "optimizer.learning_rate: 0.002 -> 0.001"
    assert main(["resume", str(run.root), "--yes"]) == 0 and len(begun) == 1

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for answer, code in (("\n", 2), ("n\n", 2), ("", 2), ("y\n", 0), ("YES\n", 0)):
        begun.clear()
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        monkeypatch.setattr("sys.stderr", Terminal())
        assert main(["resume", str(run.root)]) == code and len(begun) == (code == 0), answer


def test_the_last_run_of_a_configuration_is_looked_at_in_the_same_way(
    run: RunFolder, begun: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run, seed=12, runs_dir=tmp_path)
    assert main(["train", str(run.config), "--resume"]) == 2 and begun == []
    assert "  seed: 11 -> 12" in capsys.readouterr().err
    assert main(["train", str(run.config), "--resume", "--yes"]) == 0 == main(["train", str(run.config)])
    assert [order["resume"] for order in begun] == [True, False]


def test_what_a_run_cannot_go_on_with_is_refused_whatever_is_answered(
    run: RunFolder, begun: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    change(run, optimizer={"name": "lion"})
    assert main(["resume", str(run.root), "--yes"]) == 2 and begun == []
    err = capsys.readouterr().err
    assert "It cannot go on with this:\n  optimizer.name: adamw -> lion" in err and "lora.resume_from" in err


def test_a_finished_run_is_not_resumed_unless_it_is_to_be_longer(
    run: RunFolder, begun: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    say(run, RunDone("finished", 9, 3, "", 1.0))
    say(run, StateChanged("finished"))
    assert main(["resume", str(run.root)]) == 2 and begun == []
    err = capsys.readouterr().err
    assert "The run is finished" in err and "training.epochs" in err
    change(run, training={"epochs": 4})
    assert main(["resume", str(run.root)]) == 0 and len(begun) == 1


def test_a_run_trained_elsewhere_is_named_by_who_holds_it(
    run: RunFolder, begun: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with open(run.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("4242", file=lock, flush=True)
        assert main(["resume", str(run.root)]) == 2 and begun == []
    assert "the process 4242" in capsys.readouterr().err


def test_a_run_without_its_pictures_or_that_is_none_says_so(
    run: RunFolder, begun: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run, dataset={"folders": [{"path": tmp_path / "gone"}]})
    assert main(["resume", str(run.root)]) == 2 == main(["resume", str(tmp_path)]) and begun == []
    err = capsys.readouterr().err
    assert "The run's pictures are gone" in err and str(tmp_path / "gone") in err and "No run stands there" in err


def test_damaged_states_are_named_and_none_good_names_the_lora(
    run: RunFolder, begun: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    newest, before = sorted(run.states.glob("step-*"), reverse=True)
    (newest / "lora.safetensors").write_bytes(b"torn")
    assert main(["resume", str(run.root)]) == 0 and len(begun) == 1
    err = capsys.readouterr().err
    assert f"passed over: {newest.name}" in err and "goes on from step 3" in err
    (before / "MANIFEST.json").unlink()
    assert main(["resume", str(run.root)]) == 2 and len(begun) == 1
    err = capsys.readouterr().err
    assert "No training state can be read" in err and "test-s000004.safetensors" in err


def test_the_list_of_runs_says_from_where_each_goes_on(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert "after 4" in capsys.readouterr().out
    shutil.rmtree(run.states)
    assert main(["runs", str(tmp_path)]) == 0
    assert "anew" in capsys.readouterr().out
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["resumes_after"] == 0
    say(run, RunDone("finished", 9, 3, "", 1.0))
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["resumes_after"] is None


def test_an_end_after_an_epoch_can_be_planned_from_the_start(
    run: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(run.root), "--json", "--stop-after", "2"]) == 3
    told = [entry_from_json(line).event for line in capfd.readouterr().out.splitlines()]
    assert [(event.step, event.epoch) for event in told if isinstance(event, RunDone)] == [(6, 2)]
    assert main(["resume", str(run.root), "--stop-after", "0"]) == 2
    made = orders.run_for(orders.train(run.config, stop_after=3))
    assert isinstance(made, Run) and made._commands.take_all() == [StopAtEpoch(3)]
    assert "stop_after" not in orders.train(run.config) | orders.resume(run.root)

"""Losses by picture: from the steps, and from a pass with fixed noise that leaves the training as it was."""

import json
from pathlib import Path

import pytest
import torch
from pocket import finish, pocket_config, submit_after, told
from safetensors.torch import load_file

from engine.batches import Turn
from engine.commands import MeasurePictures, StopNow
from engine.dataset.sidecar import SIDECAR_NAME, Sidecar
from engine.dataset.watch import NotesWatch
from engine.events import EpochDone, Log, PictureLosses, RunFailed, StateChanged, StepDone
from engine.run import Run, open_run
from engine.trainer import Trainer
from tests.bench.bench_mislabelled import plant
from tui.__main__ import main
from tui.report import report
from tui.run_list import read_view

FAST = {"epochs": 3, "accumulation": 2, "gradient_checkpointing": False}


def names(event: PictureLosses) -> list[str]:
    return [Path(name).name for name in event.names]


def result(run: Run) -> tuple[dict[str, torch.Tensor], list[float]]:
    assert run.exit_reason == "finished", told(run, RunFailed)
    assert run.folder is not None
    steps = [event.loss for event in told(run, StepDone)]
    return load_file(run.folder.root / f"{run.folder.name}.safetensors"), steps


def test_a_pass_with_fixed_noise_changes_nothing_and_asks_the_base_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = finish(Run(pocket_config(tmp_path, training=FAST)))
    weights, losses = result(plain)
    with monkeypatch.context() as patched:
        submit_after(patched, {step: [MeasurePictures()] for step in (3, 5)})
        run = finish(Run(pocket_config(tmp_path, training=FAST)))
    other_weights, other_losses = result(run)
    assert other_losses == losses
    assert all(torch.equal(other_weights[name], tensor) for name, tensor in weights.items())
    found = [event for event in told(run, PictureLosses) if event.kind == "fixed"]
    assert [(event.step, event.epoch) for event in found] == [(3, 1), (5, 2)]
    for event in found:
        assert names(event) == [f"{number:02d}.png" for number in range(5)]
        assert all(loss > 0 for loss in event.losses + event.others)
        assert event.base == found[0].base  # without the LoRA nothing has changed
    assert found[0].losses != found[1].losses  # the LoRA learned between them
    assert [event.state for event in told(run, StateChanged)].count("measuring") >= 2


def test_every_step_says_how_its_own_pictures_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit_after(monkeypatch, {4: [StopNow()]})
    run = finish(Run(pocket_config(tmp_path, training=FAST)))
    first, *_ = [event for event in told(run, PictureLosses) if event.kind == "steps"]
    assert names(first) == [f"{number:02d}.png" for number in range(5)]
    assert first.counts == (1,) * 5 and first.epoch == 1
    assert [event.step for event in told(run, EpochDone)] == [3]
    assert run.folder is not None
    monkeypatch.undo()
    noted = Sidecar().with_notes("01.png", exclude=True, stars=3).with_notes("02.png", stars=1)
    step_of = Trainer._step

    def stepping(self: Trainer, turn: Turn) -> None:
        step_of(self, turn)
        if turn.step == 5:
            noted.save(run.config.dataset.folders[0].path)

    monkeypatch.setattr(Trainer, "_step", stepping)
    again = finish(open_run(run.folder.root))
    said = [event.text for event in told(again, Log) if "next start" in event.text]
    assert said == ["Notes changed count from the run's next start: 01.png (exclusion) (1)"]
    later = [event for event in told(again, PictureLosses) if event.kind == "steps"]
    assert [event.epoch for event in later][-2:] == [2, 3]
    assert sum(later[-1].counts) >= sum(first.counts) + 5  # goes on from what was told before


def test_a_finished_run_is_measured_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = pocket_config(tmp_path, training=FAST, saving={"every_epochs": 1})
    data = config.dataset.folders[0].path
    (data / "03.txt").write_text((data / "01.txt").read_text())  # as the first is captioned: no other for those two
    run = finish(Run(config))
    assert run.folder is not None and run.exit_reason == "finished"
    file = run.folder.lora(3, 0, "final")
    assert main(["losses", str(run.folder.root), "--json"]) == 0
    pictures = json.loads(capfd.readouterr().out)["pictures"]
    assert len(pictures) == 5 and file.is_file()
    assert [one["misfit"] for one in pictures] == sorted((one["misfit"] for one in pictures), reverse=True)
    assert main(["losses", str(run.folder.root)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["PICTURE", "MISFIT", "LOSS", "OTHERS", "LORA", "BASE"] and len(lines) == 6
    view = read_view(run.folder.root)
    assert {name: round(figure, 6) for name, figure in view.pictures.shown.items()} == {
        one["picture"]: round(one["misfit"], 6) for one in pictures
    }
    assert "Captions that fit least: " in report(view)


def test_notes_that_a_run_is_made_of_are_told_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    Sidecar().with_notes("a.png", repeats=2).save(tmp_path)
    watch = NotesWatch([tmp_path])
    assert watch.look() == []
    Sidecar().with_notes("a.png", stars=2).save(tmp_path)
    assert watch.look() == []
    Sidecar().with_notes("a.png", repeats=None).with_notes("b.png", crop=(0, 0, 8, 8), exclude=True).save(tmp_path)
    [line] = watch.look()
    assert line.endswith("next start: a.png (repeats), b.png (exclusion, crop) (2)")
    (tmp_path / SIDECAR_NAME).write_text("version = 9\n")
    [line] = watch.look()
    assert "cannot be read" in line and watch.look() == []
    (tmp_path / SIDECAR_NAME).unlink()
    [line] = watch.look()
    assert "b.png" in line and "a.png" not in line


@pytest.mark.slow
def test_a_wrong_caption_is_found(tmp_path: Path) -> None:
    found = plant(0, tmp_path)
    assert found.misfit <= 3 and found.steps <= 3

"""A LoRA file is measured as its run measured itself, by `kiln measure`; blends are files like any other."""

import json
from statistics import fmean

import pytest
from pocket import DEMO, finish, pocket_config, told

from engine.config_file import load_config, save_config
from engine.events import Advised, EventLog, Log, Measured
from engine.files import RunFolder
from engine.jobs import measure_loras
from engine.run import Run
from tui.__main__ import main
from tui.run_loras import epochs, files_of, saved_epochs

MEASURED = {"folder": DEMO / "held_out", "every_epochs": 1, "budget": 100.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four epochs in both layouts, measured at the end of each."""
    home = tmp_path_factory.mktemp("remeasure")
    saving = {"layouts": ["kohya", "diffusers"]}
    config = pocket_config(home, validation=MEASURED, training={"epochs": 4}, saving=saving)
    run = finish(Run(config))
    assert run.exit_reason == "finished"
    return run.folder, {one.epoch: one for one in told(run, Measured)}


def losses(one):
    return one.held_out, one.held_out_bands, one.held_out_pictures, one.train, one.train_bands, one.drift


def test_every_epochs_file_measures_exactly_what_the_run_measured_there(trained):
    folder, own = trained
    before = {path: path.read_bytes() for path in sorted(folder.root.rglob("*")) if path.is_file()}
    files = saved_epochs(folder)
    found = measure_loras(load_config(folder.config), folder.root, list(files.values()), EventLog())
    assert [one.epoch for one in found] == list(files) == [1, 2, 3, 4]
    for one in found:
        assert losses(one) == losses(own[one.epoch]) and one.step == own[one.epoch].step
        assert dict(one.update) == pytest.approx(dict(own[one.epoch].update), rel=1e-12)
    assert before == {path: path.read_bytes() for path in sorted(folder.root.rglob("*")) if path.is_file()}


def test_another_layout_and_rank_measure_too(trained, tmp_path):
    """diffusers' layout rounds the scale into a matrix; a file on fewer layers needs adapters of its own."""
    folder, own = trained
    other = finish(Run(pocket_config(tmp_path, lora={"rank": 2, "single_blocks": "none"}, training={"epochs": 1})))
    files = [folder.lora(2, 0, "epoch", "diffusers"), other.folder.lora(0, 0, "final"), folder.lora(2, 0, "epoch")]
    found = measure_loras(load_config(folder.config), folder.root, files, EventLog())
    assert found[0].held_out == pytest.approx(own[2].held_out, rel=1e-5)
    assert losses(found[2]) == losses(own[2]) and found[1].epoch == 1
    assert (
        found[1].held_out != found[0].held_out and {kind for kind, _ in found[1].update} < dict(own[2].update).keys()
    )


def test_what_changed_since_the_run_is_said_and_a_stop_is_obeyed(trained, tmp_path):
    folder, _ = trained
    config = load_config(folder.config)
    changed = config.model_copy(update={"objective": config.objective.model_copy(update={"guidance": 2.0})})
    events = EventLog()
    assert measure_loras(changed, folder.root, [folder.lora(2, 0, "epoch")], events, lambda: True) == []
    warnings = [entry.event.text for entry in events.since(0) if isinstance(entry.event, Log)]
    assert any("may not compare" in text and "objective.guidance: 1 -> 2" in text for text in warnings)


def test_a_run_that_measured_nothing_has_nothing_to_compare_with(trained, tmp_path, capfd):
    folder, _ = trained
    config = load_config(folder.config)
    silent = config.model_copy(update={"validation": config.validation.model_copy(update={"every_epochs": 0})})
    place = RunFolder(tmp_path / "test")
    place.root.mkdir()
    save_config(silent, place.config)
    assert main(["measure", str(place.root), "--lora", str(folder.lora(2, 0, "epoch"))]) != 0
    assert "measures nothing" in capfd.readouterr().err
    assert main(["measure", str(place.root)]) != 0 and "no LoRA yet" in capfd.readouterr().err
    assert main(["measure", str(tmp_path)]) != 0 and "There is no such run" in capfd.readouterr().err


def test_a_blend_is_made_and_measured_from_the_command_line(trained, capfd):
    folder, own = trained
    assert main(["blend", str(folder.root), "--epochs", "2-3,4", "--weights", "1", "2", "1"]) == 0
    said = capfd.readouterr().out.splitlines()
    out = folder.root / "test-blend-e0002-final.safetensors"
    assert said[0] == str(out) and out.is_file() and said[1].startswith("3 files blended; rank 4 loses 0.")
    assert main(["measure", str(folder.root), "--lora", out.name, "--epochs", "3"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1 + 5 + 2 and lines[6].startswith(out.name) and lines[7].startswith("test-e0003.safetensors")
    # Between its neighbours: the file of the epoch in the middle measures what the run's line says.
    assert lines[7].split()[3:] == lines[4].split()[3:]
    assert main(["measure", str(folder.root), "--lora", str(out), "--json"]) == 0
    told_all = json.loads(capfd.readouterr().out)
    assert [one["epoch"] for one in told_all["run"]] == [0, 1, 2, 3, 4] and told_all["files"][0]["file"] == str(out)
    ends = sorted(fmean(own[epoch].train) for epoch in (2, 4))
    assert ends[0] <= fmean(told_all["files"][0]["train"]) <= ends[1]
    assert main(["blend", str(folder.root), "--epochs", "2-4", "--json"]) == 0
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert last["type"] == "CheckpointSaved" and last["path"].endswith("test-blend-e0002-final-2.safetensors")


def test_blending_needs_to_know_which_and_takes_what_is_recommended(trained, tmp_path, capfd):
    folder, _ = trained
    assert main(["blend", str(folder.root), "--epochs", "9"]) != 0
    assert "epoch 9; there are: 1, 2, 3, 4" in capfd.readouterr().err
    some = RunFolder(tmp_path / "test")
    some.root.mkdir()
    (some.root / "config.toml").write_bytes(folder.config.read_bytes())
    assert main(["blend", str(some.root)]) != 0 and "Which epochs?" in capfd.readouterr().err
    for name in ("events.jsonl", "test-e0002.safetensors", "test-e0003.safetensors"):
        (some.root / name).write_bytes((folder.root / name).read_bytes())
    log = EventLog(some.events)
    log.append(Advised(12, 4, "in range", 1, 3, 2, "words"))
    log.close()
    assert main(["blend", str(some.root), "--out", str(tmp_path / "mine.safetensors")]) == 0
    assert capfd.readouterr().out.splitlines()[1].startswith("2 files blended")
    assert files_of(some, epochs("1-9")) == [some.lora(2, 0, "epoch"), some.lora(3, 0, "epoch")]
    assert main(["blend", str(some.root), "--epochs", "3-2"]) == 2
    assert "give epochs such as 20-27" in capfd.readouterr().err

"""What is another than when a state was saved: found, told by name, and weighed, before a resume and in it."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pocket import finish, merge, pictures, pocket_config, submit_after, told

from engine.commands import StopNow
from engine.config import RunConfig
from engine.config_file import load_config, save_config
from engine.dataset.history import CaptionHistory, load_history
from engine.errors import DatasetError, ModelFileError, RunError
from engine.events import Changed, Log, RunFailed
from engine.files import RunFolder
from engine.run import Run, open_run, outlook
from engine.training.changes import COURSE, LATER, LENGTH, REFUSED, ROUNDING, SAVED, SPEED, compare, meaning_of
from engine.training.generations import generations
from engine.training.prepare import trained_settings
from engine.training.record import load_record, look, save_record, take_record


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run that was stopped in the middle of its second epoch, with its pictures and its cache."""
    home = tmp_path_factory.mktemp("changes")
    with pytest.MonkeyPatch.context() as patch:
        submit_after(patch, {2: [StopNow()], 4: [StopNow()]})
        stopped = finish(Run(pocket_config(home)))
        finish(open_run(stopped.folder.root))
    return home


@pytest.fixture
def run(home, tmp_path):
    """That run's folder, moved with all that belongs to it."""
    work = tmp_path / "work"
    shutil.copytree(home, work)
    folder = RunFolder(work / "runs" / "test")
    folder.config.write_text(folder.config.read_text().replace(str(home), str(work)))
    history = load_history(folder.captions)
    folder.captions.unlink()
    moved = CaptionHistory(folder.captions)
    for epoch, texts in history.epochs.items():
        moved.record(epoch, {name.replace(str(home), str(work)): text for name, text in texts.items()})
    return folder


def change(folder, **changes):
    """Edit the run's configuration."""
    values = load_config(folder.config).model_dump()
    save_config(RunConfig.model_validate(merge(values, changes)), folder.config)


def data(folder):
    return folder.root.parent.parent / "data"


def names(found):
    return {(one.meaning, one.name) for one in found}


def test_nothing_changed_is_nothing_told(run):
    ahead = outlook(run.root)
    # The folders are elsewhere now; that alone changes nothing of the course.
    assert names(ahead.changes) == {(SAVED, "runs_dir"), (SAVED, "cache_dir"), (SAVED, "dataset.folders[1].path")}
    assert (ahead.step, ahead.epoch, ahead.damaged, ahead.told_whole) == (4, 2, (), True)


def test_every_difference_is_told_by_name_and_again_when_the_run_goes_on(run):
    folder = data(run)
    first, second, third, *_ = sorted(folder.glob("*.png"))
    first.unlink()
    shutil.copy(third, second)
    shutil.copy(third, folder / "new.png")
    (folder / "new.txt").write_text("a zorple, new")
    third.with_suffix(".txt").write_text("a zorple, edited")
    change(run, optimizer={"learning_rate": 1e-3}, training={"threads": 1}, saving={"title": "\x1b]0;x\x07"})
    found = {one.name: one for one in outlook(run.root).changes}
    assert str(found["pictures removed"]) == f"pictures removed: {first.name}"
    assert str(found["pictures added"]) == "pictures added: new.png"
    assert str(found["pictures replaced"]) == f"pictures replaced: {second.name}"
    assert str(found["optimizer.learning_rate"]) == "optimizer.learning_rate: 0.002 -> 0.001"
    assert found["captions edited"].after == f"{third.name}, from epoch 3 on"
    meanings = [one.meaning for one in found.values()]
    assert meanings[:-1] == sorted(meanings[:-1], key=[COURSE, SPEED, SAVED].index) and meanings[-1] == LATER
    assert found["training.threads"].meaning == SPEED
    assert "\x1b" not in str(found["saving.title"]) and "\\x1b]0;x" in str(found["saving.title"])
    resumed = finish(open_run(run.root))
    assert resumed.exit_reason == "finished", told(resumed, RunFailed)
    assert told(resumed, Changed) == [one for one in found.values() if one.meaning != LATER]
    # What was told by name is not told again as a digest.
    assert not [log for log in told(resumed, Log) if "its course may differ" in log.text]
    assert len(list(run.records.iterdir())) == 2


def test_what_a_state_cannot_take_is_refused_before_and_in_the_run(run):
    change(run, optimizer={"name": "lion"}, lora={"rank": 8})
    refused = [one for one in outlook(run.root).changes if one.meaning == REFUSED]
    assert {one.name for one in refused} == {"optimizer.name", "lora.rank"}
    failed = finish(open_run(run.root))
    (event,) = told(failed, RunFailed)
    assert event.title == "The run cannot go on with what was changed"
    assert event.detail.splitlines() == list(map(str, refused)) and "lora.resume_from" in event.hint


def test_another_base_model_is_refused(run):
    changed = run.root.parent.parent / "other.safetensors"
    raw = bytearray(Path(load_config(run.config).model.transformer).read_bytes())
    raw[-1] ^= 1
    changed.write_bytes(raw)
    change(run, model={"transformer": changed})
    (refused,) = (one for one in outlook(run.root).changes if one.meaning == REFUSED)
    assert refused.name == "base model" and str(changed)[:40] in refused.after
    (event,) = told(finish(open_run(run.root)), RunFailed)
    assert event.title == "The base model is another one than before"


def test_what_stands_in_the_way_is_said(run):
    shutil.move(data(run), data(run).with_name("elsewhere"))
    with pytest.raises(DatasetError, match="pictures are gone") as caught:
        outlook(run.root)
    assert "dataset.folders" in caught.value.hint
    change(run, dataset={"folders": [{"path": data(run).with_name("elsewhere")}]})
    assert COURSE not in {one.meaning for one in outlook(run.root).changes}
    change(run, model={"t5": run.root / "none.safetensors"})
    with pytest.raises(ModelFileError):
        outlook(run.root)
    with pytest.raises(RunError, match="No run stands there"):
        outlook(run.root.parent)


def damage(folder):
    path = folder / "optimizer.safetensors"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_a_damaged_state_is_passed_over_and_named(run):
    damage(generations(run.states)[0])
    ahead = outlook(run.root)
    assert ahead.damaged == ("step-00000004: optimizer.safetensors does not match its checksum",)
    assert (ahead.step, ahead.epoch) == (3, 1)
    resumed = finish(open_run(run.root))
    assert resumed.exit_reason == "finished"
    assert [log.text for log in told(resumed, Log) if "step-00000004" in log.text]
    for folder in generations(run.states):
        damage(folder)
    with pytest.raises(RunError, match="No training state can be read") as caught:
        outlook(run.root)
    assert "test.safetensors" in caught.value.hint and "lora.resume_from" in caught.value.hint
    (event,) = told(finish(open_run(run.root)), RunFailed)
    assert (event.title, event.hint) == (caught.value.title, caught.value.hint)


def test_a_state_of_the_former_format_goes_on_with_what_it_tells(run):
    for folder in generations(run.states):
        table = json.loads((folder / "state.json").read_bytes())
        del table["record"]
        text = json.dumps(table | {"format": 2}).encode()
        (folder / "state.json").write_bytes(text)
        manifest = json.loads((folder / "MANIFEST.json").read_bytes())
        manifest["state.json"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    change(run, optimizer={"learning_rate": 1e-3})
    ahead = outlook(run.root)
    assert (ahead.step, ahead.changes, ahead.told_whole) == (4, (), False)
    resumed = finish(open_run(run.root))
    assert resumed.exit_reason == "finished" and not told(resumed, Changed)
    assert [log for log in told(resumed, Log) if "The settings changed" in log.text]


def flat(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name


def test_the_meaning_of_every_setting_agrees_with_what_the_state_digests(tmp_path):
    config = pocket_config(tmp_path)
    assert "masks" not in trained_settings(config)["dataset"]  # as before there were any
    config = pocket_config(tmp_path, dataset={"masks": {"source": "alpha"}})
    learned = set(flat(trained_settings(config)))
    for name in flat(config.model_dump(mode="json")):
        counts = meaning_of(name, "cosine") in (COURSE, REFUSED, ROUNDING)
        if name not in ("training.device", "dataset.folders", "lora.ranks", "lora.alphas"):
            assert counts == (name in learned), name
    assert meaning_of("training.epochs", "constant") == LENGTH
    assert meaning_of("dataset.folders[2].repeats", "constant") == COURSE


def test_a_record_is_kept_whole_or_not_at_all(tmp_path):
    config = pocket_config(tmp_path)
    empty = take_record(config, (), {})
    found = look(config, empty)
    assert len(found.pictures) == 5
    name = save_record(tmp_path / "records", found)
    assert load_record(tmp_path / "records", name) == found and save_record(tmp_path / "records", found) == name
    (path,) = (tmp_path / "records").iterdir()
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert load_record(tmp_path / "records", name) is None
    assert save_record(tmp_path / "records", found) == name and load_record(tmp_path / "records", name) == found
    assert load_record(tmp_path / "records", "../../etc/passwd") is load_record(tmp_path / "records", "") is None


def test_a_setting_that_came_later_counts_as_its_default(tmp_path):
    config = pocket_config(tmp_path)
    now = take_record(config, (), {"device": "cpu"})
    before = replace(now, settings={**now.settings, "sampling": {"width": 64, "height": 64, "steps": 2}})
    assert compare(before, now) == [] == compare(now, now)
    gone = replace(now, settings={**now.settings, "sampling": {**now.settings["sampling"], "gone": 1}})
    assert {change.name for change in compare(gone, now)} == {"sampling.gone"}
    other = replace(now, versions={**now.versions, "device": "NVIDIA H100", "torch": ""})
    assert [(change.meaning, str(change)) for change in compare(other, now)] == [
        (ROUNDING, "device: NVIDIA H100 -> cpu")
    ]


def test_a_picture_is_read_only_where_its_stamp_changed(tmp_path, monkeypatch):
    config = pocket_config(tmp_path)
    before = look(config, take_record(config, (), {}))
    read = []
    monkeypatch.setattr("engine.training.record.file_digest", lambda path: read.append(Path(path)) or "other")
    assert compare(before, look(config, before)) == [] and read == []
    picture = pictures(tmp_path / "data", 1) / "00.png"
    picture.touch()
    assert [change.name for change in compare(before, look(config, before))] == ["pictures replaced"]
    assert read == [picture]

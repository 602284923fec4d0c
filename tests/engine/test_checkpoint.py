"""Training states: whole or not there, and never silently wrong."""

import hashlib
import json
import os

import pytest
import torch

from engine.errors import DiskError, RunError
from engine.training import checkpoint
from engine.training.checkpoint import Place, TrainingState, load_newest, save_state
from engine.training.generations import generations, sweep


def state(step: int) -> TrainingState:
    generator = torch.Generator().manual_seed(step)
    return TrainingState(
        Place(step=step, epoch=2, index=step % 4, loss_sum=0.125 * step, elapsed_s=1.5),
        {"a.lora_down.weight": torch.randn(4, 8, generator=generator)},
        {"0.exp_avg": torch.randn(4, 8, generator=generator), "0.step": torch.tensor(3.0)},
        {"groups": [{"lr": 0.1}]},
        {"base model": "abc"},
    )


def test_round_trip(tmp_path):
    save_state(tmp_path, state(5), keep=2)
    loaded, damaged = load_newest(tmp_path)
    wanted = state(5)
    assert damaged == [] and loaded is not None
    assert loaded.place == wanted.place and loaded.identity == wanted.identity
    assert loaded.optimizer_json == wanted.optimizer_json
    for ours, theirs in ((loaded.lora, wanted.lora), (loaded.optimizer, wanted.optimizer)):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_keeps_the_newest(tmp_path):
    for step in range(1, 6):
        save_state(tmp_path, state(step), keep=2)
    assert [folder.name for folder in generations(tmp_path)] == ["step-00000005", "step-00000004"]


def test_saving_the_same_step_twice_is_fine(tmp_path):
    save_state(tmp_path, state(5), keep=2)
    save_state(tmp_path, state(5), keep=2)
    assert sorted(os.listdir(tmp_path)) == ["step-00000005"]


def test_a_state_under_the_name_of_another_step_is_passed_over(tmp_path):
    older, newer = (save_state(tmp_path, state(step), keep=2) for step in (3, 4))
    aside = tmp_path / "aside"
    os.rename(older, aside)
    os.rename(newer, older)
    os.rename(aside, newer)
    with pytest.raises(RunError) as refused:
        load_newest(tmp_path)
    assert "it is the state of step 3, under another's name" in refused.value.detail
    save_state(tmp_path, state(5), keep=3)
    loaded, _ = load_newest(tmp_path)
    assert loaded is not None and loaded.place.step == 5


def test_nothing_there_is_a_fresh_start(tmp_path):
    assert load_newest(tmp_path) == (None, [])


@pytest.mark.parametrize("name", ["lora.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"])
def test_any_flipped_byte_is_noticed_and_the_state_before_taken(tmp_path, name):
    save_state(tmp_path, state(1), keep=3)
    newest = save_state(tmp_path, state(2), keep=3)
    whole = (newest / name).read_bytes()
    places = range(len(whole)) if len(whole) < 400 else range(0, len(whole), 37)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x04
        (newest / name).write_bytes(damaged)
        loaded, lines = load_newest(tmp_path)
        assert loaded is not None
        if loaded.place.step == 1:
            assert len(lines) == 1 and "step-00000002" in lines[0]
        else:
            # Only in the manifest can a flip be harmless: in white space or a name nobody reads.
            assert name == "MANIFEST.json" and torch.equal(
                loaded.lora["a.lora_down.weight"], state(2).lora["a.lora_down.weight"]
            )


@pytest.mark.parametrize("name", ["lora.safetensors", "MANIFEST.json"])
def test_a_truncated_or_missing_file_is_noticed(tmp_path, name):
    newest = save_state(tmp_path, state(2), keep=3)
    whole = (newest / name).read_bytes()
    (newest / name).write_bytes(whole[:10])
    with pytest.raises(RunError, match="No training state can be read"):
        load_newest(tmp_path)
    (newest / name).unlink()
    with pytest.raises(RunError):
        load_newest(tmp_path)


def test_a_failing_disk_leaves_the_states_before(tmp_path, monkeypatch):
    save_state(tmp_path, state(1), keep=2)

    def fail(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match="full"):
        save_state(tmp_path, state(2), keep=2)
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["step-00000001"]
    loaded, _ = load_newest(tmp_path)
    assert loaded is not None and loaded.place.step == 1


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newer_state_does_not_outlive_the_one_just_written(tmp_path, keep):
    save_state(tmp_path, state(100), keep=5)
    newest = save_state(tmp_path, state(200), keep=5)
    (newest / "lora.safetensors").write_bytes(b"damaged")
    loaded, _ = load_newest(tmp_path)
    assert loaded is not None and loaded.place.step == 100
    save_state(tmp_path, state(150), keep=keep)
    assert [folder.name for folder in generations(tmp_path)] == ["step-00000150", "step-00000100"][:keep]


def test_what_a_kill_leaves_half_done_is_cleared_up(tmp_path):
    whole = save_state(tmp_path, state(7), keep=2)
    (tmp_path / ".step-00000009.part").mkdir()
    os.rename(whole, tmp_path / ".step-00000007.old")
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["step-00000007"]
    save_state(tmp_path, state(8), keep=2)
    os.rename(tmp_path / "step-00000008", tmp_path / ".step-00000007.old")
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["step-00000007"]
    loaded, _ = load_newest(tmp_path)
    assert loaded is not None and loaded.place.step == 7


def test_a_whole_state_of_another_format_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    save_state(tmp_path, state(3), keep=2)
    monkeypatch.undo()
    with pytest.raises(RunError, match="another version") as caught:
        load_newest(tmp_path)
    assert "format 1" in caught.value.detail and "lora.resume_from" in caught.value.hint
    assert [folder.name for folder in generations(tmp_path)] == ["step-00000003"]


FORMER = {
    "lora.safetensors": (
        b'X\x00\x00\x00\x00\x00\x00\x00{"a.lora_down.weight": {"dtype": "F32", "shape": [1,'
        b' 2], "data_offsets": [0, 8]}}       \x00\x00\x80?\x00\x00\x00\xc0'
    ),
    "optimizer.safetensors": (
        b'H\x00\x00\x00\x00\x00\x00\x00{"0.exp_avg": {"dtype": "F32", "shape": [2], "data_o'
        b'ffsets": [0, 8]}}   \x00\x00\x00?\x00\x00\x80>'
    ),
    "state.json": (
        b'{"format": 2, "place": {"step": 3, "epoch": 2, "index": 1, "'
        b'loss_sum": 0.375, "elapsed_s": 1.5}, "optimizer": {"groups":'
        b' [{"lr": 0.1}]}, "identity": {"base model": "abc", "torch ve'
        b'rsion": "2.13.0+cpu", "device": "cpu"}, "torch": "2.13.0+cpu'
        b'"}'
    ),
}
"""A state that the version before wrote, in format 2."""


def test_a_state_of_the_version_before_is_read(tmp_path):
    folder = tmp_path / "step-00000003"
    folder.mkdir()
    manifest = {}
    for name, data in FORMER.items():
        (folder / name).write_bytes(data)
        manifest[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    loaded, damaged = load_newest(tmp_path)
    assert loaded is not None and damaged == []
    assert loaded.place == Place(3, 2, 1, 0.375, 1.5) and loaded.record == ""
    assert loaded.lora["a.lora_down.weight"].tolist() == [[1.0, -2.0]]
    assert loaded.optimizer["0.exp_avg"].tolist() == [0.5, 0.25]
    assert loaded.identity == {"base model": "abc", "torch version": "2.13.0+cpu", "device": "cpu"}

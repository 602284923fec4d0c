"""What accidents do to a run: full disks, folders that cannot be written, changed datasets, swapped models."""

import errno
import gc
import os
import shutil

import pytest
import torch
from pocket import FILES, finish, pictures, pocket_config, submit_after, told
from safetensors.torch import load_file

from engine.commands import Pause, Resume, StopAtEpoch, StopNow
from engine.config import RunConfig
from engine.errors import RunError
from engine.events import Changed, Log, Progress, RunFailed, RunStarted, StateChanged, StepDone, StopPlanned
from engine.files import RunFolder
from engine.models.autoencoder import Autoencoder
from engine.models.flux_text import FluxTextEncoder
from engine.run import Run, open_run
from engine.training import lean


def test_encoders_are_gone_before_the_transformer_arrives(tmp_path, monkeypatch):
    load = lean.load_base
    alive = []

    def loading(*args, **options):
        alive.extend(type(o).__name__ for o in gc.get_objects() if isinstance(o, Autoencoder | FluxTextEncoder))
        return load(*args, **options)

    monkeypatch.setattr(lean, "load_base", loading)
    assert finish(Run(pocket_config(tmp_path, training={"steps": 1}))).exit_reason == "finished"
    assert alive == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    run = finish(Run(pocket_config(tmp_path, runs_dir=tmp_path / "file" / "runs")))
    [failure] = told(run, RunFailed)
    assert str(tmp_path / "file") in failure.detail
    assert run.folder is None


@pytest.mark.parametrize("place", ["runs", pytest.param("cache", marks=pytest.mark.slow)])
def test_a_read_only_folder_is_said_and_nothing_is_lost(tmp_path, monkeypatch, place):
    """Permissions do not bind root, so the system's refusal is put in at the call that makes folders."""
    finish(Run(pocket_config(tmp_path, training={"steps": 1})))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    mkdir = os.mkdir

    def refusing(path, *args, **kwargs):
        if str(path).startswith(str(tmp_path / f"other-{place}")):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", refusing)
    run = finish(Run(pocket_config(tmp_path, **{f"{place}_dir": tmp_path / f"other-{place}"})))
    [failure] = told(run, RunFailed)
    assert failure.title == "The folder cannot be written"
    assert f"other-{place}" in failure.detail and f"{place}_dir" in failure.hint
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder.mkdir(), "picture"),
        (lambda folder: None, "data2"),
        (lambda folder: pictures(folder, 2) and (folder / "00.txt").write_bytes(b"\xff\xfe\xff"), "00.txt"),
        (lambda folder: pictures(folder, 2) and (folder / "00.png").write_bytes(b""), "00.png"),
        (lambda folder: pictures(folder, 2) and shutil.copy(folder / "00.png", folder / "00.jpg"), "00.jpg"),
    ],
    ids=["empty", "absent", "encoding", "zero bytes", "one stem"],
)
def test_bad_datasets_are_refused_before_anything_is_loaded(tmp_path, make, words):
    folder = tmp_path / "data2"
    make(folder)
    run = finish(Run(pocket_config(tmp_path, dataset={"folders": [{"path": folder}]})))
    [failure] = told(run, RunFailed)
    assert words in failure.title + failure.detail
    assert failure.hint


def test_a_truncated_picture_is_named(tmp_path):
    folder = pictures(tmp_path / "data2", 2)
    whole = (folder / "01.png").read_bytes()
    (folder / "01.png").write_bytes(whole[: len(whole) // 2])
    run = finish(Run(pocket_config(tmp_path, dataset={"folders": [{"path": folder}]})))
    [failure] = told(run, RunFailed)
    assert "01.png" in failure.title + failure.detail


def test_a_changed_dataset_is_said_on_resume_and_another_model_refused(tmp_path, monkeypatch):
    base = tmp_path / "base.safetensors"
    shutil.copy(FILES / "flux-pocket.safetensors", base)
    places = {"clip_tokenizer": FILES / "tokenizer", "t5_tokenizer": FILES / "tokenizer_2"}
    config = pocket_config(tmp_path, model={"transformer": base} | places)
    submit_after(monkeypatch, {2: [StopNow()], 4: [StopNow()]})
    run = finish(Run(config))
    (tmp_path / "data" / "00.txt").write_text("a zorple somewhere else")
    again = finish(open_run(run.folder.root))
    assert any("since the run stopped count from epoch 2: 00.png" in event.text for event in told(again, Log))
    changed = bytearray(base.read_bytes())
    changed[-1000] ^= 1
    base.write_bytes(changed)
    refused = finish(open_run(run.folder.root))
    assert told(refused, RunFailed)[0].title == "The base model is another one than before"


def test_a_missing_tokenizer_says_which_files_to_put_where(tmp_path):
    for name in ("flux", "ae", "clip", "t5"):
        shutil.copy(FILES / f"{name}-pocket.safetensors", tmp_path)
    model = {
        key: tmp_path / f"{name}-pocket.safetensors"
        for key, name in (("transformer", "flux"), ("autoencoder", "ae"), ("clip_l", "clip"), ("t5", "t5"))
    }
    run = finish(Run(pocket_config(tmp_path, model=model)))
    [failure] = told(run, RunFailed)
    assert "tokenizer" in failure.title.lower()
    assert "vocab.json" in failure.detail + failure.hint


def test_a_hostile_file_name_reaches_no_event(tmp_path):
    folder = pictures(tmp_path / "data2", 2)
    name = "a\x1b]0;owned\x07[red][@click=app.quit]"
    os.rename(folder / "00.png", folder / f"{name}.png")
    os.rename(folder / "00.txt", folder / f"{name}.txt")
    config = pocket_config(tmp_path, dataset={"folders": [{"path": folder}]}, training={"steps": 1})
    run = finish(Run(config))
    assert run.exit_reason == "finished"
    texts = [value for event in told(run, object) for value in vars(event).values() if isinstance(value, str)]
    assert any("owned" in text for text in texts)
    assert not any("\x1b" in text or "\x07" in text for text in texts)
    assert b"\x1b" not in run.folder.log.read_bytes()


def test_config_as_run_is_kept(tmp_path):
    config = pocket_config(tmp_path, training={"steps": 1})
    run = finish(Run(config))
    from engine.config_file import load_config

    assert isinstance(run.folder, RunFolder)
    loaded = load_config(run.folder.config)
    assert isinstance(loaded, RunConfig) and loaded == config


def test_samples_that_fail_cost_a_line_in_the_log_and_nothing_else(tmp_path, monkeypatch):
    import engine.training.pictures as painting

    def failing(*args):
        raise RunError("A sample came out with values that are not finite", "x", "Lower the learning rate.")

    monkeypatch.setattr(painting, "save_png", failing)
    run = finish(Run(pocket_config(tmp_path, sampling={"prompts": [{"prompt": "a zorple"}]})))
    assert run.exit_reason == "finished"
    lines = [event.text for event in told(run, Log) if "Samples were left out" in event.text]
    assert len(lines) == 4 and "not finite" in lines[0]
    assert [event.state for event in told(run, StateChanged)][-1] == "finished"


def test_a_learning_rate_changed_before_a_resume_counts(tmp_path, monkeypatch):
    submit_after(monkeypatch, {3: [StopNow()]})
    run = finish(Run(pocket_config(tmp_path)))
    slower = run.config.model_copy(
        update={"optimizer": run.config.optimizer.model_copy(update={"learning_rate": 1e-9})}
    )
    before = load_file(run.folder.root / "test-s000003.safetensors")
    again = finish(Run(slower, resume_from=run.folder.root))
    after = load_file(again.folder.root / "test.safetensors")
    assert {event.lr for event in told(again, StepDone)} == {1e-9}
    changes = {change.name: (change.before, change.after) for change in told(again, Changed)}
    assert changes["optimizer.learning_rate"] == ("0.002", "1e-09")
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_loading_ends_when_the_user_stops(tmp_path, monkeypatch):
    load = lean.load_base
    run = Run(pocket_config(tmp_path))

    def stopping(*args, **options):
        run.submit(StopNow())
        return load(*args, **options)

    monkeypatch.setattr(lean, "load_base", stopping)
    finish(run)
    assert run.exit_reason == "stopped" and not told(run, RunStarted)


def test_loading_tells_its_progress(tmp_path):
    run = finish(Run(pocket_config(tmp_path, training={"steps": 1})))
    seen = [event for event in told(run, Progress) if event.stage == "load transformer"]
    assert seen[-1].done == seen[-1].total and len(seen) > 5


def test_a_gpu_that_others_filled_keeps_the_run_released(tmp_path, monkeypatch):
    import engine.trainer as trainer

    full = [torch.OutOfMemoryError("no room"), None]
    monkeypatch.setattr(trainer, "leave_gpu", lambda kit: None)

    def returning(kit):
        failure = full.pop(0)
        if failure:
            run.submit(Resume())
            raise failure

    monkeypatch.setattr(trainer, "return_to_gpu", returning)
    submit_after(monkeypatch, {2: [Pause(release=True)]})
    run = Run(pocket_config(tmp_path))
    run.submit(Resume())
    run.start()
    while run.state != "released" and run.alive:
        run.join(0.02)
    run.submit(Resume())
    assert run.join(60) and run.exit_reason == "finished"
    assert any("no room for the run yet" in event.text for event in told(run, Log))


def test_a_stop_planned_while_caching_is_told_again_with_the_outline(tmp_path):
    run = Run(pocket_config(tmp_path))
    run.submit(StopAtEpoch(1))
    finish(run)
    kinds = [event for event in told(run, RunStarted, StopPlanned)]
    assert isinstance(kinds[-1], StopPlanned) and kinds[-1].epoch == 1
    assert told(run, StepDone)[-1].step == 3


def test_a_run_in_a_folder_that_others_may_write_says_so(tmp_path):
    missing = {"model": {"transformer": tmp_path / "none.safetensors"}}
    before = os.umask(0)
    try:
        run = finish(Run(pocket_config(tmp_path, **missing)))
    finally:
        os.umask(before)
    (said,) = [event.text for event in told(run, Log) if "Others may change" in event.text]
    assert "everybody on this machine" in said
    quiet = finish(Run(pocket_config(tmp_path, name="quiet", **missing)))
    assert not [event for event in told(quiet, Log) if "Others may change" in event.text]

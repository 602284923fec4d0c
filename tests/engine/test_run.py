"""Whole runs on the pocket model: commands, states, what lies in the folder, what bad input gets."""

import os
import threading

import pytest
from pocket import FILES, finish, pocket_config, submit_after, told

from engine.commands import (
    CancelStop,
    Pause,
    Resume,
    SampleNow,
    SaveNow,
    StopAfterEpoch,
    StopAtEpoch,
    StopNow,
)
from engine.config_file import load_config
from engine.events import (
    CheckpointSaved,
    EpochDone,
    RunDone,
    RunFailed,
    RunStarted,
    SampleSaved,
    StateChanged,
    StepDone,
    replay,
)
from engine.run import Run, open_run

ONE_PROMPT = {"sampling": {"prompts": [{"prompt": "a zorple at the left"}], "at_start": False}}


def states(run):
    return [event.state for event in told(run, StateChanged)]


def test_a_run_from_start_to_finish(tmp_path):
    run = finish(Run(pocket_config(tmp_path, **ONE_PROMPT)))
    assert run.exit_reason == "finished", told(run, RunFailed)
    steps = told(run, StepDone)
    assert [event.step for event in steps] == list(range(1, 10))
    assert [event.epoch for event in steps] == [1] * 3 + [2] * 3 + [3] * 3
    assert all(event.loss > 0 and event.grad_norm > 0 and event.step_s > 0 for event in steps)
    epochs = told(run, EpochDone)
    for epoch in epochs:
        mean = sum(s.loss for s in steps if s.epoch == epoch.epoch) / 3
        assert epoch.loss == pytest.approx(mean)
    assert states(run)[:4] == ["preparing", "caching", "loading", "training"]
    assert states(run)[-1] == "finished"
    [start], [done] = told(run, RunStarted), told(run, RunDone)
    assert (start.steps, start.epochs, start.images) == (9, 3, 5)
    assert (done.step, done.epoch, done.reason) == (9, 3, "finished")
    names = sorted(path.name for path in run.folder.root.glob("*.safetensors"))
    assert names == ["test-e0001.safetensors", "test-e0002.safetensors", "test-e0003.safetensors", "test.safetensors"]
    assert len(told(run, SampleSaved)) == 3
    assert len(list(run.folder.samples.glob("*.png"))) == 3
    assert [e.event for e in replay(run.folder.events)] == [e.event for e in run.events.since(0)]
    assert load_config(run.folder.config) == run.config


def test_a_second_run_of_the_name_gets_its_own_folder_and_finds_the_caches_filled(tmp_path):
    config = pocket_config(tmp_path, training={"steps": 1})
    first, second = finish(Run(config)), finish(Run(config))
    assert first.folder.root != second.folder.root
    cached = sorted((tmp_path / "cache").rglob("*.safetensors"))
    times = [path.stat().st_mtime_ns for path in cached]
    third = finish(Run(config))
    assert third.exit_reason == "finished"
    assert [path.stat().st_mtime_ns for path in cached] == times


def test_pause_holds_until_resume(tmp_path, monkeypatch):
    submit_after(monkeypatch, {4: [Pause(release=True)]})
    run = Run(pocket_config(tmp_path))
    run.start()
    wait_for(lambda: run.state == "released")
    assert told(run, StepDone)[-1].step == 4
    run.submit(Resume())
    assert run.join(60)
    assert run.exit_reason == "finished"
    assert told(run, StepDone)[-1].step == 9


def test_save_and_sample_while_paused(tmp_path, monkeypatch):
    submit_after(monkeypatch, {2: [Pause(), SaveNow(), SampleNow()]})
    run = Run(pocket_config(tmp_path, **ONE_PROMPT))
    run.start()
    wait_for(lambda: told(run, SampleSaved))
    wait_for(lambda: run.state == "paused")
    assert told(run, CheckpointSaved)[-1].kind == "manual"
    run.submit(SampleNow())
    wait_for(lambda: len(told(run, SampleSaved)) >= 2)
    run.submit(StopNow())
    assert run.join(60)
    assert run.exit_reason == "stopped"


@pytest.mark.parametrize(
    ("plan", "last"),
    [
        ({4: [StopNow()]}, 4),
        ({4: [StopAfterEpoch()]}, 6),
        ({1: [StopAtEpoch(2)]}, 6),
        ({1: [StopAtEpoch(1)], 2: [CancelStop()]}, 9),
    ],
)
def test_stops(tmp_path, monkeypatch, plan, last):
    submit_after(monkeypatch, plan)
    run = finish(Run(pocket_config(tmp_path)))
    assert told(run, StepDone)[-1].step == last
    assert run.exit_reason == ("finished" if last == 9 else "stopped")
    assert told(run, RunDone)[0].lora and os.path.exists(told(run, RunDone)[0].lora)


def test_a_stop_before_the_first_step_ends_the_caching(tmp_path):
    run = Run(pocket_config(tmp_path))
    run.submit(StopNow())
    finish(run)
    assert run.exit_reason == "stopped"
    assert not told(run, StepDone)


def test_two_processes_cannot_train_one_folder(tmp_path, monkeypatch):
    submit_after(monkeypatch, {2: [Pause()]})
    run = Run(pocket_config(tmp_path))
    run.start()
    wait_for(lambda: run.state == "paused")
    second = finish(open_run(run.folder.root))
    [failure] = told(second, RunFailed)
    assert failure.title == "This run is being trained already" and str(os.getpid()) in failure.detail
    run.submit(StopNow())
    assert run.join(60)


def test_failures_are_events_with_a_hint(tmp_path):
    config = pocket_config(tmp_path, model={"transformer": tmp_path / "absent.safetensors"})
    run = finish(Run(config))
    [failure] = told(run, RunFailed)
    assert run.exit_reason == "failed"
    assert "absent.safetensors" in failure.title + failure.detail and failure.hint
    assert "Traceback" in failure.traceback


def test_an_unexpected_exception_is_an_event_too(tmp_path, monkeypatch):
    from engine.trainer import Trainer

    def broken(self, turn):
        raise ZeroDivisionError("odd \x1b[2J")

    monkeypatch.setattr(Trainer, "_step", broken)
    others = set(threading.enumerate())
    run = finish(Run(pocket_config(tmp_path)))
    [failure] = told(run, RunFailed)
    assert failure.title == "Unexpected ZeroDivisionError" and "log.txt" in failure.hint
    assert "\x1b" not in failure.detail
    assert "ZeroDivisionError" in run.folder.log.read_text()
    assert not any(thread.name == "memory-sampler" for thread in set(threading.enumerate()) - others)


def test_a_lora_as_base_and_a_swapped_file_are_refused(tmp_path):
    made = finish(Run(pocket_config(tmp_path, training={"steps": 1})))
    lora = made.folder.root / "test.safetensors"
    for wrong in (lora, FILES / "t5-pocket.safetensors"):
        run = finish(Run(pocket_config(tmp_path, model={"transformer": wrong})))
        [failure] = told(run, RunFailed)
        assert wrong.name in failure.title + failure.detail


def test_nan_in_the_loss_stops_before_it_is_saved(tmp_path, monkeypatch):
    import engine.training.objective as objective

    good = objective.flow_loss
    calls = []

    def poisoned(*args):
        calls.append(1)
        loss, each = good(*args)
        return loss * (float("nan") if len(calls) >= 7 else 1.0), each

    monkeypatch.setattr(objective, "flow_loss", poisoned)
    config = pocket_config(tmp_path, training={"state_every_steps": 1}, faults={"on_nonfinite": "stop"})
    run = finish(Run(config))
    [failure] = told(run, RunFailed)
    assert failure.title == "The loss is no longer a number" and "step 4" in failure.detail
    assert [path.name for path in run.folder.states.iterdir()][-1:] != []
    monkeypatch.setattr(objective, "flow_loss", good)
    again = finish(open_run(run.folder.root))
    assert again.exit_reason == "finished"
    assert told(again, RunStarted)[0].resumed_step == 3


@pytest.mark.parametrize(
    ("every", "sampled", "saved"),
    [(2, [2, 4, 6], [2, 4, 6]), pytest.param(3, [3, 6], [3, 6], marks=pytest.mark.slow)],
)
def test_steps_due_are_kept_at_the_end_of_an_epoch_too(tmp_path, every, sampled, saved):
    cadence = {"every_steps": every, "every_epochs": 0}
    config = pocket_config(
        tmp_path,
        training={"epochs": 2},
        sampling={"prompts": [{"prompt": "a zorple"}], "at_start": False} | cadence,
        saving=cadence,
    )
    run = finish(Run(config))
    assert [event.step for event in told(run, SampleSaved)] == sampled
    assert [event.step for event in told(run, CheckpointSaved) if event.kind == "step"] == saved


def test_an_epochs_last_step_is_saved_once_as_the_epoch(tmp_path):
    config = pocket_config(tmp_path, training={"epochs": 1}, saving={"every_steps": 3, "every_epochs": 1})
    assert [event.kind for event in told(finish(Run(config)), CheckpointSaved)] == ["epoch", "final"]


@pytest.mark.parametrize("masked", [False, True])
def test_the_text_mask_reaches_the_training_step(tmp_path, monkeypatch, masked):
    from engine.models.family import Flux1

    velocity, seen = Flux1.velocity, []

    def watching(self, transformer, latents, sigmas, text, guidance, mask, *rest):
        seen.append((mask, guidance))
        return velocity(self, transformer, latents, sigmas, text, guidance, mask, *rest)

    monkeypatch.setattr(Flux1, "velocity", watching)
    config = pocket_config(tmp_path, model={"t5_mask": masked}, objective={"guidance": 2.5}, training={"steps": 1})
    assert finish(Run(config)).exit_reason == "finished"
    assert set(seen) == {(masked, 2.5)}


def test_a_device_that_is_not_there_is_said(tmp_path):
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="device"):
        pocket_config(tmp_path, training={"device": "gpu"})
    run = finish(Run(pocket_config(tmp_path, training={"device": "cuda:77"})))
    assert told(run, RunFailed)[0].title in ("No GPU that torch can use", "No such GPU")


def test_a_file_says_nothing_about_its_maker(tmp_path):
    """Folder, run and caption words appear in no key or value unless asked for."""
    from engine.lora.metadata import read_metadata

    secrets = ["data", str(tmp_path), "secretrun", "sand background"]
    prompts = [{"prompt": "on a sand background"}]
    quiet = pocket_config(tmp_path, name="secretrun", training={"steps": 1}, sampling={"prompts": prompts})
    metadata = read_metadata(finish(Run(quiet)).folder.root / "secretrun.safetensors")
    named = {key: value for key, value in metadata.items() if key not in ("ss_output_name", "modelspec.title")}
    for secret in secrets:
        assert not any(secret in value for value in named.values()), secret
    saving = {"include_prompts": True, "include_tag_counts": True, "include_folder_names": True, "comment": "hello"}
    open_ = quiet.model_copy(update={"saving": quiet.saving.model_validate(saving)})
    told_all = read_metadata(finish(Run(open_)).folder.root / "secretrun-2.safetensors")
    assert "data" in told_all["ss_dataset_dirs"] and "zorple" in told_all["ss_tag_frequency"]
    assert "sand background" in str(told_all) and "hello" in str(told_all)


def test_an_empty_folder_is_no_run(tmp_path):
    from engine.errors import RunError

    with pytest.raises(RunError, match="No run stands there"):
        open_run(tmp_path)


def wait_for(condition, timeout_s=60.0):
    deadline = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        deadline.wait(0.02)
    raise AssertionError("it did not come")

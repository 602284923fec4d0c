"""The same bits, whatever happens on the way: pauses, stops, samples, saves.

The oracle is always an undisturbed run in the same process; a stored number would not travel between processors.
"""

import pytest
import torch
from interrupted import holding
from pocket import finish, pictures, pocket_config, submit_after, told
from safetensors.torch import load_file

from engine.commands import Pause, SampleNow, SaveNow, StopNow
from engine.events import RunFailed, StepDone
from engine.run import Run, open_run

HARD = {
    "lora": {"dropout": 0.1, "rank_dropout": 0.1, "module_dropout": 0.1, "max_norm": 0.5},
    "dataset": {
        "flip": True,
        "random_crop": True,
        "captions": {"dropout": 0.2, "shuffle": True},
    },
    "schedule": {"name": "cosine", "warmup_steps": 2},
}


def result(run):
    assert run.exit_reason == "finished", told(run, RunFailed)
    losses = {event.step: event.loss for event in told(run, StepDone)}
    return load_file(run.folder.root / f"{run.folder.name}.safetensors"), losses


def assert_same(first, second):
    (weights, losses), (other_weights, other_losses) = first, second
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    assert losses and all(losses[step] == other_losses[step] for step in losses)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """One cache and dataset for all; an undisturbed run by optimizer, made when first asked for."""
    home = tmp_path_factory.mktemp("exact")
    pictures(home / "reg", 3, "regularization")
    folders = [{"path": home / "data"}, {"path": home / "reg", "regularization": True}]
    made = {}

    def config(optimizer="adamw"):
        rate = 1.0 if optimizer == "prodigy" else 2e-3
        changes = HARD | {"optimizer": {"name": optimizer, "learning_rate": rate}}
        changes["dataset"] = HARD["dataset"] | {"folders": folders}
        return pocket_config(home, **changes)

    def get(optimizer="adamw"):
        if optimizer not in made:
            made[optimizer] = result(finish(Run(config(optimizer))))
        return config(optimizer), made[optimizer]

    return get


def test_a_repeated_run_is_the_same(undisturbed):
    config, expected = undisturbed()
    assert_same(result(finish(Run(config))), expected)


STEPS = range(1, 16)


def test_pausing_at_every_step_changes_nothing(undisturbed, monkeypatch):
    config, expected = undisturbed()
    submit_after(monkeypatch, {step: [Pause(release=step % 2 == 0)] for step in STEPS})
    with holding() as held:
        run = finish(Run(config))
    assert_same(result(run), expected)
    assert len(held) == len(STEPS) - 1 and set(held) == {"paused", "released"}


def test_stopping_and_resuming_at_every_step_changes_nothing(undisturbed, monkeypatch):
    config, expected = undisturbed()
    submit_after(monkeypatch, {step: [StopNow()] for step in STEPS[:-1]})
    run = finish(Run(config))
    for step in STEPS[:-1]:
        assert run.exit_reason == "stopped" and [event.step for event in told(run, StepDone)] == [step]
        run = finish(open_run(run.folder.root))
    assert_same(result(run), expected)


@pytest.mark.parametrize("step", [5, 7])
def test_one_stop_at_an_epochs_end_or_within_changes_nothing(undisturbed, monkeypatch, step):
    config, expected = undisturbed()
    submit_after(monkeypatch, {step: [StopNow()]})
    stopped = finish(Run(config))
    assert stopped.exit_reason == "stopped" and told(stopped, StepDone)[-1].step == step
    assert_same(result(finish(open_run(stopped.folder.root))), expected)


@pytest.mark.slow
def test_samples_and_saves_on_the_way_change_nothing(undisturbed, monkeypatch):
    config, expected = undisturbed()
    prompts = [{"prompt": "a zorple at the left", "seed": 3}]
    sampling = config.sampling.model_validate(
        {"prompts": prompts, "width": 64, "height": 64, "steps": 2, "every_steps": 2, "every_epochs": 1, "cfg": 2.0}
    )
    busy = config.model_copy(update={"sampling": sampling})
    submit_after(monkeypatch, {2: [SampleNow(), SaveNow()], 6: [SampleNow()]})
    assert_same(result(finish(Run(busy))), expected)


def test_another_seed_is_another_run(undisturbed):
    config, (weights, _) = undisturbed()
    other, _ = result(finish(Run(config.model_copy(update={"seed": 12}))))
    assert any(not torch.equal(weights[name], other[name]) for name in weights if "alpha" not in name)

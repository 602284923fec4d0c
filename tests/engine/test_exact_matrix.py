"""Bit for bit the same after an interruption: every optimizer, every kind of moment, captions edited on the way.

The oracle is the uninterrupted run itself: it is frozen at each moment as a kill there would leave it, and what
stands is resumed. Stops are asked for at the same moments.
"""

import random

import pytest
from interrupted import KINDS, assert_same, finished, freezer, holding, left_by, varied_config, watching
from pocket import finish, told
from reliability import figure

from engine.commands import Pause, StopAtEpoch, StopNow
from engine.config import OptimizerConfig
from engine.events import RunDone, StepDone, StopPlanned
from engine.files import RunFolder
from engine.run import Run, open_run
from engine.training.generations import read_newest

OPTIMIZERS = OptimizerConfig.model_fields["name"].annotation.__args__

MOMENTS = {
    1: (("micro", 4), ("micro", 8), ("epoch", 1), ("epoch", 2), ("picture", 2), ("picture", 4), ("picture", 7),
        ("lora", 1), ("lora", 2), ("state", 1), ("state", 4)),
    4: (("micro", 3), ("micro", 7), ("micro", 13), ("epoch", 1), ("epoch", 2), ("picture", 4), ("picture", 6),
        ("lora", 1), ("lora", 2), ("state", 1), ("state", 2)),
}  # fmt: skip
"""By accumulation: within and between steps, at the ends of epochs, while drawing, while writing."""


def edits(home, accumulation):
    """A caption edited in the first epoch, and two in the second."""
    data, first, second = home / "data", 1, 6 if accumulation == 1 else 3
    return (
        (first, data / "00.txt", "a zorple, edited once"),
        (second, data / "00.txt", "a zorple, edited twice"),
        (second, data / "03.txt", "red, a zorple, edited"),
    )


def interrupt(tmp_path, optimizer, accumulation, frozen, stopped):
    """Freeze an undisturbed run at ``frozen`` and resume what stands; stop others at ``stopped``, and resume them."""
    config = varied_config(tmp_path, optimizer, accumulation)
    begun = {path: path.read_text() for path in (tmp_path / "data").glob("*.txt")}
    with watching(freezer(tmp_path / "frozen", *frozen), *edits(tmp_path, accumulation)) as told:
        wanted = left_by(finished(finish(Run(config))))
    assert set(told) == set(KINDS) and all(told[kind] >= count for kind, count in (*frozen, *stopped))
    if "8bit" in optimizer:
        generation, _ = read_newest(tmp_path / "runs" / "test" / "state", lambda whole: whole)
        assert b'"dtype": "U8"' in generation.contents["optimizer.safetensors"]
    for kind, count in frozen:
        for path, text in begun.items():
            path.write_text(text)
        resume_frozen(tmp_path, RunFolder(tmp_path / "frozen" / f"{kind}-{count}" / "test"), accumulation, wanted)
    for moment in stopped:
        for path, text in begun.items():
            path.write_text(text)
        stop_at(tmp_path, config, moment, accumulation, wanted)
    return len(frozen) + len(stopped)


def resume_frozen(home, folder, accumulation, wanted):
    """Go on from what a kill left, with the captions as they were then."""
    state, _ = read_newest(folder.states, lambda whole: whole.table["place"]["step"])
    done = state or 0
    # What had been written by the time of the kill stands in the files: at least all up to the state.
    for step, path, text in edits(home, accumulation):
        if step <= done:
            path.write_text(text)
    with watching(lambda *_: None, *edits(home, accumulation)):
        assert_same(left_by(finished(finish(open_run(folder.root)))), wanted)


def stop_at(home, config, moment, accumulation, wanted):
    """Ask for a stop at the moment, and go on with the run."""

    def at(trainer, kind, count):
        if (kind, count) == moment:
            trainer.control.commands.submit(StopNow())

    with watching(at, *edits(home, accumulation)):
        run = finish(Run(config))
    assert run.exit_reason == "stopped", moment
    with watching(lambda *_: None, *edits(home, accumulation)):
        assert_same(left_by(finished(finish(open_run(run.folder.root)))), wanted)


@pytest.mark.parametrize(
    ("optimizer", "accumulation", "frozen", "stopped"),
    [
        ("adamw", 1, (("picture", 4),), (("picture", 3),)),
        pytest.param("adamw8bit", 4, (("state", 2),), (), marks=pytest.mark.crash),
        pytest.param("adafactor", 1, (("lora", 2),), (), marks=pytest.mark.crash),
        pytest.param("prodigy", 4, (("micro", 7),), (), marks=pytest.mark.crash),
        pytest.param("adamw_schedulefree", 1, (("epoch", 2),), (), marks=pytest.mark.crash),
    ],
)
def test_an_interrupted_run_leaves_what_an_uninterrupted_one_does(optimizer, accumulation, frozen, stopped, tmp_path):
    interrupt(tmp_path, optimizer, accumulation, frozen, stopped)


@pytest.mark.crash
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_at_every_kind_of_moment(optimizer, accumulation, tmp_path):
    moments = MOMENTS[accumulation]
    first_of_each = tuple({kind: (kind, count) for kind, count in reversed(moments)}.values())
    count = interrupt(tmp_path, optimizer, accumulation, moments, first_of_each)
    figure(
        "exact",
        f"{optimizer}, accumulation {accumulation}: interrupted runs with the same bits",
        f"{count} of {count}",
    )


@pytest.mark.parametrize(("seeds", "moments"), [((0,), 10), pytest.param(range(1, 6), 20, marks=pytest.mark.crash)])
def test_pauses_at_random_moments_change_nothing(seeds, moments, tmp_path):
    config = varied_config(tmp_path)
    with watching(lambda *_: None) as told:
        wanted = left_by(finished(finish(Run(config))))
    every = [(kind, count) for kind in KINDS for count in range(1, told[kind] + 1)]
    held_all = 0
    for seed in seeds:
        chosen = random.Random(seed).sample(every, moments)

        def at(trainer, kind, count, chosen=chosen):
            if (kind, count) in chosen:
                trainer.control.commands.submit(Pause(release=count % 2 == 0))

        with holding() as held, watching(at):
            run = finish(Run(config))
        assert_same(left_by(finished(run)), wanted)
        assert {"paused", "released"} == set(held) and len(held) > 3
        held_all += moments
    figure("exact", "pauses at random moments that changed nothing", f"{held_all} of {held_all}")


@pytest.mark.crash
def test_a_planned_stop_outlives_a_crash_in_the_moment_it_is_carried_out(tmp_path):
    """Killed while it saved at the end of the planned epoch, a run stops there when it is resumed."""
    config = varied_config(tmp_path)
    plan = {2: StopAtEpoch(2)}

    def at(trainer, kind, count):
        if kind == "epoch" and count in plan:
            trainer.control.commands.submit(plan.pop(count))
        freezing(trainer, kind, count)

    freezing = freezer(tmp_path / "frozen", ("lora", 3))
    with watching(at):
        stopped = finish(Run(config))
    assert stopped.exit_reason == "stopped" and told(stopped, RunDone)[0].epoch == 2
    again = finish(open_run(tmp_path / "frozen" / "lora-3" / "test"))
    assert again.exit_reason == "stopped" and told(again, RunDone)[0].step == told(stopped, RunDone)[0].step
    assert told(again, StepDone) == [] and told(again, StopPlanned) == [StopPlanned(2)]
    assert_same(left_by(again.folder), left_by(stopped.folder))
    assert finish(open_run(again.folder.root)).exit_reason == "finished"

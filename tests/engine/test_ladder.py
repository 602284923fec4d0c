"""A run that does not fit steps down until it does: what it changes, what stays the same, and what it says."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pocket import finish, submit_after, told
from scarce import Scarce, engine_under
from scarce_runs import Watch, make_place, small

from engine.commands import StopNow
from engine.events import Log, RunFailed, StateChanged, StepDone, SteppedDown
from engine.files import disk_error
from engine.run import Run, open_run
from engine.training import ladder
from engine.training import step as step_module
from engine.training.kit import Kit


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a smallest model, and caches."""
    return make_place(tmp_path_factory.mktemp("ladder"))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def failing(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Run out of memory at the end of these steps' attempts: twice named, twice refused."""
    left = list(steps)
    step, update, now = step_module.Stepper.step, step_module.Stepper._update, [0]

    def stepping(stepper: Any, turn: Any, *rest: Any) -> Any:
        now[0] = turn.step
        return step(stepper, turn, *rest)

    def updates(stepper: Any, *rest: Any) -> Any:
        if now[0] in left:
            left.remove(now[0])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")
        return update(stepper, *rest)

    monkeypatch.setattr(step_module.Stepper, "step", stepping)
    monkeypatch.setattr(step_module.Stepper, "_update", updates)


def rungs(run: Run) -> list[tuple[int, str, str, str]]:
    return [(down.step, down.setting, down.before, down.after) for down in told(run, SteppedDown)]


def test_every_rung_is_taken_in_its_order_and_the_cheap_ones_change_no_bit(place, watch, monkeypatch):
    config = small(place, training={"epochs": 2, "gradient_checkpointing": "none"})
    wanted = watch(config)
    failing(monkeypatch, 2, 2, 2, 2)
    assert watch(config) == wanted
    assert rungs(watch.run) == [
        (2, "empty_cache", "", ""),
        (2, "gradient_checkpointing", "none", "full"),
        (2, "gradient_checkpointing", "full", "offload"),
        (2, "blocks_to_swap", "0", "2"),  # one of three saves nothing: it would need a slot of its own size
    ]
    assert [step for step, _ in watch.seen] == [1, 2, 3, 4]
    warnings = [log.text for log in told(watch.run, Log) if log.level == "warning"]
    assert len(warnings) == 4
    assert "step 2: blocks_to_swap 0 -> 2" in warnings[3] and "Tried to allocate 2.00 GiB" in warnings[3]
    assert "and more" not in warnings[3]
    kept = json.loads((watch.run.folder.root / "memory.json").read_text())["taken"]
    assert [(entry["setting"], entry["after"]) for entry in kept] == [
        ("gradient_checkpointing", "full"), ("gradient_checkpointing", "offload"), ("blocks_to_swap", "2"),
    ]  # fmt: skip
    written = (watch.run.folder.root / "config.toml").read_text()
    assert "blocks_to_swap = 0" in written and 'gradient_checkpointing = "none"' in written


def test_a_disk_that_refuses_what_was_taken_ends_no_run(place, watch, monkeypatch):
    """Told once, tried again with later steps, and written as soon as the disk takes it."""
    config = small(place, training={"epochs": 3, "gradient_checkpointing": "none"})
    wanted = watch(config)
    failing(monkeypatch, 2, 2, 2)
    write, asked = ladder.write_taken, []

    def writing(path: Path, taken: Any) -> None:
        asked.append(len(taken))
        if len(asked) < 4:
            raise disk_error(OSError(errno.ENOSPC, "No space left on device"), path)
        write(path, taken)

    monkeypatch.setattr(ladder, "write_taken", writing)
    monkeypatch.setattr(ladder, "RETRY_S", 0.0)
    assert watch(config) == wanted
    assert asked == [1, 2, 2, 2], "two taken, then asked at later steps until it was written"
    assert not any(change.state == "paused" for change in told(watch.run, StateChanged))
    texts = [log.text for log in told(watch.run, Log) if log.level == "warning" and "memory.json" in log.text]
    assert len(texts) == 1 and texts[0].startswith("The disk is full: writing ")
    kept = json.loads((watch.run.folder.root / "memory.json").read_text())["taken"]
    assert [entry["after"] for entry in kept] == ["full", "offload"]


def test_a_split_micro_batch_draws_as_the_whole_one(place, watch, monkeypatch):
    lora = {"dropout": 0.2, "rank_dropout": 0.2, "module_dropout": 0.1}
    config = small(place, training={"epochs": 3}, lora=lora, memory={"ladder": ["micro_batch=1"]})
    wanted = watch(config)
    failing(monkeypatch, 2)
    found = watch(config)
    assert rungs(watch.run) == [(2, "micro_batch", "2", "1")]
    assert found.seen == wanted.seen and found.steps[0] == wanted.steps[0]
    for (step, loss), (other, expected) in zip(found.steps, wanted.steps, strict=True):
        assert step == other and loss == pytest.approx(expected, rel=2e-4)
    for name, matrix in found.lora.items():
        torch.testing.assert_close(matrix, wanted.lora[name], rtol=0.05, atol=2e-4)


def test_a_resumed_run_does_as_it_did(place, watch, monkeypatch):
    """Split from step 3 on; the state of step 1 or 2 is resumed from, and step 3 is split again, unasked."""
    config = small(place, training={"epochs": 3, "state_every_steps": 1}, memory={"ladder": ["micro_batch=1"]})
    with monkeypatch.context() as patched:
        failing(patched, 3)
        wanted = watch(config)
    for stop in (2, 4):
        with monkeypatch.context() as patched:
            failing(patched, 3)
            submit_after(patched, {stop: [StopNow()]})
            run = finish(Run(config))
        assert run.exit_reason == "stopped"
        if stop == 2:  # as if it had been killed after step 4, with the state of step 2 the newest
            kept = {"step": 3, "setting": "micro_batch", "before": "2", "after": "1"}
            (run.folder.root / "memory.json").write_text(json.dumps({"taken": [kept]}))
        sizes: list[int] = []
        learn = Kit.learn

        def noting(kit: Any, inputs: Any, *rest: Any, sizes: list[int] = sizes, learn: Any = learn) -> Any:
            sizes.append(len(inputs.sigmas))
            return learn(kit, inputs, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(Kit, "learn", noting)
            again = finish(open_run(run.folder.root))
        assert again.exit_reason == "finished"
        assert sizes == [1, 1] * (4 if stop == 2 else 2)
        steps = [(event.step, event.loss) for event in told(again, StepDone)]
        assert steps == wanted.steps[stop:] and not rungs(again)
        assert any("Memory as the run left it: micro_batch 2 -> 1" in log.text for log in told(again, Log))


def test_a_card_of_every_size_ends_in_a_finished_run_or_a_refusal(place, watch):
    """The smaller the card, the further down; pictures and order stay, and so do bits while no batch is split."""
    config = small(place)
    wanted = watch.scarce(config)
    full, depth, ends = watch.mode.peak, [], set()
    for share in (0.97, 0.7, 0.4):
        watch.seen.clear()
        mode = Scarce(cap=int(full * share))
        with engine_under(mode, watch.monkeypatch):
            run = finish(Run(config))
        assert mode.peak <= full * share
        ends.add(run.exit_reason)
        depth.append(len(rungs(run)))
        if run.exit_reason == "finished":
            assert watch.seen == wanted.seen
            if not any(setting == "micro_batch" for _, setting, _, _ in rungs(run)):
                assert [(e.step, e.loss) for e in told(run, StepDone)] == wanted.steps
        else:
            [failure] = told(run, RunFailed)
            assert failure.title == "The GPU is out of memory"
            assert not told(run, StepDone) and not list((run.folder.root / "state").glob("step-*"))
            assert "tried: the cache is emptied; " in failure.detail and "blocks_to_swap" in failure.detail
    assert ends == {"finished", "failed"} and 1 <= depth[0] <= depth[-1]


def test_nothing_left_in_the_middle_saves_the_state_before(place, watch, monkeypatch):
    config = small(place, training={"epochs": 2}, memory={"ladder": "off"})
    wanted = watch(config)
    with monkeypatch.context() as patched:
        failing(patched, 3)
        run = finish(Run(config))
    [failure] = told(run, RunFailed)
    assert failure.title == "The GPU is out of memory" and "memory.ladder is off" in failure.detail
    assert "at step 3: CUDA out of memory" in failure.detail
    assert "The state of step 2 is saved" in failure.hint
    again = finish(open_run(run.folder.root))
    assert again.exit_reason == "finished"
    steps = [(event.step, event.loss) for event in (*told(run, StepDone), *told(again, StepDone))]
    assert steps == wanted.steps


def test_an_emptied_cache_is_no_cure_for_every_step(place, watch, monkeypatch):
    failing(monkeypatch, 1, 2)
    watch(small(place))
    assert [setting for _, setting, _, _ in rungs(watch.run)] == ["empty_cache", "gradient_checkpointing"]


def test_a_lower_precision_is_taken_only_if_allowed(place, watch, monkeypatch):
    ladder = ["blocks_to_swap=2", "precision=int8"]
    config = small(place, memory={"ladder": ladder, "allow_lower_precision": True}, training={"epochs": 2})
    failing(monkeypatch, 3, 3)
    course = watch(config)
    assert rungs(watch.run) == [(3, "blocks_to_swap", "0", "2"), (3, "precision", "auto", "int8")]
    assert [step for step, _ in course.steps] == [1, 2, 3, 4]
    with monkeypatch.context() as patched:
        failing(patched, 3, 3)
        submit_after(patched, {3: [StopNow()]})
        run = finish(Run(config))
    again = finish(open_run(run.folder.root))
    assert [(event.step, event.loss) for event in told(again, StepDone)] == course.steps[3:]
    allowed = small(place, memory={"allow_lower_precision": False}, training={"epochs": 1})
    failing(monkeypatch, *[1] * 20)
    failed = finish(Run(allowed))
    assert failed.exit_reason == "failed" and "precision" not in {setting for _, setting, _, _ in rungs(failed)}
    assert "allow_lower_precision = true" in told(failed, RunFailed)[0].hint


def test_a_host_without_room_skips_what_needs_it(place, watch, monkeypatch):
    from engine.memory.pinned import HostPool

    failing(monkeypatch, 2, 2)
    monkeypatch.setattr(HostPool, "free_bytes", lambda pool: 10_000)
    watch(small(place, memory={"modulation_cache": False}))
    assert [setting for _, setting, _, _ in rungs(watch.run)] == ["empty_cache", "micro_batch"]


def test_other_errors_are_not_taken_for_a_full_card(place, watch, monkeypatch):
    def breaks(stepper: Any, *rest: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(step_module.Stepper, "_update", breaks)
    run = finish(Run(small(place)))
    assert told(run, RunFailed)[0].title == "Unexpected RuntimeError" and not rungs(run)


def test_pictures_that_never_fit_are_left_out_and_the_run_goes_on(place, watch, monkeypatch):
    from engine.training import pictures

    def never(*args: Any, **options: Any) -> Any:
        raise RuntimeError("CUDNN_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(pictures, "draw_latents", never)
    config = small(place, sampling={"at_start": True, "prompts": [{"prompt": "a"}, {"prompt": "b"}]})
    course = watch(config)
    assert course.samples == [] and len(course.steps) == 2
    assert [setting for _, setting, _, _ in rungs(watch.run)] == ["empty_cache", "optimizer_states"] * 2
    left = [log.text for log in told(watch.run, Log) if "left out" in log.text]
    assert left == [
        f"Sample {n} at step 0 is left out, memory does not suffice: CUDNN_STATUS_ALLOC_FAILED" for n in (1, 2)
    ]
    assert [state.state for state in told(watch.run, StateChanged)][-1] == "finished"


def test_states_that_find_no_way_back_end_the_run_with_its_state_saved(place, watch, monkeypatch):
    """While a picture was drawn without them others took the room that the optimizer's states had."""
    from engine.training import pictures, release

    draw, move, drawn = pictures.draw_latents, release._move_states, []

    def draws(*args: Any, **options: Any) -> Any:
        drawn.append(1)
        if len(drawn) < 3:
            raise torch.OutOfMemoryError("out of memory")
        return draw(*args, **options)

    def moves(kit: Any, device: torch.device) -> None:
        if len(drawn) == 3:
            raise torch.OutOfMemoryError("still out of memory")
        move(kit, device)

    monkeypatch.setattr(pictures, "draw_latents", draws)
    monkeypatch.setattr(release, "_move_states", moves)
    config = small(place, training={"epochs": 2}, sampling={"every_steps": 3, "prompts": [{"prompt": "a"}]})
    run = finish(Run(config))
    [failure] = told(run, RunFailed)
    assert failure.title == "The GPU is out of memory" and "The state of step 3 is saved" in failure.hint
    monkeypatch.undo()
    again = finish(open_run(run.folder.root))
    assert again.exit_reason == "finished" and [step.step for step in told(again, StepDone)] == [4]


def test_a_damaged_record_is_told(place, watch, monkeypatch):
    config = small(place, training={"epochs": 2})
    submit_after(monkeypatch, {2: [StopNow()]})
    run = finish(Run(config))
    (run.folder.root / "memory.json").write_text(
        '{"taken": [{"step": 1, "setting": "swap", "before": "", "after": ""}]}'
    )
    again = finish(open_run(run.folder.root))
    assert again.exit_reason == "stopped" or again.exit_reason == "finished"
    assert any("memory.json is damaged" in log.text for log in told(again, Log))

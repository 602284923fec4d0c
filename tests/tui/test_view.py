"""The view: one fold, live or replayed; averages, time left, marks, and what a resumed run does to them."""

from __future__ import annotations

import math
import random
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeRun, wait_until

from engine.commands import Pause, Resume, SaveNow, StopAtEpoch
from engine.events import (
    CaptionsTaken,
    CheckpointSaved,
    Entry,
    EpochDone,
    Foreseen,
    HostMemoryLow,
    Log,
    LossSpiked,
    MemoryHeld,
    MemorySampled,
    PictureLosses,
    Probed,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    SampleSaved,
    Slowed,
    StateChanged,
    StepBroken,
    StepDone,
    SteppedDown,
    StopPlanned,
    entry_from_json,
    replay,
)
from tui.bridge import Bridge, view_of
from tui.progress import plain_line
from tui.view import LOG_LINES, MEMORY_POINTS, SMOOTHINGS, RunView, Smoothed, fold
from tui.widgets.status import advance_words


def plain(value: Any) -> Any:
    """A view as comparable data: NaN equals NaN, arrays and deques are lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(vars(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, (str, int, float)) or value is None:
        return value
    return [plain(item) for item in value]


def same(one: RunView, other: RunView) -> bool:
    """Whether two views hold the same, field by field."""
    return bool(plain(one) == plain(other))


def step(number: int, loss: float = 0.5, epoch: int = 1, seconds: float = 1.0) -> StepDone:
    """A step event."""
    return StepDone(number, epoch, loss, 1e-4, 0.7, seconds, 0.1, 0.8 * seconds, 0.1)


def folded(*events: Any, start: float = 1000.0, gap: float = 1.0) -> RunView:
    """A view of ``events``, ``gap`` seconds apart."""
    view = RunView()
    for number, event in enumerate(events, start=1):
        fold(view, Entry(number, start + gap * number, event))
    return view


STARTED = RunStarted("glorb", "/runs/glorb", "flux1", "dev", epochs=4, steps=40, images=10)


def test_live_and_replayed_views_are_the_same(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=3, steps_per_epoch=8, step_s=0.002)
    bridge = Bridge(run)
    for command in (SaveNow(), StopAtEpoch(3), Pause()):
        run.submit(command)
    run.start()
    assert wait_until(lambda: bool(bridge.poll()) and bridge.view.state == "paused")
    run.submit(Resume())
    assert run.join(60)
    bridge.finish()
    assert bridge.view.done is not None and bridge.view.step == 24
    assert run.folder is not None
    assert same(bridge.view, view_of(run.folder.events))


def test_every_kind_of_event_replays_to_the_same_view() -> None:
    rng = random.Random(3)
    kinds: list[Any] = [
        STARTED, StateChanged("training"), Progress("scan", 1, 9, "x"), MemorySampled(1.5, 8.0, 0.3),
        MemoryHeld(8.0, 0.7, 1.6, 0.8, 0.3, 11.5), Probed(14.2, 13.0, 9.0, 2.13, 4608, 1024, 1024, 1, 24.0, 0.5),
        Foreseen(14.0, 2.0, "a\x1b[2Jb"), Slowed(4, 1.8, "spill", "a\x1b[2Jb", ("memory.blocks_to_swap = 12",)),
        SteppedDown("training", 9, "blocks_to_swap", "0", "28", "full"),
        StepBroken(5, 1, "skipped", "a\x1b[2Jb", math.nan, math.inf, "a.png"), HostMemoryLow(0.5, 8.0, 6.0, "low"),
        StepBroken(5, 1, "restored", "back", back_to=3), LossSpiked(9, 4.0, 0.4, 9.5, ("a", "b"), 8, "jumped"),
        Log("warning", "a\x1b[2Jb"), StopPlanned(3), StateChanged("paused", "asked"), EpochDone(1, 10, 0.4),
        CheckpointSaved("/r/a.safetensors", 10, 1, "epoch", 1000), SampleSaved("/r/a.png", 10, 1, 0, "p", 1),
        CaptionsTaken(2, ("/d/a.png", "/d/\udcffb.png")), CaptionsTaken(3, ("/d/a.png",)),
        PictureLosses(9, 1, "steps", ("/d/a.png",), (0.9,), counts=(2,)),
        PictureLosses(9, 1, "fixed", ("/d/a.png", "/d/\udcffb.png"), (0.9, 0.4), (0.5, 0.0), (0.8, 0.0)),
        step(3, math.nan), step(4, 0.25), RunFailed("t", "d", "h", "tb"), RunDone("stopped", 4, 1, "/r/x", 3.2),
    ]  # fmt: skip
    events = [kinds[0], *(rng.choice(kinds) for _ in range(300))]
    live, replayed = RunView(), RunView()
    for number, event in enumerate(events, start=1):
        entry = Entry(number, 1_700_000_000 + number / 7, event)
        fold(live, entry)
        fold(replayed, entry_from_json(entry.to_json()))
    assert same(live, replayed)


def test_captions_taken_are_kept_by_picture_and_told_in_the_log() -> None:
    names = tuple(f"/d/{number}\x1b[2J.png" for number in range(5))
    view = folded(STARTED, CaptionsTaken(2, names), CaptionsTaken(3, names[:1]))
    assert view.captions_taken == {names[0]: 3} | dict.fromkeys(names[1:], 2)
    first, second = (line.text for line in list(view.log)[-2:])
    assert first.startswith("edited captions count from epoch 2: 0") and first.endswith(" and 2 more")
    assert second.startswith("edited caption counts from epoch 3: 0") and "\x1b" not in first + second


def test_average_is_bias_corrected_and_survives_nan() -> None:
    losses = [0.9, 0.4, math.nan, 0.7, math.inf, 0.2]
    average = Smoothed(0.9)
    for loss in losses:
        average.add(loss)
    finite = [loss for loss in losses if math.isfinite(loss)]
    weights = [0.9 ** (len(finite) - 1 - place) for place in range(len(finite))]
    expected = sum(w * x for w, x in zip(weights, finite, strict=True)) / sum(weights)
    assert average.course[-1] == pytest.approx(expected, rel=1e-12)
    assert average.course[0] == pytest.approx(0.9)
    assert average.course[2] == average.course[1]


def test_all_smoothings_run_beside_each_other() -> None:
    view = folded(STARTED, *(step(number, 1.0 / number) for number in range(1, 9)))
    assert [smoothed.beta for smoothed in view.courses.smoothed] == list(SMOOTHINGS)
    assert all(len(smoothed.course) == len(view.courses.loss) == 8 for smoothed in view.courses.smoothed)


def test_time_left_is_a_median_and_leaves_pauses_out() -> None:
    events = [STARTED, StateChanged("training"), step(1, seconds=30.0), *(step(n, seconds=1.0) for n in range(2, 11))]
    view = folded(*events)
    assert view.step_s == 1.0  # the slow first step does not count
    assert view.eta_s == 30.0
    number, at = view.seq, view.last_time
    fold(view, Entry(number + 1, at + 1, StateChanged("paused")))
    fold(view, Entry(number + 2, at + 51, MemorySampled(1.0, 2.0, 0.5)))
    worked = view.active_s
    assert view.held and view.eta_s == 30.0 and view.seconds["paused"] == 50.0
    fold(view, Entry(number + 3, at + 52, StateChanged("training")))
    fold(view, Entry(number + 4, at + 53, step(11, seconds=12.0)))
    assert view.eta_s == 29.0
    assert view.active_s - worked == pytest.approx(1.0)


def test_time_left_counts_sampling_and_a_planned_stop() -> None:
    view = folded(
        STARTED, StateChanged("training"), *(step(n) for n in range(1, 11)), EpochDone(1, 10, 0.5),
        StateChanged("sampling"), StateChanged("training"),
    )  # fmt: skip
    assert view.overhead_s == 1.0
    assert view.eta_s == 30.0 + 3.0
    fold(view, Entry(view.seq + 1, view.last_time + 1, StopPlanned(2)))
    assert view.goal_step == 20 and view.eta_s == 10.0 + 1.0
    fold(view, Entry(view.seq + 1, view.last_time + 1, StopPlanned(0)))
    assert view.goal_step == 40


def test_silence_of_a_dead_process_is_not_work() -> None:
    view = folded(STARTED, StateChanged("training"), step(1))
    worked = view.active_s
    fold(view, Entry(view.seq + 1, view.last_time + 86_400, StateChanged("preparing")))
    assert view.active_s == worked
    fold(view, Entry(view.seq + 1, view.last_time - 50, StateChanged("training")))  # the clock was set back
    assert view.active_s == worked


def test_a_resumed_run_forgets_the_steps_it_does_again() -> None:
    events = [STARTED, *(step(n, 1.0 / n) for n in range(1, 21)), EpochDone(1, 10, 0.5), EpochDone(2, 20, 0.4)]
    events += [CheckpointSaved("/r/e1", 10, 1, "epoch", 1), SampleSaved("/r/s.png", 20, 2, 0, "p", 1)]
    again = RunStarted("glorb", "/runs/glorb", "flux1", "dev", 4, 40, 10, resumed_step=12)
    view = folded(*events, RunDone("stopped", 20, 2, "/r/x", 20.0), again, step(13, 0.3))
    assert list(view.courses.step) == [*range(1, 13), 13]
    assert [mark.epoch for mark in view.epoch_marks] == [1]
    assert len(view.checkpoints) == 1 and view.samples == []
    assert view.done is None
    straight = folded(STARTED, *(step(n, 1.0 / n) for n in range(1, 13)), step(13, 0.3))
    assert view.courses.smoothed == straight.courses.smoothed


def test_a_resumed_run_is_live_before_its_outline_is_known() -> None:
    for ending in (RunFailed("no memory", "", "", "tb"), RunDone("stopped", 3, 1, "/r/x", 3.0)):
        state = "failed" if isinstance(ending, RunFailed) else "stopped"
        view = folded(STARTED, Progress("scan pictures", 9, 9), step(3), ending, StateChanged(state))
        assert not view.live
        fold(view, Entry(view.seq + 1, view.last_time + 1, StateChanged("preparing")))
        assert view.live and view.failure is None and view.done is None and view.stages == {}
        fold(view, Entry(view.seq + 1, view.last_time + 1, RunFailed("again", "", "", "tb")))
        fold(view, Entry(view.seq + 1, view.last_time + 1, StateChanged("failed")))
        assert view.failure is not None and view.failure.title == "again"


def test_the_log_tells_of_a_state_once() -> None:
    states = ["preparing", "caching", "loading", "sampling", "loading", "training", "paused", "training", "paused"]
    view = folded(*(StateChanged(state) for state in states))
    assert [line.text for line in view.log] == ["preparing", "caching", "loading", "paused", "paused"]


def test_a_stop_planned_before_the_resume_is_told_again_after_it() -> None:
    again = RunStarted("glorb", "/runs/glorb", "flux1", "dev", 4, 40, 10, resumed_step=3)
    view = folded(STARTED, step(3), StopPlanned(2), RunDone("stopped", 3, 1, "", 3.0), again)
    assert view.stop_epoch == 0 and view.goal_step == 40
    fold(view, Entry(view.seq + 1, view.last_time + 1, StopPlanned(2)))
    assert view.stop_epoch == 2 and view.goal_step == 20


def test_a_picture_drawn_again_takes_the_place_of_the_former() -> None:
    pictures = [SampleSaved(f"/r/{index}.png", 10, 1, index, "p", 1) for index in range(3)]
    view = folded(STARTED, *pictures, pictures[1])
    assert view.samples == [pictures[0], pictures[2], pictures[1]]


def test_everything_that_grows_without_need_is_bounded() -> None:
    view = folded(*(Log("info", str(n)) for n in range(LOG_LINES + 50)))
    assert len(view.log) == LOG_LINES and view.log_total == LOG_LINES + 50
    memory = folded(*(MemorySampled(1.0, 2.0, 0.5) for _ in range(MEMORY_POINTS + 50)))
    assert len(memory.memory_course) == MEMORY_POINTS


def test_result_of_a_run() -> None:
    view = folded(
        STARTED, *(step(n) for n in range(1, 21)), EpochDone(1, 10, 0.8), EpochDone(2, 20, 0.3),
        RunDone("finished", 20, 2, "/r/glorb.safetensors", 21.0),
    )  # fmt: skip
    assert not view.live and view.state == "finished"
    assert view.loss_change == (0.8, 0.3)
    failed = folded(STARTED, RunFailed("no memory", "24 of 23", "less", "tb"))
    assert failed.state == "failed" and not failed.live and failed.eta_s is None


def test_the_bridge_closes_a_gap_from_the_file(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=2, steps_per_epoch=8, step_s=0.001)
    run.events.__init__(ring_size=10)  # type: ignore[misc]
    run.start()
    assert run.join(60)
    bridge = Bridge(run)
    assert wait_until(lambda: bool(bridge.poll()) or bridge.view.done is not None)
    bridge.finish()
    assert run.folder is not None
    assert same(bridge.view, view_of(run.folder.events))
    assert len(list(replay(run.folder.events))) > 10


def test_what_memory_holds_is_kept_as_last_told() -> None:
    first, second = MemoryHeld(8.0, 0.7, 1.6, 0.8, 0.3, 11.5), MemoryHeld(8.0, 0.7, 1.6, 0.9, 0.3, 11.6)
    assert folded(first, second).memory_held == second


def test_forward_and_backward_are_told_by_newer_runs_only() -> None:
    old = StepDone(1, 1, 0.5, 1e-4, 0.7, 1.0, 0.1, 0.8, 0.1)
    new = StepDone(2, 1, 0.5, 1e-4, 0.7, 1.0, 0.1, 0.8, 0.1, forward_s=0.3, backward_s=0.5, stall_s=0.05)
    assert folded(STARTED, old).step_halves is None
    assert folded(STARTED, new).step_halves == (0.3, 0.5, 0.05)


PROBED = Probed(14.2, 13.0, 9.0, 2.13, 4608, 1024, 1024, 1, 24.0, 0.5)


def test_a_probe_is_told_beside_its_forecast_in_one_line() -> None:
    view = folded(STARTED, PROBED)
    assert view.probed == PROBED and view.foreseen is None and len(view.log) == 1
    view = folded(STARTED, PROBED, Foreseen(14.0, 2.0, "3 measurements on this machine"))
    assert view.foreseen is not None and view.log[-1].text == (
        "probe of 1024x1024: peak 14.2 of 24.0 GB, forecast 14.0 (+1.4%); 2.13 s a step, forecast 2.00 s (+6%); "
        "forecast by 3 measurements on this machine"
    )
    view = folded(STARTED, PROBED, Foreseen(0.0, 0.0, "Not a model: x"))
    assert view.log[-1].text == "probe of 1024x1024: peak 14.2 of 24.0 GB, 2.13 s a step; no forecast: Not a model: x"
    full = folded(STARTED, Probed(23.8, 22.0, 9.0, 2.13, 4608, 1024, 1024, 1, 24.0, 0.5), Foreseen(14.0, 2.0)).log[-1]
    assert full.level == "warning" and full.text.endswith("the card is full")
    assert folded(STARTED, PROBED, Foreseen(14.0, 2.0), PROBED).foreseen is None, "a new probe waits for its own"


def test_steps_that_take_longer_are_told_until_they_do_not() -> None:
    slow = Slowed(40, 1.8, "spill", "Steps take 1.8 times as long", ("memory.blocks_to_swap = 12",))
    view = folded(STARTED, slow)
    assert view.slowed == slow and (view.log[-1].level, view.log[-1].text) == ("warning", slow.text)
    over = folded(STARTED, slow, Slowed(90, 1.0, "over", "Steps are as quick as they were"))
    assert over.slowed is None and over.log[-1].level == "info"
    assert folded(STARTED, slow, STARTED).slowed is None, "a resumed run begins anew"


def test_what_was_changed_when_memory_ran_out_stays_in_view() -> None:
    down = [
        SteppedDown("training", 9, "empty_cache", "", "", "out of memory"),
        SteppedDown("training", 9, "blocks_to_swap", "0", "14", "out of memory"),
        SteppedDown("training", 9, "blocks_to_swap", "14", "28", "out of memory"),
    ]
    view = folded(STARTED, *down, Log("warning", "Out of memory at step 9: blocks_to_swap 14 -> 28"), step(9))
    assert view.stepped_down == down
    assert [line.text for line in view.log if line.level == "warning"] == [
        "Out of memory at step 9: blocks_to_swap 14 -> 28"
    ]


def test_steps_left_out_are_counted_until_the_run_goes_back() -> None:
    events = [
        STARTED, step(3), StepBroken(4, 1, "again", "odd\x1b[2J"), StepBroken(4, 1, "skipped", "left out"),
        step(5), StepBroken(6, 1, "passed", "went well"),
    ]  # fmt: skip
    view = folded(*events)
    assert view.skipped == [4] and view.step == 5 and "1 left out" in advance_words(view)
    assert "1 left out" in plain_line(view)
    assert [line.level for line in view.log][-3:] == ["warning"] * 3 and "\x1b" not in view.log[-3].text
    back = folded(*events, StepBroken(6, 1, "restored", "back", back_to=3), HostMemoryLow(0.5, 8.0, 6.0, "low"))
    assert back.skipped == [] and back.step == 3 and list(back.courses.step) == [3]
    assert [line.text for line in back.log][-2:] == ["back", "low"] and "left out" not in plain_line(back)

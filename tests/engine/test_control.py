"""Commands fold into flags in the order they came."""

import pytest

from engine.commands import (
    CancelStop,
    CommandQueue,
    Pause,
    Resume,
    SampleNow,
    SaveNow,
    StopAfterEpoch,
    StopAtEpoch,
    StopNow,
)
from engine.events import EventLog, Kept, Log, RunStarted, StopPlanned, replay
from engine.training.control import Control


@pytest.fixture
def control():
    return Control(CommandQueue(), EventLog())


def ask(control, *commands):
    for command in commands:
        control.commands.submit(command)
    control.poll()


def planned(control):
    return [e.event.epoch for e in control.events.since(0) if isinstance(e.event, StopPlanned)]


def test_resume_takes_back_a_pause(control):
    ask(control, Pause(), Resume())
    assert control.pause is None
    ask(control, Resume(), Pause(release=True))
    assert control.pause == Pause(release=True)


def test_stop_now_ends_a_pause(control):
    ask(control, Pause(), StopNow())
    assert control.stop_now and control.pause is None and control.stopping()


def test_planned_stops(control):
    control.epoch = 3
    ask(control, StopAfterEpoch())
    assert not control.stop_due(2) and control.stop_due(3)
    ask(control, StopAtEpoch(5))
    assert not control.stop_due(4) and control.stop_due(5)
    ask(control, CancelStop())
    assert not control.stop_due(99)
    assert planned(control) == [3, 5, 0]


def test_a_stop_in_the_past_means_this_epoch_and_is_said(control):
    control.epoch = 4
    ask(control, StopAtEpoch(2))
    assert control.stop_due(4)
    assert any(isinstance(e.event, Log) and "Epoch 2 is over" in e.event.text for e in control.events.since(0))


def test_save_and_sample_are_flags_the_loop_clears(control):
    ask(control, SaveNow(), SampleNow(), SaveNow())
    assert control.save_now and control.sample_now


def test_what_was_asked_before_is_read_in_one_go(control, tmp_path, monkeypatch):
    log = EventLog(tmp_path / "events.jsonl")
    for event in (RunStarted("cat", "/x", "flux1", "dev", 4, 8, 4), Kept((2,)), StopPlanned(3), Kept((1, 2))):
        log.append(event)
    log.close()
    read = []

    def reading(path, *kinds):
        read.append(path)
        return replay(path, *kinds)

    monkeypatch.setattr("engine.training.control.replay", reading)
    control.take_up_plan(tmp_path / "events.jsonl")
    assert (control.stop_epoch, control.kept) == (3, (1, 2))
    assert read == [tmp_path / "events.jsonl"]

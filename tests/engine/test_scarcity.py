"""Host memory that runs out is told once, with who holds it and what to lower."""

from __future__ import annotations

import itertools
import time

import psutil
import pytest
from pocket import pocket_config

from engine.events import EventLog, HostMemoryLow, MemorySampled
from engine.hardware import monitor
from engine.hardware.monitor import MemorySampler
from engine.hardware.scarcity import HostWatch, largest_other, limit_gb, to_lower


def sample(free: float, total: float = 32.0) -> MemorySampled:
    return MemorySampled(total - free, total, 20.0)


def test_it_is_told_once_until_there_was_room_again():
    watch = HostWatch(lambda: "lower memory.blocks_to_swap (now 16)", lambda: ("python\x1b[2J (77)", 6.5))
    frees = [20.0, 1.4, 1.2, 0.5, 2.0, 0.5, 6.0, 1.0]
    found = [watch.take(sample(free)) for free in frees]
    assert [event is not None for event in found] == [False, False, True, False, False, False, False, True]
    event = found[2]
    assert event is not None and (event.free_gb, event.total_gb, event.process_gb) == (1.2, 32.0, 20.0)
    assert "This run holds 20.0, python" in event.text and "(77) 6.5" in event.text and "\x1b" not in event.text
    assert event.text.endswith("or lower memory.blocks_to_swap (now 16)")


def test_an_unknown_total_is_no_shortage():
    assert HostWatch(lambda: "", lambda: ("", 0.0)).take(MemorySampled(0.0, 0.0, 0.0)) is None


@pytest.mark.parametrize(("total", "limit"), [(2.0, 0.5), (16.0, 1.0), (64.0, 2.56), (512.0, 4.0)])
def test_the_limit_grows_with_the_machine(total, limit):
    assert limit_gb(total) == pytest.approx(limit)


def test_what_to_lower_is_what_the_run_holds(tmp_path):
    plain = pocket_config(tmp_path, memory={"modulation_cache": False})
    assert to_lower(plain) == ""
    memory = {"blocks_to_swap": 12}
    heavy = pocket_config(
        tmp_path, memory=memory, optimizer={"name": "paged_adamw8bit"},
        training={"gradient_checkpointing": "offload"},
    )  # fmt: skip
    hint = to_lower(heavy)
    assert "blocks_to_swap (now 12)" in hint and '"full"' in hint and '"adamw8bit"' in hint


def test_the_largest_other_process_is_named(monkeypatch):
    name, held = largest_other()
    assert held >= 0 and (not name or name.endswith(")"))
    monkeypatch.setattr(psutil, "process_iter", lambda *_: iter(()))
    assert largest_other() == ("", 0.0)


def test_the_sampler_tells_it(monkeypatch):
    events, free = EventLog(), itertools.chain([20.0, 0.5], itertools.repeat(0.4))
    monkeypatch.setattr(monitor, "host_memory", lambda: (32.0 - next(free), 32.0, 3.0))
    with MemorySampler(events, interval_s=0.01, hint=lambda: "wait"):
        while len(events.since(0)) < 4:
            time.sleep(0.01)
    found = [entry.event for entry in events.since(0) if isinstance(entry.event, HostMemoryLow)]
    assert len(found) == 1 and found[0].free_gb == 0.5 and found[0].text.endswith("or wait")

"""A long run whose screen is opened, walked through, resized and lost all the time: nothing grows, nothing leaks.

The steps are the engine's own, of a FLUX of two blocks. The quick size compares what the
host holds after some screens with what it holds after some more; the whole size looks at its memory over 20,000
steps (``KILN_SOAK_STEPS`` says otherwise).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, linear_regression, median
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "pty"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tui"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "engine"))

from children import Child, Work, wait_until
from model_files import TINY, tiny_flux
from pocket import pictures, pocket_config
from reliability import figure

from engine.config_file import save_config
from engine.events import EVENT_TYPES, RING_SIZE
from tui.bridge import view_of
from tui.terminal.orders import train

pytestmark = pytest.mark.pty

PANES = "12345"
KEYS = ("z", "?\x1b", "m", "/tree\r", "\t", "jjjkkk", "[", "]", "l", "G", "g")
"""What is pressed besides the panes' digits: zoom, help, smoothing, filter, ranges, the table's ends."""

SIZES = ((80, 24), (160, 45), (100, 30), (20, 5), (60, 18), (200, 60))
SMALLEST = replace(
    TINY, vec_in_dim=64, context_in_dim=96, hidden_size=32, num_heads=1, depth=1, depth_single_blocks=1
)
"""A transformer that takes the pocket model's text embeddings and latents."""

APPLICATION = "tui.app.KilnApp"
"""What a screen is all of; one that outlives its screen is a leak of a thousand objects."""

MOST_GROWTH = 0.02
"""Of memory after the warm-up, from the first fifth to the last; a step's 64 bytes in the courses are in it.

Warm is a host whose ring of events is full: until then each step leaves an event more in memory. And one turn of the
ring more: its first events lie between what screens were drawn with, in pages that only they keep from going back.
"""

WARM_STEPS = 2 * RING_SIZE

ASK_S = 1.0
"""How long a host is left alone between two questions: counting a million objects it gets nothing else done."""

CONTAINERS = ("list", "dict", "set", "function", "cell")
"""Types of Python's own that grow with whatever is kept and forgotten."""

RINGED = {f"{kind.__module__}.{kind.__qualname__}" for kind in EVENT_TYPES.values()} | {"engine.events.Entry"}
"""Types whose objects the ring of events keeps, up to its size."""


@pytest.fixture
def work() -> Iterator[Work]:
    """A work folder; what was started in it ends with the test."""
    work = Work()
    yield work
    work.close()


def soak_config(work: Work, steps: int) -> Path:
    """Write the configuration of a run of so many of the smallest steps; returns its file."""
    data = pictures(work.folder / "data", 2)
    changes = {
        "dataset": {
            "folders": [{"path": data, "repeats": 250}],
            "buckets": {"min_side": 32, "max_side": 64, "step": 16},
        },
        "model": {"transformer": tiny_flux(work.folder / "flux-tiny.safetensors", SMALLEST), "t5_length": 8},
        "lora": {"rank": 1},
        "training": {"epochs": 0, "steps": steps, "accumulation": 1, "gradient_checkpointing": "none", "threads": 1},
        "saving": {"every_epochs": 4},
    }
    path = work.folder / "soak.toml"
    save_config(pocket_config(work.folder, **changes), path)
    return path


def held(work: Work) -> dict[str, Any]:
    """What the host holds while no screen is up, told by itself."""
    told: dict[str, Any] = {}

    def alone() -> bool:
        told.update(_ask(work))
        if APPLICATION not in told["objects"]:
            return True
        time.sleep(ASK_S)
        return False

    wait_until(alone)
    return told


def _ask(work: Work) -> dict[str, Any]:
    path = work.folder / "holdings.json"
    path.unlink(missing_ok=True)
    os.kill(work.host(), signal.SIGUSR1)
    wait_until(path.exists)
    return dict(json.loads(path.read_text()))


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def screen(work: Work, chance: random.Random, keys: int) -> None:
    """Open a screen, walk through it, and leave it or lose it in one way or another."""
    child = work.attach(size=chance.choice(SIZES[:3]))
    child.until(b"\x1b[?1049h")
    child.until(b"\x1b[", len(child.seen))  # whichever screen the user was on
    for _ in range(keys):
        child.press(chance.choice(PANES))
        child.press(chance.choice(KEYS))
        child.resize(*chance.choice(SIZES))
        child.read(0.1)
    _go(child, chance)


def _go(child: Child, chance: random.Random) -> None:
    way = chance.choice(("detach", "drop", signal.SIGKILL, signal.SIGHUP, signal.SIGTERM))
    if way == "detach":
        while not _ended(child):  # an escape and what follows too soon are one key
            child.press("\x1b")
            child.read(0.3)
            child.press("\x1c")
            child.read(0.3)
    elif way == "drop":
        child.hang_up()
    else:
        child.kill(way)
    child.wait()


def _ended(child: Child) -> bool:
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@dataclass
class Course:
    """What was measured as the run went on."""

    steps: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def look(self, work: Work) -> None:
        """Measure; no screen is up."""
        now = held(work)
        self.steps.append(last_step(work))
        self.rss.append(rss_mb(work.host()))
        self.descriptors.append(now["descriptors"])
        self.threads.append(len(now["threads"]))


def last_step(work: Work) -> int:
    """The last step told, from the end of the event file."""
    with open(work.run() / "events.jsonl", "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
        lines = file.read().splitlines()[1:]
    steps = [line.partition(b'"step": ')[2].partition(b",")[0] for line in lines if b'"StepDone"' in line]
    return int(steps[-1]) if steps else 0


def begin(work: Work, steps: int) -> None:
    """Have a host train, and leave it alone."""
    child = work.attach(train(soak_config(work, steps)))
    child.until(b"TRAINING")
    child.press("\x1c")
    assert child.wait() == 0


@pytest.mark.crash
def test_a_few_hundred_steps_and_screens_leave_nothing_behind(work: Work) -> None:
    chance = random.Random(1)
    begin(work, 100_000)
    for _ in range(2):  # what is made once stays
        screen(work, chance, 4)
    before, began = held(work), last_step(work)
    screens = 5
    for _ in range(screens):
        screen(work, chance, 4)
    wait_until(lambda: last_step(work) > began + 200)
    after = held(work)
    assert after["descriptors"] <= before["descriptors"] + 2, after
    assert len(after["threads"]) <= len(before["threads"]) + 1, (before["threads"], after["threads"])
    grown = {kind: count - before["objects"].get(kind, 0) for kind, count in after["objects"].items()}
    kept = {kind: grown[kind] for kind in grown if kind.startswith("tui.screens.") and grown[kind] > 0}
    kept |= {kind: grown[kind] for kind in RINGED if after["objects"].get(kind, 0) > 2 * RING_SIZE}
    for name in CONTAINERS:
        if grown[f"builtins.{name}"] >= 20 * screens:
            kept[name] = grown[f"builtins.{name}"]
    assert not kept
    figure("soak", "screens of a live run that left descriptors, threads or objects behind", f"0 of {screens}")


@pytest.mark.crash
@pytest.mark.timeout(7200)
def test_memory_stays_flat_over_a_night(work: Work) -> None:
    steps = int(os.environ.get("KILN_SOAK_STEPS", "20000"))
    chance, course = random.Random(2), Course()
    begin(work, 2 * steps)  # a run that ends while a screen opens is another test's
    wait_until(lambda: last_step(work) > 50)
    screens, began = 0, time.monotonic()
    while last_step(work) < steps:
        screen(work, chance, 8)
        screens += 1
        course.look(work)
        print(course.steps[-1], course.rss[-1], course.descriptors[-1], course.threads[-1], flush=True)
    view = view_of(work.run() / "events.jsonl")
    told = list(view.courses.step)
    assert told == list(range(1, len(told) + 1))
    tell(course, list(view.courses.step_s), screens, time.monotonic() - began)


def tell(course: Course, step_s: list[float], screens: int, took_s: float) -> None:
    """Say what the soak measured, and hold it to what is promised."""
    warm = max(len(course.rss) // 10 + 1, sum(step < WARM_STEPS for step in course.steps))
    assert len(course.rss) - warm >= 5, f"too short: {WARM_STEPS} steps are needed to be warm"
    steps, rss = course.steps[warm:], course.rss[warm:]
    slope, _ = linear_regression(steps, rss)
    part = max(1, len(rss) // 5)
    growth = fmean(rss[-part:]) / fmean(rss[:part]) - 1
    tenth = len(step_s) // 10
    drift = median(step_s[-tenth:]) / median(step_s[tenth : 2 * tenth]) - 1
    figure("soak", "steps, screens, minutes", f"{len(step_s)}, {screens}, {took_s / 60:.1f}")
    figure(
        "soak", "memory after warm-up", f"{rss[0]:.0f} to {rss[-1]:.0f} MB, {slope * 1000:+.2f} MB per 1,000 steps"
    )
    figure("soak", "growth of memory", f"{growth:+.2%}")
    figure("soak", "descriptors, first and last", f"{course.descriptors[0]}, {course.descriptors[-1]}")
    figure("soak", "threads, first and last", f"{course.threads[0]}, {course.threads[-1]}")
    figure("soak", "drift of the median step", f"{drift:+.1%}")
    assert growth < MOST_GROWTH
    assert course.descriptors[-1] <= course.descriptors[0] + 4
    assert course.threads[-1] <= course.threads[0] + 2

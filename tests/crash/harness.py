"""Kills, drawn from a seed, and what must hold after each of them and at the end.

A chain is one home that a scenario begins in, is killed in several times, and is let end. After every kill the disk
is looked at; at the end everything is compared with an undisturbed home of the same session, never with a stored
number: processors round differently. ``python -m tests.crash kill SCENARIO SEED`` repeats a chain.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import judging
import scenarios

HERE = Path(__file__).resolve().parent

TRAINING = ("train", "edited")
"""Scenarios with a run in them."""

EARLY = 40
"""Moments from which a kill during the recovery of an earlier one is drawn."""


@dataclass(frozen=True)
class Kill:
    """By its own hand at the ``nth`` moment (of the kind ``what``, if any), or from outside after a time."""

    what: str = ""
    nth: int = 0
    after_s: float = 0.0
    piece: int = 8192


@dataclass
class Chain:
    """A home, what happened in it, and what it must come to.

    Attributes:
        kills: what was at hand when it was killed, and in the clock's case "clock".
        recovering: kills before an interrupted run had taken up its state again.
        lost: steps that were done again after each kill of a run.
        conflicts: drafts that the next start found on top of another text than they were begun on.
        ready_s: seconds from a run's start to the first thing it does as a run, caches and models loaded.
    """

    scenario: str
    variant: str
    seed: int
    home: Path
    kills: list[str] = field(default_factory=list)
    recovering: int = 0
    lost: list[int] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    conflicts: int = 0

    @property
    def notes(self) -> list[dict[str, Any]]:
        """What its children said."""
        return scenarios.read_notes(notes_of(self.home))

    def __str__(self) -> str:
        again = f"python -m tests.crash kill {self.scenario} {self.seed}{' clock' if 'clock' in self.kills else ''}"
        return f"{self.scenario}/{self.variant} killed at {', '.join(self.kills)}\nrepeat: {again}"


def notes_of(home: Path) -> Path:
    """Where the children of ``home`` say things: beside it, so that nothing there is a moment."""
    return home.with_name(home.name + ".notes")


def log_of(home: Path) -> Path:
    """What the children of ``home`` print."""
    return home.with_name(home.name + ".log")


class Zygote:
    """The process that forks children, and the undisturbed homes of the session.

    Args:
        place: a folder for homes.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._undisturbed: dict[tuple[str, str], tuple[Path, Counter[str], float]] = {}
        path = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parents[1])))
        wanted = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._errors = (place / "zygote.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, env=os.environ | wanted | {"PYTHONPATH": path},
        )  # fmt: skip
        self._lazy: list[str] = []
        self._receive()

    def close(self) -> None:
        """End it and wait for it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._errors.close()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.place / "zygote.log").read_text()
        return json.loads(line)

    def attempt(
        self, scenario: str, variant: str, home: Path, kill: Kill | None = None, record: Path | None = None
    ) -> dict[str, Any]:
        """Let a child work in ``home`` until its end or its death; returns what the zygote says of it.

        Args:
            record: a file for its changes of the disk, pickled.
        """
        request = {
            "scenario": scenario, "variant": variant, "home": str(home),
            "notes": str(notes_of(home)), "log": str(log_of(home)), **(vars(kill) if kill else {}),
            "record": str(record) if record else "", "import": self._lazy,
        }  # fmt: skip
        self._lazy = []
        scenarios.lay_out(home)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply = self._receive()
        log = log_of(home).read_text(errors="replace")[-6000:] if log_of(home).exists() else ""
        assert not reply["hung"], f"{scenario} hangs in {home}\n{log}"
        assert reply["killed"] or reply["code"] == 0, f"{scenario} failed in {home}\n{log}"
        return reply

    def undisturbed(self, scenario: str, variant: str) -> tuple[Path, Counter[str], float]:
        """An undisturbed home, how many moments of each kind it took, and how many seconds."""
        if (scenario, variant) not in self._undisturbed:
            home = self.place / f"undisturbed-{scenario}-{variant}"
            reply = self.attempt(scenario, variant, home)
            last = scenarios.read_notes(notes_of(home))[-1]
            counts = Counter(last["moments"])
            self._lazy += last["imported"]  # so that the next child finds it all loaded
            self._undisturbed[scenario, variant] = home, counts, reply["seconds"]
        return self._undisturbed[scenario, variant]


def draw_kill(draw: random.Random, counts: Counter[str], seconds: float, clock: bool, first: bool) -> Kill:
    """When to kill next: each kind of moment is as likely as another, or each instant is as likely as another."""
    if clock:
        return Kill(after_s=draw.uniform(0.02, max(0.1, seconds * 0.7)))
    piece = draw.choice((64, 512, 8192))
    if not first and draw.random() < 0.3:
        return Kill(nth=draw.randint(1, EARLY), piece=piece)
    what = draw.choice(sorted(kind for kind in counts if kind))
    return Kill(what, draw.randint(1, counts[what]), piece=piece)


def run_chain(
    zygote: Zygote, scenario: str, seed: int, most: int = 6, clock: bool = False, variant: str = ""
) -> Chain:
    """Kill a scenario up to ``most`` times, let it end, and judge it; everything follows from ``seed``."""
    draw = random.Random(f"{scenario}/{seed}/{clock}")
    variant = variant or (draw.choice(sorted(scenarios.VARIANTS)) if scenario in TRAINING else "adamw")
    undisturbed, counts, seconds = zygote.undisturbed(scenario, variant)
    home = zygote.place / f"{scenario}-{seed}{'-clock' if clock else ''}"
    chain = Chain(scenario, variant, seed, home)
    if scenario in TRAINING and draw.random() < 0.5:  # half of the runs find their caches full
        shutil.copytree(undisturbed / "cache", home / "cache")
    for number in range(most + 1):
        valid = judging.valid_entries(home)
        kill = draw_kill(draw, counts, seconds, clock, number == 0) if number < most else None
        said = len(chain.notes)
        reply = zygote.attempt(scenario, variant, home, kill)
        chain.seconds += reply["seconds"]
        judging.no_valid_entry_again(chain, valid, chain.notes[said:])
        if not reply["killed"]:
            break
        chain.kills.append("clock" if clock else chain.notes[-1].get("killed_at", "?"))
        judging.after_kill(chain)
    judging.at_the_end(zygote, chain, undisturbed)
    return chain


def run_chains(
    zygote: Zygote, scenario: str, kills: int, most: int = 6, clock: bool = False, seeds: Callable[[int], int] = int
) -> list[Chain]:
    """Chains of a scenario until they hold at least ``kills`` kills; their homes are removed when all is well."""
    chains: list[Chain] = []
    while sum(len(chain.kills) for chain in chains) < kills:
        chain = run_chain(zygote, scenario, seeds(len(chains)), most, clock)
        shutil.rmtree(chain.home)
        chains.append(chain)
    return chains

"""Every target over its seeds, what broke it once, and mutants drawn from a seed; and no parser without a target."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.fuzz.mutate import mutants
from tests.fuzz.table import TARGETS
from tests.reliability import figure

ROOT = Path(__file__).resolve().parents[2]
REFUSED_SEEDS = {
    "sweep-values": 1,  # the name is the sweep's own
    "wire": 3,  # every conversation ends with the other end hanging up
    "lora": 1,  # an infinite alpha
    "tokenizer": 2,  # none of the tiny ones has every special token
}
"""How many of a target's seeds are refused: mutants of those are worth trying too."""


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_what_a_target_takes(name: str) -> None:
    target = TARGETS[name]
    refused = sum(not target.try_one(seed) for seed in target.seeds())
    assert refused == REFUSED_SEEDS.get(name, 0)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.crash)])
def test_mutants_break_nothing(name: str, count: int) -> None:
    target = TARGETS[name]
    accepted = 0
    for data in mutants(target.seeds(), seed=count, count=count):
        try:
            accepted += target.try_one(data)
        except Exception as err:
            err.add_note(f"input: {data[:2000]!r}")
            raise
    figure("fuzz", f"{name}: mutants without an unforeseen error", f"{count} of {count}, {accepted} accepted")


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, each in TARGETS.items() for data in each.found])
def test_what_broke_a_parser_once_does_not_again(name: str, data: bytes) -> None:
    TARGETS[name].try_one(data)


OUTSIDE = re.compile(r"(json|tomllib|tomlkit)\.(loads?|parse)|struct\.unpack(_from)?|(np|numpy|torch)\.frombuffer")
"""Calls that make values of bytes or text."""

NO_TARGET = {
    "engine.dataset.decoder": "replies of our own child; hostile pictures have tests of their own",
    "engine.dataset.decoder_pipe": "messages of our own child; hostile pictures have tests of their own",
    "engine.dataset.decoder_child": "requests of our own parent; hostile pictures have tests of their own",
    "engine.hardware.software": "lines of our own child, which runs our own module",
    "engine.memory.pinned": "memory of our own making",
    "tui.widgets.plot": "arrays of our own, filled from checked events",
}
"""Modules that read bytes and have no target, with the reason."""


def test_no_parser_is_without_a_target() -> None:
    covered = {function.rsplit(".", 1)[0] for target in TARGETS.values() for function in target.covers}
    covered |= {module.rsplit(".", 1)[0] for module in covered}  # a method's class
    lacking, reading = [], set()
    for path in sorted(path for package in ("engine", "profiles", "tui") for path in (ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        if any(OUTSIDE.fullmatch(ast.unparse(call.func)) for call in calls) and ".build." not in name:
            reading.add(name)
            if name not in covered and name not in NO_TARGET:
                lacking.append(name)
    assert not lacking, "give them a target in tests/fuzz, or a reason here"
    assert set(NO_TARGET) <= reading, "a reason for a module that reads nothing any more"


def test_what_a_target_covers_exists() -> None:
    import importlib

    for target in TARGETS.values():
        for place in target.covers:
            module, _, function = place.rpartition(".")
            try:
                owner = importlib.import_module(module)
            except ModuleNotFoundError:
                outer, _, inner = module.rpartition(".")
                owner = getattr(importlib.import_module(outer), inner)
            assert callable(getattr(owner, function)), place

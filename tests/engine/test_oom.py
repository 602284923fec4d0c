"""Memory that runs out anywhere in a whole run, for every kind of optimizer: the same bits, no step lost or doubled.

The gate refuses three allocations in a run of each; `make crash` two hundred, one in each run, caches included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pocket import told
from reliability import figure
from scarce import Scarce
from scarce_runs import Watch, make_place, small

from engine.cache import latents
from engine.config import RunConfig
from engine.events import SteppedDown
from engine.training import ladder as ladder_module

OPTIMIZERS = ("adamw", "adamw8bit", "adafactor", "prodigy", "adamw_schedulefree")
RUNS = 40
"""Of each optimizer, one refusal in each."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a smallest model and, once a run was here, caches."""
    return make_place(tmp_path_factory.mktemp("oom"))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Runs, on a scarce device where one is given."""
    monkeypatch.setattr(latents, "MOST_IN_BATCH", 2)
    return Watch(monkeypatch)


def whole(place: Path, optimizer: str) -> RunConfig:
    """Two steps with a sample before and after and everything saved."""
    rate = 1.0 if optimizer == "prodigy" else 2e-3
    changes: dict[str, Any] = {
        "optimizer": {"name": optimizer, "learning_rate": rate},
        "sampling": {"at_start": True, "every_epochs": 1, "prompts": [{"prompt": "a picture", "steps": 1}]},
        "saving": {"every_epochs": 1},
    }
    return small(place, **changes)


def spread(total: int, count: int) -> list[int]:
    """``count`` numbers from 1 to ``total``, evenly, none of them an end."""
    return [1 + round((number + 0.5) * (total - 1) / count) for number in range(count)]


@pytest.mark.parametrize(
    "optimizer", [OPTIMIZERS[0], *(pytest.param(name, marks=pytest.mark.crash) for name in OPTIMIZERS[1:])]
)
def test_three_refusals_in_a_run(place, watch, monkeypatch, optimizer):
    monkeypatch.setattr(ladder_module, "PATIENCE", 0)  # the first rung alone: every bit has to be the same
    config = whole(place, optimizer)
    watch(config)  # fills the caches, by which runs differ
    wanted = watch.scarce(config)
    parts = watch.mode.places
    loading, sampling, training = (parts[name] for name in ("loading", "sampling", "training"))
    # While loading, in a step, and in the last sample: one refusal in each piece of work.
    total = watch.mode.count
    places = (loading // 2, total - sampling // 2 - training // 4, total - sampling // 4)
    assert watch(config, Scarce(at=places)) == wanted
    assert watch.mode.refused == list(places)
    assert {event.stage for event in told(watch.run, SteppedDown)} >= {"loading", "training"}
    figure("oom", f"{optimizer}, refusals in one run", f"{len(places)} of {len(places)} with the same bits")


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_refusal_in_each_of_forty_runs(place, watch, optimizer, tmp_path):
    """From an empty cache to the last file; nothing is patched."""
    config = whole(place, optimizer)

    def fresh(number: int) -> RunConfig:
        return config.model_copy(update={"cache_dir": tmp_path / f"cache{number}"})

    wanted = watch.scarce(fresh(0))
    total = watch.mode.count
    assert {"caching", "loading", "sampling", "training"} <= watch.mode.places.keys()
    for number, refused in enumerate(spread(total, RUNS), 1):
        mode = Scarce(at=(refused,))
        assert watch(fresh(number), mode) == wanted, f"refused {refused} of {total}"
        assert mode.refused == [refused]
        # Only what changes no bit; work that is halved by itself, as a batch of the caches, tells nothing.
        down = {event.setting for event in told(watch.run, SteppedDown)}
        assert down <= {"empty_cache", "optimizer_states", "blocks_to_swap"}
    figure("oom", f"{optimizer}, runs that met one refusal", f"{RUNS} of {RUNS} with the same bits")

"""Memory that runs out at an allocation, at a hundred places of a run: nothing is lost and nothing done twice.

The adapter's last bits, the pictures of every step and the samples are those of a run that met nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pocket import told
from safetensors.torch import load_file
from scarce import Scarce
from scarce_runs import Course, Watch, make_place, small

from engine.cache import latents
from engine.config import RunConfig
from engine.errors import CacheError
from engine.events import EventLog, Log, SteppedDown
from engine.jobs import fill_caches
from engine.training import ladder as ladder_module
from engine.training import step as step_module
from engine.training.pictures import Painter


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a smallest model and, once a run was here, caches."""
    return make_place(tmp_path_factory.mktemp("ladder"))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of sixteen pictures, most of them grey, are most of what caching four takes."""
    monkeypatch.setattr(latents, "MOST_IN_BATCH", 2)


def spread(total: int, count: int) -> list[int]:
    """``count`` numbers from 1 to ``total``, evenly, the ends among them."""
    return [1 + round(number * (total - 1) / (count - 1)) for number in range(count)]


def counted(watch: Watch, owner: Any, name: str, run: Callable[[], Any]) -> int:
    """Allocations of the first call of ``owner.name`` in a run."""
    work, found = getattr(owner, name), []

    def works(*args: Any, **options: Any) -> Any:
        before = watch.mode.count
        result = work(*args, **options)
        found.append(watch.mode.count - before)
        return result

    with watch.monkeypatch.context() as patched:
        patched.setattr(owner, name, works)
        run()
    return found[0]


def test_sixty_places_of_a_step(place, watch, monkeypatch):
    config = small(place, training={"epochs": 30})
    wanted: list[Course] = []
    total = counted(watch, step_module.Stepper, "step", lambda: wanted.append(watch.scarce(config)))
    monkeypatch.setattr(ladder_module, "PATIENCE", 0)  # the first rung alone: what is under test is the undoing
    watch.faults(step_module.Stepper, "step", spread(total, 60))
    assert watch.scarce(config) == wanted[0]
    assert len(watch.mode.refused) >= 56  # the first step has allocations that the others have not
    down = told(watch.run, SteppedDown)
    assert len(down) == len(watch.mode.refused) and {event.setting for event in down} == {"empty_cache"}
    assert [event.step for event in down] == sorted({event.step for event in down})


def test_twelve_places_of_loading(place, watch, monkeypatch):
    from engine import trainer

    config = small(place)
    wanted: list[Course] = []
    total = counted(watch, trainer, "build_kit", lambda: wanted.append(watch.scarce(config)))
    monkeypatch.setattr(ladder_module, "PATIENCE", 0)
    coming = spread(total, 12)
    build = trainer.build_kit

    def builds(*args: Any) -> Any:
        if coming:
            watch.mode.arm(coming.pop(0))
        return build(*args)

    monkeypatch.setattr(trainer, "build_kit", builds)
    assert watch.scarce(config) == wanted[0]
    assert len(watch.mode.refused) == 12
    assert {event.stage for event in told(watch.run, SteppedDown)} == {"loading"}


def test_sixteen_places_of_sampling(place, watch):
    prompts = [{"prompt": "a picture", "seed": seed, "steps": 1} for seed in range(16)]
    config = small(place, sampling={"at_start": True, "prompts": prompts})
    wanted: list[Course] = []
    total = counted(watch, Painter, "picture", lambda: wanted.append(watch.scarce(config)))
    watch.faults(Painter, "picture", spread(total, 16))
    assert watch.scarce(config) == wanted[0]
    assert len(watch.mode.refused) >= 13  # the first picture loads the autoencoder, too
    warnings = [log for log in told(watch.run, Log) if log.level == "warning"]
    assert len(warnings) == len(watch.mode.refused)


@pytest.mark.slow
def test_fourteen_places_of_caching(place, tmp_path):
    config = small(place)
    mode = Scarce()
    with mode:
        fill_caches(config.model_copy(update={"cache_dir": tmp_path / "wanted"}), EventLog())
    wanted = entries(tmp_path / "wanted")
    for number, refused in enumerate(spread(mode.count, 14)):
        cache = tmp_path / str(number)
        with Scarce(at=(refused,)) as scarce:
            assert fill_caches(config.model_copy(update={"cache_dir": cache}), EventLog())
        assert scarce.refused == [refused]
        assert entries(cache) == wanted


def entries(folder: Path) -> dict[str, dict[str, list[float]]]:
    found = {path.name: load_file(path) for path in folder.rglob("*.safetensors")}
    return {name: {key: value.flatten().tolist() for key, value in held.items()} for name, held in found.items()}


def test_caching_that_never_fits_is_refused_before_any_work(place, tmp_path):
    config = small(place).model_copy(update={"cache_dir": tmp_path / "cache"})
    with Scarce(cap=200_000), pytest.raises(CacheError, match="tried: one at a time, and again") as caught:
        fill_caches(config, EventLog())
    assert "more GPU memory than there is" in caught.value.title
    assert not entries(tmp_path / "cache")


def test_saving_and_restoring(place, watch, monkeypatch):
    """A schedule-free optimizer shows other weights than it trains: the copy of them may find no room."""
    from engine.training.keeper import Keeper

    config = small(
        place, optimizer={"name": "adamw_schedulefree"}, saving={"every_epochs": 1}, training={"epochs": 2}
    )
    wanted = watch.scarce(config)
    watch.faults(Keeper, "_write", [1])
    assert watch.scarce(config) == wanted and len(watch.mode.refused) == 1
    assert any("while saving" in log.text for log in told(watch.run, Log))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_a_hundred_and_twenty_runs_that_meet_one_refusal_each(place, watch, part, tmp_path):
    """Anywhere in a whole run, from an empty cache to the last file; nothing is patched."""
    prompts = [{"prompt": "a picture", "steps": 1}]
    config = small(place, sampling={"at_start": True, "every_epochs": 1, "prompts": prompts})

    def fresh(number: int) -> RunConfig:
        return config.model_copy(update={"cache_dir": tmp_path / f"cache{number}"})

    wanted = watch.scarce(fresh(0))
    total = watch.mode.count
    assert {"caching", "loading", "sampling", "training"} <= watch.mode.places.keys()
    for number, refused in list(enumerate(spread(total, 120), 1))[part::6]:
        mode = Scarce(at=(refused,))
        assert watch(fresh(number), mode) == wanted, f"refused {refused} of {total}"
        assert mode.refused == [refused]


def test_what_a_failed_attempt_held_is_free(place, watch, monkeypatch):
    """The second attempt begins with no more memory than the first."""
    began: list[int] = []
    step = step_module.Stepper.step

    def stepping(stepper: Any, turn: Any, look: Any = None) -> Any:
        began.append(watch.mode.live)
        return step(stepper, turn, look)

    monkeypatch.setattr(step_module.Stepper, "step", stepping)
    watch.scarce(small(place, training={"steps": 3}))
    began.clear()
    total = watch.mode.places["training"] // 2
    watch.faults(step_module.Stepper, "step", [10**9, total - 100])
    watch.scarce(small(place, training={"epochs": 2, "steps": 3}))
    assert len(watch.mode.refused) == 1 and len(began) == 4
    assert began[2] <= began[1]

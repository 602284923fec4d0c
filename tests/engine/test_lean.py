"""A run's transformer with what feeds it: what is pinned is given back however a run ends; what is told, and when."""

from types import SimpleNamespace

import pytest
import torch
from pocket import FILES, finish, pocket_config, told

from engine.commands import StopNow
from engine.config import PromptConfig
from engine.errors import RunError
from engine.events import EventLog, Log, Progress
from engine.jobs import sample_pictures
from engine.memory.modulation_file import layers_bytes
from engine.memory.pinned import HostPool
from engine.models.flux_file import flux_params, flux_part
from engine.models.modulation import modulation_places
from engine.run import Run
from engine.training import kit as kit_module
from engine.training import lean as lean_module
from engine.training.keeper import Keeper
from engine.training.lean import Lean
from engine.training.pictures import Painter


@pytest.fixture
def pools(monkeypatch):
    """How often each pool that was made for a run has been closed."""
    made = []

    class Counted(HostPool):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.closed = 0
            made.append(self)

        def close(self):
            self.closed += 1
            super().close()

    monkeypatch.setattr(lean_module, "HostPool", Counted)
    return made


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Caches that the tests share."""
    return tmp_path_factory.mktemp("cache")


def broken(*args, **kwargs):
    raise RunError("Broken", "in a test", "none")


def closed(pools):
    return [pool.closed for pool in pools] == [1]


def test_a_run_that_finishes_closes_its_pool(tmp_path, cache, pools):
    assert finish(Run(pocket_config(tmp_path, cache_dir=cache, training={"steps": 1}))).exit_reason == "finished"
    assert closed(pools)


@pytest.mark.parametrize(
    ("holder", "name"),
    [
        (lean_module, "load_base"),
        (lean_module, "choose_pieces"),
        (kit_module, "build_optimizer"),
        (Keeper, "restore"),
        (Keeper, "save"),
    ],
)
def test_a_run_that_fails_while_it_is_made_or_later_closes_its_pool(
    tmp_path, cache, pools, monkeypatch, holder, name
):
    monkeypatch.setattr(holder, name, broken)
    assert finish(Run(pocket_config(tmp_path, cache_dir=cache, training={"steps": 1}))).exit_reason == "failed"
    assert closed(pools)


def test_a_run_that_is_stopped_while_it_loads_closes_its_pool(tmp_path, cache, pools, monkeypatch):
    run = Run(pocket_config(tmp_path, cache_dir=cache))
    append = EventLog.append

    def stopping(self, event):
        append(self, event)
        if isinstance(event, Progress) and event.stage == "load transformer":
            run.submit(StopNow())

    monkeypatch.setattr(EventLog, "append", stopping)
    assert finish(run).exit_reason == "stopped"
    assert closed(pools)


def test_pictures_close_their_pool_drawn_or_not(tmp_path, cache, pools, monkeypatch):
    config, prompt = pocket_config(tmp_path, cache_dir=cache), PromptConfig(prompt="a zorple", seed=1)
    sample_pictures(config, None, [prompt], tmp_path / "out", EventLog())
    monkeypatch.setattr(Painter, "draw", broken)
    with pytest.raises(RunError, match="Broken"):
        sample_pictures(config, None, [prompt], tmp_path / "out", EventLog())
    assert [pool.closed for pool in pools] == [1, 1]


def test_a_card_that_failed_hides_no_first_error_and_the_pool_is_closed():
    seen = []

    def failed():
        seen.append("source")
        raise RuntimeError("CUDA error")

    source, pool = SimpleNamespace(close=failed), SimpleNamespace(close=lambda: seen.append("pool"))
    lean = Lean(None, None, source, None, None, pool, None)
    with pytest.raises(RunError, match="Broken"):
        try:
            broken()
        finally:
            lean.close()
    assert seen == ["source", "pool"]


def test_what_the_streamed_blocks_will_take_is_not_counted_twice(tmp_path, cache):
    """Room for the modulation layers, for the streamed blocks, and not for both."""
    config = pocket_config(tmp_path, cache_dir=cache)
    params = flux_params(flux_part(FILES / "flux-pocket.safetensors"))
    needed = layers_bytes(
        modulation_places(params.depth, params.depth_single_blocks), params.hidden_size, torch.float32
    )
    on_card = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    seen = [lean_module._modulation_place(config, on_card, params, free) for free in (needed, needed - 1)]
    assert seen[0] == (torch.device("cpu"), "") and seen[1][0] is None and "stay in the model's file" in seen[1][1]


def test_the_modulation_layers_get_what_streamed_blocks_leave(tmp_path, cache, monkeypatch):
    given, place = [], lean_module._modulation_place

    def asking(config, compute, params, free_bytes):
        given.append(free_bytes)
        return place(config, compute, params, free_bytes)

    free = 2**34
    monkeypatch.setattr(lean_module, "_modulation_place", asking)
    monkeypatch.setattr(HostPool, "_free_now", lambda self: free)
    taken = []
    require = HostPool.require
    monkeypatch.setattr(HostPool, "require", lambda self, size, what: (taken.append(size), require(self, size, what)))
    config = pocket_config(tmp_path, cache_dir=cache, training={"steps": 1}, memory={"blocks_to_swap": 4})
    assert finish(Run(config)).exit_reason == "finished"
    assert given == [HostPool().free_bytes() - taken[0]] and taken[0] > 0


def test_memory_left_unpinned_after_the_start_is_told_once(tmp_path, cache, monkeypatch):
    words = ["", "", "0.2 GB are not pinned", "", ""]
    monkeypatch.setattr(HostPool, "news", lambda self: words.pop(0) if words else "")
    run = finish(Run(pocket_config(tmp_path, cache_dir=cache)))
    assert [event.text for event in told(run, Log)].count("0.2 GB are not pinned") == 1

"""The modulation cache in training and sampling: the same bits with it and without, wherever its chunks end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from model_files import TINY
from tabled import Session, run_config, watched
from torch import Tensor

from engine.memory.conditioning import Conditioning, PoolMemory
from engine.memory.pinned import HostPool
from engine.models.family import FLUX1, TextEmbeds
from engine.training.modulations import Modulations, micro_sigmas
from engine.training.objective import Objective
from engine.training.sampling import AHEAD, PictureRequest, draw_latents, modulations_ahead


@pytest.fixture(scope="module")
def without() -> Session:
    """Twenty steps without the cache."""
    return Session().train(None)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples of every table computed from here on."""
    sizes: list[int] = []
    table = Conditioning.table

    def counting(self: Conditioning, timesteps: Tensor, *rest: Any, **named: Any) -> Any:
        sizes.append(len(timesteps))
        return table(self, timesteps, *rest, **named)

    monkeypatch.setattr(Conditioning, "table", counting)
    return sizes


def test_without_the_cache_the_transformer_is_given_nothing(without: Session) -> None:
    assert set(without.transformer.calls) == {None} and len(set(without.losses)) == len(without.losses)


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_chunks_change_no_bit(without: Session, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    sizes = counted(monkeypatch)
    session = Session()
    session.train(session.modulations(chunk))
    assert session.same(without)
    assert None not in session.transformer.calls
    limit = max(chunk, session.config.training.batch_size)
    assert max(sizes) <= limit and (len(sizes) == 1 if chunk == 256 else len(sizes) > 20)


def test_in_bfloat16_too() -> None:
    first, second = (Session(dtype=torch.bfloat16) for _ in range(2))
    first.train(None, 6)
    assert second.train(second.modulations(5), 6).same(first)


@pytest.mark.parametrize("chunk", [3, 256])
def test_with_adapters_on_modulation_layers(chunk: int) -> None:
    """Rows are the frozen layers'; what the adapters add is made from the same vector either way."""
    config = run_config(lora={"targets": "all", "module_dropout": 0.2})
    first, second = Session(config), Session(config)
    first.train(None)
    second.train(second.modulations(chunk))
    assert second.same(first)
    trained = {name for name, matrix in second.lora.state().items() if "mod" in name and matrix.abs().max() > 0}
    assert any(name.endswith("img_mod.lin.lora_up.weight") for name in trained)


def test_a_chunk_is_as_large_as_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    session = Session(run_config(training={"epochs": 2}))
    session.train(session.modulations(256))
    assert sizes == [14]


@pytest.mark.parametrize("step", [1, 2, 9])
def test_resuming_begins_a_chunk_and_changes_no_bit(without: Session, step: int) -> None:
    first = Session()
    first.train(first.modulations(6), steps=step)
    again = Session(losses=first.losses)
    again.lora.load_state(first.lora.state())
    again.optimizer.load_state_dict(first.optimizer.state_dict())
    assert again.train(again.modulations(6), after=step).same(without)


def test_an_edit_counts_from_its_epoch_on() -> None:
    """The chunk at hand was computed for the captions before it."""

    def editing(session: Session) -> Callable[[Any], None]:
        def between(turn: Any) -> None:
            if turn.index == 0 and turn.epoch == 4:
                session.order.take(4, {2: "something else", 5: "and this"})

        return between

    first, second = Session(), Session()
    first.train(None, between=editing(first))
    second.train(second.modulations(256), between=editing(second))
    assert second.same(first) and None not in second.transformer.calls
    assert not first.same(Session().train(None))


def test_only_what_an_edit_touched_is_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(run_config(dataset={"captions": {}}))
    sizes = counted(monkeypatch)
    modulations = session.modulations(256)
    turns = list(session.order.turns())

    def of(turn: Any) -> None:
        for number, micro in enumerate(session.order.step(turn)):
            sigmas = micro_sigmas(session.config, FLUX1, micro, turn.step, number)
            modulations.of(micro, turn.step, number, sigmas)

    of(turns[0])
    assert len(sizes) == 1
    last = max(turns, key=lambda turn: turn.step)
    session.order.take(last.epoch, {0: "new"})
    for turn in turns:
        if turn.epoch < last.epoch:
            of(turn)
    assert len(sizes) == 1
    for turn in turns:
        if turn.epoch == last.epoch:
            of(turn)
    assert len(sizes) == 2 and sizes[1] <= 7


def test_a_batch_of_somebody_elses_is_served_and_disturbs_nothing(
    without: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a validation asks: at a step that the order has something else for, or has nothing for."""
    session, sizes = Session(), counted(monkeypatch)
    modulations = session.modulations(256)
    micro = session.order.epoch_steps(9)[0][0]
    given: list[Tensor] = []

    def between(turn: Any) -> None:
        for place in ((turn.step, 0), (turn.step, 77), (10**6, 0)):
            found = modulations.of(micro, *place, torch.tensor([0.25] * len(micro.items)))
            given.append(found.rows)

    assert session.train(modulations, between=between).same(without)
    assert all(torch.equal(rows, given[0]) for rows in given) and len(sizes) == 1


def test_what_was_handed_over_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the table's memory is written anew."""
    session = Session()
    modulations = session.modulations(2)
    handed: list[tuple[Tensor, Tensor]] = []
    of = Modulations.of

    def noting(self: Modulations, *args: Any) -> Any:
        found = of(self, *args)
        handed.append((found.rows, found.rows.clone()))
        return found

    monkeypatch.setattr(Modulations, "of", noting)
    session.train(modulations, steps=4)
    assert len(handed) > 4 and all(torch.equal(*pair) for pair in handed)


def test_processes_compute_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    whole = Session(run_config(training={"accumulation": 1}), processes=2)
    seen: dict[int, list[str]] = {}
    for rank in (0, 1):
        session = Session(whole.config, processes=2, rank=rank)
        session.train(session.modulations(256), steps=4)
        seen[rank] = [text.removeprefix("text/") for text in session.store.read if text.startswith("text")]
    items = [i for turn in whole.order.turns() for m in whole.order.step(turn)[:1] for i in m.items]
    others = [i for turn in whole.order.turns() for m in whole.order.step(turn)[1:] for i in m.items]
    assert sizes == [len(items), len(others)]
    assert set(seen[0]) == {i.caption for i in items} and set(seen[1]) == {i.caption for i in others}


def test_noise_levels_are_those_of_the_latents_size() -> None:
    """The draw knows the picture's size from its place in a bucket, before its latents are read."""
    config = run_config(objective={"timestep_sampling": "flux_shift"})
    session = Session(config)
    objective = Objective(config, FLUX1, session.transformer, session.entries, session.compute)
    for turn in list(session.order.turns())[:4]:
        for number, micro in enumerate(session.order.step(turn)):
            inputs = objective.inputs(micro, turn.step, number)
            height, width = inputs.latents.shape[2:]
            placement = micro.items[0].view.placement
            assert (placement.bucket_h, placement.bucket_w) == (height * 8, width * 8)
            assert torch.equal(inputs.sigmas, micro_sigmas(config, FLUX1, micro, turn.step, number))


def test_memory_is_reserved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    reserved: list[int] = []
    reserve = Conditioning.reserve
    monkeypatch.setattr(Conditioning, "reserve", lambda self, n: (reserved.append(n), reserve(self, n))[1])
    modulations: Modulations = session.modulations(9)
    session.train(modulations)
    assert reserved == [9]
    modulations.drop()
    session.train(modulations, steps=21, after=20)
    assert reserved == [9, 9]


def test_a_table_that_grows_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    session, pool = Session(), HostPool(free_bytes=2**40)
    ahead = session.transformer.conditioning
    ahead._host = PoolMemory(pool)
    reserved: list[int] = []
    reserve = Conditioning.reserve
    monkeypatch.setattr(Conditioning, "reserve", lambda self, n: (reserved.append(n), reserve(self, n))[1])
    modulations = session.modulations(1)
    session.train(modulations, steps=2)
    modulations._chunk = 6  # stands for a micro-batch larger than all before it
    session.train(modulations, after=2)
    assert reserved == [2, 6] and pool.pageable_bytes == ahead.bytes_of(6)
    modulations.drop()
    assert not pool.pageable_bytes


REQUEST = PictureRequest("x", seed=5, width=96, height=64, steps=3, guidance=3.0)


def embeds(seed: int) -> TextEmbeds:
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(1, 6, TINY.context_in_dim, generator=draw)
    return TextEmbeds(torch.randn(1, TINY.vec_in_dim, generator=draw), states, torch.ones(1, 6, dtype=torch.bool))


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_a_pictures_modulation_is_computed_in_one_pass(monkeypatch: pytest.MonkeyPatch, cfg: float) -> None:
    (model, _), request = watched(), replace(REQUEST, cfg=cfg)
    args = (FLUX1, model, embeds(1), embeds(2), request, "dev", "cpu")
    step_by_step = draw_latents(*args)
    assert set(model.calls) == {None}
    model.calls.clear()
    sizes = counted(monkeypatch)
    ahead = draw_latents(*args, conditioning=model.conditioning)
    assert ahead is not None and step_by_step is not None and torch.equal(ahead, step_by_step)
    assert sizes == [3 if cfg == 1.0 else 6] and None not in model.calls


def test_a_picture_of_very_many_steps_takes_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    (model, _), sizes = watched(), counted(monkeypatch)
    times = torch.linspace(1, 0, 150).tolist()
    found = list(modulations_ahead(model.conditioning, times, [embeds(1), embeds(2)], 3.0))
    assert sizes == [AHEAD, 300 - AHEAD] and len(found) == 150
    y = torch.cat([embeds(1).pooled, embeds(2).pooled])
    last = model.conditioning(torch.tensor([times[-1]] * 2), y, torch.full((2,), 3.0))
    pair = [part.rows[0] for part in found[-1] if part is not None]
    assert torch.equal(torch.stack(pair), last.rows)

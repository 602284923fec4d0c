"""The order of pictures: a pure function of the epoch, complete, and steady under everything else."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batches import Order, Turn
from engine.config import RunConfig
from engine.dataset.scan import Sample

FILES = dict.fromkeys(("transformer", "autoencoder", "clip_l", "t5"), "x")


def sample(index, size=(640, 480), repeats=1, regularization=False, caption="a cat"):
    path = Path(f"/d/{index}.png")
    return Sample(index, path, path.name, None, caption, *size, repeats, regularization)


def config(**changes):
    base = {"name": "t", "model": FILES, "dataset": {"folders": [{"path": "/d"}], "resolution": 512}}
    base["dataset"] |= changes.pop("dataset", {})
    return RunConfig.model_validate(base | changes)


def seen(order, epoch):
    return [item for step in order.epoch_steps(epoch) for micro in step for item in micro.items]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 23),
    batch=st.integers(1, 5),
    accumulation=st.integers(1, 4),
    repeats=st.integers(1, 3),
    epoch=st.integers(1, 4),
)
def test_every_picture_comes_exactly_as_often_as_it_should(count, batch, accumulation, repeats, epoch):
    samples = [sample(i, (640, 480) if i % 3 else (480, 640), repeats) for i in range(count)]
    order = Order(samples, config(training={"batch_size": batch, "accumulation": accumulation}))
    items = seen(order, epoch)
    assert sorted(item.view.sample.index for item in items) == sorted(list(range(count)) * repeats)
    assert len({item.slot for item in items}) == len(items)
    for step in order.epoch_steps(epoch):
        assert 1 <= len(step) <= accumulation
        for micro in step:
            assert 1 <= len(micro.items) <= batch
            assert len({(i.view.placement.bucket_w, i.view.placement.bucket_h) for i in micro.items}) == 1


def test_the_order_depends_on_seed_and_epoch_alone():
    samples = [sample(i) for i in range(12)]
    first, again = Order(samples, config()), Order(samples, config())
    again.epoch_steps(3)
    assert first.epoch_steps(2) == again.epoch_steps(2)
    assert first.epoch_steps(1) != first.epoch_steps(2)
    assert Order(samples, config(seed=1)).epoch_steps(1) != first.epoch_steps(1)


def test_turns_count_on_over_epochs_and_resume_anywhere():
    order = Order([sample(i) for i in range(5)], config(training={"epochs": 3, "batch_size": 2}))
    turns = list(order.turns())
    assert turns[0] == Turn(1, 1, 0) and turns[-1] == Turn(9, 3, 2)
    assert list(order.turns(after=4)) == turns[4:]
    assert (order.total_steps, order.total_epochs) == (9, 3)
    assert [order.ends_epoch(turn) for turn in turns] == [False, False, True] * 3


def test_steps_end_a_run_within_an_epoch():
    order = Order([sample(i) for i in range(5)], config(training={"epochs": 0, "steps": 7}))
    assert list(order.turns())[-1] == Turn(7, 2, 1)
    assert not order.ends_epoch(Turn(7, 2, 1))


def test_regularization_pictures_balance_the_others_and_take_turns():
    samples = [sample(i) for i in range(4)] + [sample(i, regularization=True) for i in range(4, 14)]
    order = Order(samples, config(dataset={"prior_loss_weight": 0.5, "captions": {"trigger_word": "zorple"}}))
    drawn = []
    for epoch in (1, 2, 3):
        items = seen(order, epoch)
        regular = [item for item in items if item.view.sample.regularization]
        assert len(items) == 8 and len(regular) == 4
        assert {item.weight for item in regular} == {0.5}
        assert all("zorple" not in item.caption for item in regular)
        assert all("zorple" in item.caption for item in items if item not in regular)
        drawn.append({item.view.sample.index for item in regular})
    assert len(set.union(*drawn)) > 4
    few = Order([sample(i) for i in range(5)] + [sample(9, regularization=True)], config())
    assert sum(item.view.sample.regularization for item in seen(few, 1)) == 5


def test_flip_and_crop_are_drawn_anew_each_epoch():
    samples = [sample(i, (900, 600)) for i in range(12)]
    order = Order(samples, config(dataset={"flip": True, "random_crop": True, "buckets": {"step": 64}}))
    views = [{item.view.sample.index: item.view for item in seen(order, epoch)} for epoch in (1, 2)]
    assert {view.flip for view in views[0].values()} == {True, False}
    assert views[0] != views[1]


def test_processes_share_a_step():
    order = Order([sample(i) for i in range(8)], config(training={"accumulation": 2}), processes=2)
    assert [len(step) for step in order.epoch_steps(1)] == [4, 4]


@pytest.mark.parametrize("epochs", [1, 4])
def test_items_names_everything_the_caches_need(epochs):
    order = Order([sample(i) for i in range(3)], config(training={"epochs": epochs}))
    assert len(list(order.items())) == 3 * epochs


@pytest.mark.parametrize("changed", [(0, 2), (0, 5), (6,), ()], ids=["concept", "both", "regularization", "none"])
def test_captions_from_names_what_later_epochs_will_ask_for(changed):
    regular = [sample(i, regularization=True, caption="a house, a tree, a road") for i in range(5, 15)]
    samples = [sample(i, repeats=1 + i % 2, caption="a cat, a mat, a hat") for i in range(5)] + regular
    order = Order(samples, config(dataset={"captions": {"shuffle": True}}, training={"epochs": 6}))
    texts = {index: f"red {index}, green {index}, blue {index}" for index in changed}
    wanted = order.captions_from(3, texts)
    order.take(3, texts)
    items = [item for epoch in range(3, 7) for item in seen(order, epoch)]
    assert wanted == {item.caption for item in items if item.view.sample.index in texts}


@pytest.mark.parametrize("captions", [{}, {"shuffle": True}], ids=["fixed", "shuffled"])
def test_nothing_changed_walks_no_epoch(monkeypatch, captions):
    order = Order([sample(i) for i in range(5)], config(dataset={"captions": captions}, training={"epochs": 6}))
    monkeypatch.setattr(Order, "_seen", None)
    assert order.captions_from(2, {}) == set()

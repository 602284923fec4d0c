"""Jobs and settings from configurations: steps as the engine's order has them, "auto" as the engine resolves it."""

import random
from pathlib import Path

import pytest

from engine.batches import Order
from engine.dataset.scan import Sample
from engine.errors import ConfigError, DatasetError
from engine.hardware.cards import Card
from engine.hardware.rates import CardRates
from engine.memory import products8
from profiles.estimate import forecast, steps_of
from profiles.job import job_for, job_of, settings_of
from profiles.products import has_bf16, kind_of
from profiles.schema import Machine, Settings
from tests.bench.trace.against import MACHINE
from tests.pocket import pocket_config


def samples(draw: random.Random, count: int, regular: int = 0) -> list[Sample]:
    sizes = ((1000, 1000), (640, 960), (1200, 700), (333, 500))
    found = []
    for index in range(count + regular):
        other = index >= count
        width, height = sizes[0] if other else draw.choice(sizes)
        path = Path(f"/pictures/{index}.png")
        repeats = draw.randint(1, 3)
        found.append(Sample(index, path, path.name, None, f"caption {index % 7}", width, height, repeats, other))
    return found


@pytest.mark.parametrize("number", range(12))
def test_steps_are_those_of_the_order(tmp_path, number):
    draw = random.Random(number)
    config = pocket_config(
        tmp_path,
        training={
            "batch_size": draw.randint(1, 4),
            "accumulation": draw.randint(1, 3),
            "epochs": 0 if number == 3 else draw.randint(1, 5),
            "steps": draw.choice((0, 7, 1000)) if number != 3 else 40,
        },
    )
    found = samples(draw, draw.randint(1, 30))
    job = job_of(config, found)
    assert steps_of(job, settings_of(config, MACHINE)) == Order(found, config).total_steps


def test_regularization_pictures_take_as_many_turns_as_the_others(tmp_path):
    config = pocket_config(tmp_path, training={"batch_size": 3})
    found = samples(random.Random(5), 9, regular=4)
    job, order = job_of(config, found), Order(found, config)
    assert sum(bucket.count for bucket in job.buckets) == sum(len(micro.items) for micro in _micros(order))
    assert steps_of(job, settings_of(config, MACHINE)) == order.total_steps


def _micros(order):
    return [micro for step in order.epoch_steps(1) for micro in step]


def test_a_job_counts_what_is_cached_saved_and_drawn(tmp_path):
    config = pocket_config(
        tmp_path,
        dataset={"flip": True},
        sampling={"prompts": [{"prompt": "a"}, {"prompt": "b", "width": 128}], "cfg": 2.0, "every_steps": 4},
        saving={"layouts": ["kohya", "diffusers"], "every_epochs": 2},
        training={"epochs": 4, "accumulation": 1},
    )
    found = samples(random.Random(1), 5)
    job, order = job_of(config, found), Order(found, config)
    steps = order.total_steps
    each = steps // 4
    drawn = {epoch * each for epoch in range(1, 5)} | set(range(4, steps + 1, 4))
    assert job.draws.times == 1 + len(drawn)
    assert (job.draws.count, job.draws.width, job.draws.cfg) == (2, 128, True)
    assert job.saves == 2 + 1
    assert (job.layouts, job.diffusers, job.lora_itemsize) == (2, True, 4)
    views = {item.view for item in order.items()}
    assert len(views) <= job.views == 10
    # Two prompts and the empty negative one.
    assert job.captions == len({item.caption for item in order.items()}) + 3
    assert job.model.text_tokens == 20


def test_a_limit_on_lora_files_is_what_stands_at_most(tmp_path):
    found = samples(random.Random(1), 5)

    def kept(**changes):
        training = {"epochs": 30, "accumulation": 1}
        job = job_of(pocket_config(tmp_path, training=training, **changes), found)
        return job.saves, job.kept

    assert kept() == (31, 0)
    # The newest, one more until the oldest goes, and the one at the end.
    assert kept(saving={"keep_loras": 5}) == (31, 7)
    assert kept(saving={"keep_loras": 50}) == (31, 0)
    # Where the advisor runs the recommended epoch and its neighbours stay too.
    measuring = {"every_epochs": 1}
    assert kept(saving={"keep_loras": 1}, validation=measuring) == (31, 6)
    assert kept(saving={"every_epochs": 10}, validation=measuring) == (4, 4 + 8)
    assert kept(saving={"every_epochs": 10}, validation=measuring, stop={"mode": "off"}) == (4, 0)


def test_moving_captions_and_crops_are_counted_by_turns(tmp_path):
    config = pocket_config(tmp_path, dataset={"random_crop": True, "captions": {"shuffle": True}})
    found = samples(random.Random(2), 6)
    job, order = job_of(config, found), Order(found, config)
    turns = sum(1 for _ in order.items())
    assert job.views == turns
    assert job.captions == turns


def test_no_pictures_is_said(tmp_path):
    with pytest.raises(DatasetError, match="no pictures"):
        job_of(pocket_config(tmp_path), [])


CAPABILITIES = ((6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))


@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8", "nf4"])
@pytest.mark.parametrize("compute", ["auto", "wide"])
def test_products_are_chosen_as_the_engine_chooses(precision, compute):
    for capability in CAPABILITIES:
        card = Card("card", 24, capability, CardRates(100, 200, 200, 1000), 25)
        chosen = products8.choose(precision, compute, products8.Card("card", capability)).kind
        kind = kind_of(precision, "8bit" if compute == "auto" else "wide", card)
        assert (kind if kind in ("int8", "fp8") else "wide") == chosen
        dtype, _ = products8.base_dtype("auto", products8.Card("card", capability))
        assert has_bf16(card) == (str(dtype) == "torch.bfloat16")
    assert kind_of("int8", "8bit", None) == "unpacked"


def test_settings_on_a_processor_are_wide(tmp_path):
    without = Machine(None, 0, 32, 24, 8, 100, 100)
    config = pocket_config(tmp_path, memory={"precision": "int8"})
    assert settings_of(config, without).compute == "wide"
    assert settings_of(pocket_config(tmp_path), without).precision == "float32"
    on_card = pocket_config(tmp_path, training={"device": "auto"})
    assert settings_of(on_card, MACHINE).precision == "bf16"
    wide = pocket_config(tmp_path, training={"device": "auto", "mixed_precision": "no"})
    assert settings_of(wide, MACHINE).precision == "float32"


def test_plans_need_no_files():
    job = job_for(pictures=12, repeats=5, epochs=6, prompts=2)
    assert steps_of(job, Settings()) == 360
    assert job.draws.times == 6
    assert forecast(job, Settings(), MACHINE).stage("sample").seconds > 0
    with pytest.raises(ConfigError, match="none of the models"):
        job_for("flux9")

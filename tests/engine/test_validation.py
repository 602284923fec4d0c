"""Measuring: it tells the truth, the same each time, and leaves no trace in what is trained."""

import math

import pytest
import torch
from pocket import DEMO, finish, pictures, pocket_config, told
from safetensors.torch import load_file

from engine.events import Log, Measured, RunFailed, StateChanged, StepDone
from engine.events_measured import BANDS
from engine.run import Run
from engine.training.flow import noisy, velocity_target
from engine.training.validation import silenced, update_sizes

MEASURED = {"folder": DEMO / "held_out", "every_epochs": "auto", "budget": 50.0}


def final(run):
    assert run.exit_reason == "finished", told(run, RunFailed)
    return load_file(run.folder.root / f"{run.folder.name}.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"optimizer": {"name": "adamw_schedulefree"}, "lora": {"dropout": 0.1}}, marks=pytest.mark.slow),
        pytest.param({"memory": {"modulation_cache": True, "precision": "int8"}}, marks=pytest.mark.slow),
        {"memory": {"blocks_to_swap": 2}, "training": {"gradient_checkpointing": "full"}},
    ],
    ids=["plain", "schedule-free", "int8", "swap"],
)
def test_a_run_with_and_without_measuring_ends_with_the_same_bits(tmp_path, changes):
    without = finish(Run(pocket_config(tmp_path, **changes, validation={"every_epochs": 0})))
    with_it = finish(Run(pocket_config(tmp_path, **changes, validation=MEASURED)))
    ours, wanted = final(with_it), final(without)
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted) and ours.keys() == wanted.keys()
    losses = [[event.loss for event in told(run, StepDone)] for run in (without, with_it)]
    assert losses[0] == losses[1]
    assert not told(without, Measured) and [m.epoch for m in told(with_it, Measured)] == [0, 1, 2, 3]


def test_what_a_measurement_tells(tmp_path):
    config = pocket_config(tmp_path, validation=MEASURED, training={"epochs": 8}, optimizer={"learning_rate": 4e-3})
    run = finish(Run(config))
    found = told(run, Measured)
    assert [m.step for m in found] == [3 * m.epoch for m in found] and len(found) == 9
    first, last = found[0], found[-1]
    assert len(first.held_out) == 2 and len(first.held_out_pictures) == 8 and len(first.held_out_bands) == len(BANDS)
    assert first.drift == 0.0 and not any(size for _, size in first.update)
    assert last.drift > 0.0 and all(size > 0 for _, size in last.update)
    # It learns: the training pictures' loss falls, and the two seeds tell the same of the held-out ones.
    assert last.train[0] < first.train[0]
    change = [after - before for after, before in zip(last.held_out, first.held_out, strict=True)]
    assert change[0] * change[1] > 0
    assert math.isclose(sum(first.held_out) / 2, _mean_of_bands(first), rel_tol=1e-5)
    assert math.isclose(sum(first.held_out) / 2, sum(first.held_out_pictures) / 8, rel_tol=1e-5)
    states = [event.state for event in told(run, StateChanged)]
    assert states.count("measuring") == 9 and states[-1] == "finished"
    # Steps are told late, but before what was measured after them.
    order = [event.step for event in told(run, StepDone, Measured)]
    assert order == sorted(order) and len(order) == 24 + 9


def _mean_of_bands(measured):
    """Five levels: two below 0.3, one in between, two above."""
    low, middle, high = measured.held_out_bands
    return (2 * low + middle + 2 * high) / 5


def test_the_loss_is_the_plain_mean_of_squared_errors(tmp_path, monkeypatch):
    """Against the definition, one probe at a time on the base model."""
    from engine.training import measurer

    kits = []
    begin = measurer.Measurer.begin

    def noted(self, *rest):
        begin(self, *rest)
        kits.append((self.kit, self.chosen, self.gauge.known(self.subject(), self.chosen.held_out)))
        kits.append(_alone(*kits[0], self.config.seed))

    monkeypatch.setattr(measurer.Measurer, "begin", noted)
    config = pocket_config(tmp_path, validation=MEASURED | {"sigmas": (0.2, 0.7)}, training={"epochs": 1})
    run = finish(Run(config))
    first = told(run, Measured)[0]
    assert first.held_out == pytest.approx(kits[1], rel=1e-5)


def _alone(kit, chosen, known, seed):
    from engine.draws import torch_generator

    by_seed = []
    for number in range(chosen.plan.seeds):
        losses = []
        for picture in known:
            noise = torch.randn(
                picture.latents.shape, generator=torch_generator(seed, "validation", picture.name, number)
            )
            for sigma in (0.2, 0.7):
                level = torch.tensor([sigma])
                with torch.no_grad():
                    answer = kit.base.family.velocity(
                        kit.transformer,
                        noisy(picture.latents[None], noise[None], level),
                        level,
                        picture.text,
                        1.0,
                        False,
                    )
                losses.append(float((answer[0] - velocity_target(picture.latents, noise)).square().mean()))
        by_seed.append(sum(losses) / len(losses))
    return by_seed


def test_silence_is_the_base_and_leaves_no_trace(tmp_path, monkeypatch):
    from engine.trainer import Trainer

    seen = []
    finish_of = Trainer._finish

    def look(self, stopped):
        lora = self.kit.lora
        before = lora.weights.clone()
        with silenced(lora):
            seen.append(float(lora.weights.abs().max()))
        assert torch.equal(before, lora.weights)
        dense = {}
        for adapter in lora.adapters.values():
            update = adapter.scale * adapter.up.double() @ adapter.down.double()
            kind = adapter.target.kind
            dense[kind] = dense.get(kind, 0.0) + float(update.square().sum())
        sizes = dict(update_sizes(lora))
        assert sizes == pytest.approx({kind: math.sqrt(square) for kind, square in dense.items()}, rel=1e-9)
        return finish_of(self, stopped)

    monkeypatch.setattr(Trainer, "_finish", look)
    run = finish(Run(pocket_config(tmp_path)))
    assert run.exit_reason == "finished" and seen == [0.0]


def test_memory_that_does_not_suffice_costs_the_measurement_only(tmp_path, monkeypatch):
    from engine.training import gauge

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(gauge, "measure_loss", fail)
    run = finish(Run(pocket_config(tmp_path, validation=MEASURED)))
    assert run.exit_reason == "finished" and not told(run, Measured)
    assert sum("is left out, memory does not suffice" in event.text for event in told(run, Log)) == 4


def test_a_lora_that_does_nothing_is_said_early(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.training.measurer.EARLY", 4)
    small = {"optimizer": {"learning_rate": 1e-12}, "validation": {"every_epochs": 0}}
    run = finish(Run(pocket_config(tmp_path, **small)))
    assert [m.step for m in told(run, Measured)] == [4]
    assert any("After 4 steps the LoRA still changes nothing" in event.text for event in told(run, Log))
    usual = finish(Run(pocket_config(tmp_path, validation={"every_epochs": 0})))
    assert not any("changes nothing" in event.text for event in told(usual, Log))


def test_pictures_set_aside_are_not_trained_on(tmp_path):
    pictures(tmp_path / "data", 16)
    run = finish(
        Run(
            pocket_config(
                tmp_path, validation={"held_out": 3, "every_epochs": "auto", "budget": 50.0}, training={"epochs": 1}
            )
        )
    )
    said = next(event.text for event in told(run, Log) if "held out to measure on" in event.text)
    assert said.startswith("3 pictures") and len(told(run, StepDone)) == 7  # 13 pictures, two a step
    assert len(told(run, Measured)[0].held_out_pictures) == 3


def test_a_picture_removed_while_a_run_measures_on_it_ends_nothing(tmp_path, monkeypatch):
    from engine.trainer import Trainer

    own = pictures(tmp_path / "own", 3, "held_out")
    step_of = Trainer._step

    def removing(self, turn):
        step_of(self, turn)
        for picture in own.glob("*.png"):
            picture.unlink()

    monkeypatch.setattr(Trainer, "_step", removing)
    run = finish(Run(pocket_config(tmp_path, validation=MEASURED | {"folder": own})))
    assert run.exit_reason == "finished", told(run, RunFailed)
    assert [len(m.held_out_pictures) for m in told(run, Measured)] == [3, 3, 3, 3]

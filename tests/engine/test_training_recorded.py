"""A recorded micro-batch: replays see each batch's own values, gradients add up, and refusals say why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from pocket import finish, pocket_config, told
from torch import Tensor

from engine.blocks.graphs import StepGraphs
from engine.config import RunConfig
from engine.events import StepDone
from engine.models.family import TextEmbeds
from engine.models.modulation import Modulation
from engine.run import Run
from engine.trainer import Trainer
from engine.training.kit import Kit
from engine.training.objective import Inputs
from engine.training.recorded import Recorded, recorded
from engine.training.release import leave_gpu
from engine.training.stopwatch import Stopwatch


class Tape:
    """Records without running, as a GPU does; a replay runs the work again into the results' memory."""

    def run(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> tuple[Any, Any]:
        results = (torch.zeros(()),)
        return (work, results), results

    def replay(self, recording: Any) -> None:
        work, results = recording
        results[0].copy_(work()[0])

    def drop(self, recording: Any) -> None:
        raise AssertionError("nothing is dropped here")


WEIGHT = torch.ones(3, requires_grad=True)


def loss(inputs: Inputs) -> Tensor:
    """Reads every tensor of a micro-batch."""
    text = inputs.text
    value = (inputs.latents - inputs.noise).mean() * inputs.sigmas.sum() + text.pooled.mean() + text.states.mean()
    value = value + text.mask.float().mean() + inputs.weights.sum()
    if inputs.loss_mask is not None:
        value = value * inputs.loss_mask.mean()
    if inputs.modulation is not None:
        value = value + inputs.modulation.rows.mean() * inputs.modulation.vec.mean()
    return (WEIGHT * value).sum()


def batch(ahead: bool, masked: bool = False) -> Inputs:
    text = TextEmbeds(torch.randn(2, 3), torch.randn(2, 5, 4), torch.rand(2, 5) > 0.5)
    modulation = Modulation(torch.randn(2, 6, 4), torch.randn(2, 4)) if ahead else None
    sigmas, weights = torch.rand(2), torch.rand(2)
    mask = torch.rand(2, 1, 4, 4) if masked else None
    return Inputs(
        torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4), sigmas, text, weights, modulation, loss_mask=mask
    )


def parts(device: str = "cpu", processes: int = 1) -> Any:
    compute = SimpleNamespace(
        backward=lambda value: value.backward(), device=torch.device(device), processes=processes
    )
    return SimpleNamespace(loss=loss), compute


@pytest.mark.parametrize(("ahead", "masked"), [(True, True), (True, False), (False, True), (False, False)])
def test_replays_give_the_loss_and_gradients_of_their_own_batch(ahead: bool, masked: bool) -> None:
    objective, compute = parts()
    steps = Recorded(cast(Any, objective), cast(Any, compute), StepGraphs(Tape(), warm_ups=1))
    for _ in range(4):
        inputs = batch(ahead, masked)
        WEIGHT.grad = None
        (loss(inputs) / 2).backward()
        assert WEIGHT.grad is not None
        wanted = WEIGHT.grad.clone()
        WEIGHT.grad.zero_()
        found = steps.loss(inputs, share=2)
        assert torch.equal(found, loss(inputs).detach() / 2)
        assert torch.equal(WEIGHT.grad, wanted)
        steps.loss(inputs, share=2)
        assert torch.equal(WEIGHT.grad, 2 * wanted)
    assert steps.graphs.recorded == 1


def settings(**changes: Any) -> RunConfig:
    plain: dict[str, Any] = {"model": {"path": "model.safetensors"}, "dataset": {"folders": [{"path": "pictures"}]}}
    return RunConfig.model_construct(
        lora=SimpleNamespace(
            **{"dropout": 0.0, "rank_dropout": 0.0, "module_dropout": 0.0} | changes.get("lora", {})
        ),
        memory=SimpleNamespace(**{"cuda_graphs": "on", "blocks_to_swap": 0} | changes.get("memory", {})),
        training=SimpleNamespace(**{"gradient_checkpointing": "full"} | changes.get("training", {})),
        **plain,
    )


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lora": {"dropout": 0.1}}, "random masks"),
        ({"memory": {"blocks_to_swap": 3}}, "3 blocks stream"),
        ({"training": {"gradient_checkpointing": "offload"}}, "host memory"),
    ],
)
def test_refusals_reach_the_log(changes: Any, word: str) -> None:
    objective, compute = parts("cuda")
    steps, why = recorded(settings(**changes), cast(Any, objective), cast(Any, compute), Tape())
    assert steps is None
    assert word in why


def test_off_is_silent_and_on_records() -> None:
    objective, compute = parts("cuda")
    assert recorded(settings(memory={"cuda_graphs": "off"}), objective, compute, Tape()) == (None, "")
    steps, why = recorded(settings(), objective, compute, Tape())
    assert steps is not None
    assert why == ""


def kit_of(recorder: Any, **more: Any) -> Any:
    """What stands around a recorded step; the meter must be left alone."""
    return SimpleNamespace(recorded=recorder, meter=None, **more)


def test_a_recorded_step_is_a_part_of_its_own_and_not_metered() -> None:
    objective, compute = parts()
    kit = kit_of(Recorded(cast(Any, objective), cast(Any, compute), StepGraphs(Tape(), warm_ups=1)))
    watch = Stopwatch(torch.device("cpu"))
    Kit.learn(kit, batch(False), 1, watch)
    assert list(watch.seconds()) == ["recorded"]


def test_recordings_are_forgotten_before_anything_leaves_the_gpu() -> None:
    order: list[str] = []

    def tell(name: str) -> Callable[..., None]:
        return lambda *_: order.append(name)

    kit = kit_of(
        SimpleNamespace(forget=tell("forgotten")),
        transformer=SimpleNamespace(to=tell("moved")),
        lora=SimpleNamespace(move=tell("moved")),
        optimizer=SimpleNamespace(state={}),
        compute=SimpleNamespace(free_unused=tell("freed")),
    )
    leave_gpu(kit)
    assert order == ["forgotten", "moved", "moved", "freed"]


def test_what_moves_between_two_steps_is_told_of_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer._step

    def stepping(self: Trainer, turn: Any) -> None:
        self.kit.lean.traffic.moved(10**9)  # a sample's copies, say
        step(self, turn)

    monkeypatch.setattr(Trainer, "_step", stepping)
    run = finish(Run(pocket_config(tmp_path, training={"steps": 2})))
    steps = told(run, StepDone)
    assert len(steps) == 2
    assert all(done.moved_mb < 1000 for done in steps)

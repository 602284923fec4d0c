"""Values that are not finite, put into every part of a step: found before anything changes, named, and left out.

A quick part is in the gate; `make crash` goes through the first, a middle and the last step, first and last
micro-batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pocket import finish, merge, told
from reliability import figure
from safetensors.torch import load_file
from scarce_runs import make_place, small

from engine.config import RunConfig
from engine.events import RunFailed, StepBroken
from engine.models.family import TextEmbeds
from engine.run import Run
from engine.training.kit import Kit
from engine.training.objective import Inputs, Objective
from engine.training.optimizer_state import optimizer_tensors
from engine.training.step import Stepper

NAN, INF = float("nan"), float("inf")
INPUTS = ("latents", "text embeddings", "noise")
STEPS, MICROS = (1, 3, 6), (0, 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a smallest model and, once a run was here, caches."""
    return make_place(tmp_path_factory.mktemp("nan"))


@pytest.fixture(scope="module")
def results() -> dict[int, dict[str, torch.Tensor]]:
    """The adapter that each way to lose a step ends with, by the step; 0 is the undisturbed one."""
    return {}


def config_of(place: Path, **changes: Any) -> RunConfig:
    """Six steps of two micro-batches."""
    shape = {"training": {"epochs": 3, "batch_size": 1, "accumulation": 2}}
    return small(place, **merge(shape, changes))


def spoilt(inputs: Inputs, part: str, value: float) -> Inputs:
    """``inputs`` with one value of a part replaced."""
    held = inputs.text.states if part == "text embeddings" else getattr(inputs, part)
    broken = held.clone()
    broken.view(-1)[7] = value
    if part == "text embeddings":
        return replace(inputs, text=TextEmbeds(inputs.text.pooled, broken, inputs.text.mask))
    return replace(inputs, **{part: broken})


def spoil_inputs(monkeypatch: pytest.MonkeyPatch, part: str, step: int, micro: int, value: float) -> None:
    make = Objective.inputs

    def makes(self: Objective, batch: Any, at: int, number: int) -> Inputs:
        inputs = make(self, batch, at, number)
        return spoilt(inputs, part, value) if (at, number) == (step, micro) else inputs

    monkeypatch.setattr(Objective, "inputs", makes)


def spoil_learning(monkeypatch: pytest.MonkeyPatch, part: str, step: int, micro: int, value: float) -> None:
    """Break the loss, or one gradient, that a micro-batch gives."""
    learn, begun = Kit.learn, Stepper.step
    now = [0, 0]

    def begins(self: Stepper, turn: Any, look: Any = None) -> Any:
        now[:] = [turn.step, -1]
        return begun(self, turn, look)

    def learns(self: Kit, *rest: Any) -> Any:
        loss, each = learn(self, *rest)
        now[1] += 1
        if now == [step, micro]:
            if part == "loss":
                return loss * value, each
            self.lora.gradients[11] = value
        return loss, each

    monkeypatch.setattr(Stepper, "step", begins)
    monkeypatch.setattr(Kit, "learn", learns)


def spoil_state(monkeypatch: pytest.MonkeyPatch, part: str, step: int, value: float) -> None:
    """Break one weight, or one value of the optimizer, once, just before a step: as a flipped bit does."""
    begun, done = Stepper.step, []

    def begins(self: Stepper, turn: Any, look: Any = None) -> Any:
        if turn.step == step and not done:
            done.append(1)
            tensors = optimizer_tensors(self.kit.optimizer)[0].values()
            states = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.dim()]
            (self.kit.lora.weights if part == "weights" else states[0]).data.view(-1)[5] = value
        return begun(self, turn, look)

    monkeypatch.setattr(Stepper, "step", begins)


def compare_around(monkeypatch: pytest.MonkeyPatch, step: int) -> list[bool]:
    """Whether weights and optimizer had the same bytes after each attempt at ``step`` as before its update."""
    judge, same = Stepper.apply, []
    kept: list[list[bytes]] = []

    def snapshot(self: Stepper) -> list[bytes]:
        tensors = [self.kit.lora.weights, *optimizer_tensors(self.kit.optimizer)[0].values()]
        return [tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]

    def applies(self: Stepper, *rest: Any) -> Any:
        kept.append(snapshot(self))
        result = judge(self, *rest)
        if int(result[2]):
            same.append(snapshot(self) == kept[-1])
        return result

    monkeypatch.setattr(Stepper, "apply", applies)
    return same


def lora_of(run: Run) -> dict[str, torch.Tensor]:
    assert run.folder is not None and run.exit_reason == "finished", told(run, RunFailed)
    found = load_file(run.folder.root / f"{run.folder.name}.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found.values())
    return found


def same_bits(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def cases(kinds: tuple[str, ...]) -> Iterator[Any]:
    """Each kind once in the gate, all the others on demand."""
    for number, kind in enumerate(kinds):
        for step in STEPS:
            for micro in MICROS:
                quick = (step, micro) == (STEPS[number % 3], MICROS[number % 2])
                yield pytest.param(kind, step, micro, marks=() if quick else pytest.mark.crash)


@pytest.mark.parametrize(("part", "step", "micro"), cases((*INPUTS, "loss", "gradient")))
def test_a_broken_batch_is_named_and_left_out(place, monkeypatch, results, part, step, micro):
    value = INF if part == "gradient" else NAN
    (spoil_inputs if part in INPUTS else spoil_learning)(monkeypatch, part, step, micro, value)
    same = compare_around(monkeypatch, step)
    run = finish(Run(config_of(place)))
    assert [(event.step, event.action) for event in told(run, StepBroken)] == [(step, "again"), (step, "skipped")]
    assert same == [True, True]
    first, second = (json.loads(line) for line in run.folder.faults.read_text().splitlines())
    named = [micro["broken"] for micro in second["micro_batches"]]
    if part in INPUTS:
        picture = Path(first["micro_batches"][micro]["pictures"][0]).name
        assert f"{part} of {picture}" in first["cause"] and named[micro] == [f"{part} of {picture}"]
        assert named[1 - micro] == []
    elif part == "loss":
        assert named == [[], []] and [isinstance(m["loss"], str) for m in second["micro_batches"]][micro]
    else:
        assert [m["gradient"] for m in second["micro_batches"]] == [micro > 0, False]
        assert "backward pass overflows" in second["cause"]
    # Whatever broke it: without this step, the run ends with the same bits.
    assert same_bits(results.setdefault(step, lora_of(run)), lora_of(run))
    figure("nan", f"{part}, step {step}, micro-batch {micro}", "found before any change, named, left out")


@pytest.mark.parametrize(("part", "step", "micro"), cases(("weights", "optimizer state")))
def test_broken_weights_go_back_to_the_last_sound_state(place, monkeypatch, results, part, step, micro):
    if micro or (part == "optimizer state" and step == 1):
        pytest.skip("nothing of it there yet" if not micro else "before the step, not in it")
    config = config_of(place, training={"state_every_steps": 1})
    wanted = results.setdefault(0, lora_of(finish(Run(config))))
    spoil_state(monkeypatch, part, step, NAN)
    same = compare_around(monkeypatch, step)
    run = finish(Run(config))
    assert same == [True]
    if step == 1:
        assert "no sound state was saved yet" in told(run, RunFailed)[0].detail
        assert run.folder is not None and not list(run.folder.root.glob("*.safetensors"))
    else:
        [event] = told(run, StepBroken)
        assert (event.step, event.action, event.back_to) == (step, "restored", step - 1)
        assert part in event.text and same_bits(lora_of(run), wanted)
    figure("nan", f"{part}, before step {step}", "found before any change, last sound state taken up")


def test_weights_that_break_twice_end_the_run(place, monkeypatch):
    breaks: Callable[[Any, Any, Any], Any] = Stepper.step

    def begins(self: Stepper, turn: Any, look: Any = None) -> Any:
        if turn.step == 3:
            self.kit.lora.weights.data[0] = NAN
        return breaks(self, turn, look)

    monkeypatch.setattr(Stepper, "step", begins)
    run = finish(Run(config_of(place, training={"state_every_steps": 1})))
    [failure] = told(run, RunFailed)
    assert failure.title == "The weights are no longer numbers" and "second time" in failure.detail
    assert [event.action for event in told(run, StepBroken)] == ["restored"]
    assert run.folder is not None and not list(run.folder.root.glob("*.safetensors"))


def test_weights_that_break_after_the_last_step_are_never_written(place, monkeypatch):
    """Nothing computes with them any more: the writer itself looks."""
    begun = Stepper.step

    def begins(self: Stepper, turn: Any, look: Any = None) -> Any:
        done = begun(self, turn, look)
        if turn.step == 6 and not seen:
            seen.append(1)
            self.kit.lora.weights.data[0] = NAN
        return done

    seen: list[int] = []
    monkeypatch.setattr(Stepper, "step", begins)
    run = finish(Run(config_of(place, training={"state_every_steps": 2})))
    assert [(e.action, e.back_to) for e in told(run, StepBroken)] == [("restored", 4)] and lora_of(run)

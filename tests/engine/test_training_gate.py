"""A step whose loss or gradients are not finite changes nothing, decided without a look from the host."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.batches import Turn
from engine.config import LoraConfig, OptimizerConfig
from engine.errors import RunError
from engine.events import EventLog, StepDone
from engine.lora.adapter import LoraSet, make_adapters
from engine.lora.targets import Target
from engine.training.gate import AHEAD, Gate
from engine.training.ledger import Ledger, Told
from engine.training.optimizer import build_optimizer, clip_gradients
from engine.training.optimizer_state import optimizer_state
from engine.training.stopwatch import Stopwatch

NAMES = get_args(OptimizerConfig.model_fields["name"].annotation)
CPU = torch.device("cpu")
TARGETS = [Target("a", "single", 600, 300, 8, 8.0), Target("b", "double", 90, 20, 4, 4.0)]


class Course:
    """An adapter, its optimizer and a gate that decides on the device, fed with gradients drawn by step."""

    def __init__(self, name: str, late: bool = True, **settings: Any) -> None:
        rate = 1.0 if name == "prodigy" else 1e-3
        config = OptimizerConfig.model_validate(
            {"name": name, "learning_rate": rate, "weight_decay": 0.1, **settings}
        )
        self.lora: LoraSet = make_adapters(TARGETS, LoraConfig(), 1, CPU)
        self.optimizer = build_optimizer(self.lora, config)
        self.gate = Gate(self.optimizer, late)

    def step(self, number: int, loss: float = 1.0, broken: float | None = None) -> Tensor:
        """One step; ``broken`` is put into a single gradient."""
        generator = torch.Generator().manual_seed(number)
        for matrix in self.lora.parameters():
            assert matrix.grad is not None
            matrix.grad.copy_(torch.randn(matrix.shape, generator=generator))
        if broken is not None:
            self.lora.gradients[7] = broken
        held = self.gate.step(torch.tensor(loss), clip_gradients(self.lora.gradients, 1.0))
        self.lora.clip_norms(0.4, self.gate.flag)
        self.lora.zero_grad()
        return held

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Copies of all tensors, and the plain values."""
        tensors, plain = optimizer_state(self.optimizer)
        return tensors | self.lora.state(), plain


def _same(one: tuple[dict[str, Tensor], Any], two: tuple[dict[str, Tensor], Any]) -> bool:
    return (
        one[1] == two[1]
        and one[0].keys() == two[0].keys()
        and all(torch.equal(tensor, two[0][name]) for name, tensor in one[0].items())
    )


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_broken_steps_and_those_launched_after_them_leave_no_trace(name: str, ratio: float) -> None:
    if name == "prodigy" and ratio != 1.0:
        pytest.skip("refused")
    course, undisturbed = Course(name, lora_plus_ratio=ratio), Course(name, lora_plus_ratio=ratio)
    for number in range(3):
        course.step(number)
        undisturbed.step(number)
    assert _same(course.state(), undisturbed.state())
    assert [course.step(9, broken=NAN).item(), course.step(10).item(), course.step(11).item()] == [1, 2, 3]
    assert course.gate.rewind() == 3
    assert _same(course.state(), undisturbed.state())
    for number in range(3, 5):
        assert course.step(number).item() == 0
        undisturbed.step(number)
    assert _same(course.state(), undisturbed.state())


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_first_step_leaves_no_trace(name: str) -> None:
    course, fresh = Course(name), Course(name)
    course.step(0, broken=INF)
    assert course.gate.rewind() == 1
    assert _same(course.state(), fresh.state())
    course.step(0)
    fresh.step(0)
    assert _same(course.state(), fresh.state())


@pytest.mark.parametrize(("loss", "broken"), [(NAN, None), (INF, None), (-INF, None), (1.0, INF), (1.0, NAN)])
@pytest.mark.parametrize("late", [True, False])
def test_whatever_is_not_finite_holds_the_step_back(loss: float, broken: float | None, late: bool) -> None:
    course = Course("adamw", late)
    course.step(0)
    before = course.lora.state()
    assert course.step(1, loss, broken).item() == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in course.lora.state().items())
    assert course.gate.rewind() == 1 and course.gate.rewind() == 0


def test_large_but_finite_numbers_count() -> None:
    course = Course("adamw")
    assert course.step(0, loss=3e38).item() == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_gate_changes_no_bit_of_a_sound_step(name: str) -> None:
    gated, plain = Course(name), Course(name, late=False)
    for number in range(4):
        gated.step(number)
        plain.step(number)
    assert _same(gated.state(), plain.state())


def test_who_has_to_wait_says_why() -> None:
    assert Gate(Course("adamw").optimizer, late=True).reason == ""
    assert Gate(Course("prodigy").optimizer, late=True).reason == ""
    assert "pages" in Course("paged_adamw8bit").gate.reason
    assert Course("paged_adamw8bit", late=False).gate.reason == ""


class _Operations(TorchDispatchMode):
    """Counts operations that launch something on a GPU, by name."""

    FREE = frozenset(
        [
            "view",
            "as_strided",
            "slice",
            "unbind",
            "detach",
            "transpose",
            "expand",
            "unsqueeze",
            "select",
            "alias",
            "empty",
            "empty_like",
            "new_empty",
            "empty_strided",
            "lift_fresh",
            "_record_function_enter_new",
            "_record_function_exit",
        ]
    )

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in self.FREE:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("adamw", 26),
        ("adamw8bit", 44),
        ("lion", 36),
        ("lion8bit", 34),
        ("adafactor", 114),
        ("adamw_schedulefree", 48),
    ],
)
def test_a_step_is_few_operations_and_never_looks_from_the_host(name: str, most: int) -> None:
    """However many matrices there are: 100 here, of two kinds; one piece of flat storage a region."""
    config = OptimizerConfig.model_validate({"name": name, "learning_rate": 1.0 if name == "prodigy" else 1e-3})
    targets = [Target(f"{n}", "single", *((64, 32) if n % 2 else (32, 64)), 4, 4.0) for n in range(50)]
    lora = make_adapters(targets, LoraConfig(), 1, CPU)
    gate, loss = Gate(build_optimizer(lora, config), late=True), torch.tensor(1.0)
    lora.adapters["0"].compute(torch.bfloat16)
    counts = []
    for number in range(3):
        lora.gradients.fill_(1e-3)
        with _Operations() as seen:
            gate.step(loss, clip_gradients(lora.gradients, 1.0))
            lora.refresh()
            lora.zero_grad()
        # Prodigy looks once which weights begin at zero.
        assert "_local_scalar_dense" not in seen.names or (name == "prodigy" and number == 0)
        counts.append(len(seen.names))
    assert counts[1] == counts[2] <= most, seen.names


class Late(Stopwatch):
    """A stopwatch whose device is behind until it is waited for."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.mark("optimizer")
        self.waited = False

    def ready(self) -> bool:
        return self.waited

    def wait(self) -> None:
        self.waited = True


def _ledger() -> tuple[Ledger, EventLog]:
    events = EventLog()
    return Ledger(events), events


def _told(step: int, watch: Stopwatch, numbers: tuple[float, float, float], undo: Any = int) -> Told:
    turn = Turn(step=step, epoch=1, index=step - 1)
    return Told(turn, "a.png", torch.tensor(numbers), watch, 1e-3, late=True, undo=undo)


def test_numbers_are_told_when_they_are_there_and_two_steps_late_at_most() -> None:
    ledger, events = _ledger()
    watches = [Late() for _ in range(5)]

    def told() -> list[int]:
        return [entry.event.step for entry in events.since(0) if isinstance(entry.event, StepDone)]

    for step in (1, 2):
        ledger.add(_told(step, watches[step - 1], (0.5, 1.0, 0.0)))
    assert told() == [] and AHEAD == 2 and ledger.place.step == 2 and ledger.place.loss_sum == 0.0
    ledger.add(_told(3, watches[2], (0.5, 1.0, 0.0)))
    assert told() == [1] and [watch.waited for watch in watches] == [True, False, False, False, False]
    watches[1].waited = True
    watches[3].waited = True
    ledger.add(_told(4, watches[3], (0.25, 1.0, 0.0)))
    assert told() == [1, 2]  # the third is not there yet, and no step is told before an earlier one
    assert ledger.snapshot().loss_sum == 1.75 and told() == [1, 2, 3, 4]


def test_a_recorded_step_counts_as_the_models_time() -> None:
    ledger, events = _ledger()
    watch = Late()
    watch.seconds = lambda: {"data": 0.5, "recorded": 2.0, "optimizer": 0.25}  # type: ignore[method-assign]
    ledger.add(_told(1, watch, (0.5, 1.0, 0.0)))
    ledger.flush()
    (step,) = [entry.event for entry in events.since(0) if isinstance(entry.event, StepDone)]
    assert (step.model_s, step.forward_s, step.backward_s, step.step_s) == (2.0, 0.0, 0.0, 2.75)


def test_a_broken_step_read_late_stops_before_anything_is_saved() -> None:
    ledger, _ = _ledger()
    undone: list[int] = []
    ledger.add(_told(1, Late(), (0.5, 1.0, 0.0)))
    ledger.add(_told(2, Late(), (NAN, NAN, 1.0), lambda: undone.append(2)))
    ledger.add(_told(3, Late(), (0.5, 1.0, 2.0), lambda: undone.append(3)))
    with pytest.raises(RunError, match="no longer a number") as caught:
        ledger.snapshot()
    assert "step 2" in caught.value.detail and undone == [2]
    assert ledger.place.step == 1 and ledger.place.loss_sum == 0.5
    assert ledger.snapshot().step == 1

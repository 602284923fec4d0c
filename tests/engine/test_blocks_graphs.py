"""Recorded steps: what is warmed up, recorded, replayed and dropped, by a device that writes everything down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.blocks.graphs import StepGraphs, refusal

CUDA = torch.device("cuda", 0)


class Recorder:
    """Replays by running the work again into the results' memory, as a graph does."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.log: list[str] = []
        self.fail = fail

    def run(self, work: Callable[[], Any]) -> Any:
        self.log.append("run")
        return work()

    def record(self, work: Callable[[], Any]) -> tuple[Any, Any]:
        self.log.append("record")
        if self.fail is not None:
            raise self.fail
        results = tuple(torch.empty_like(tensor) for tensor in work())
        return (work, results), results

    def replay(self, recording: Any) -> None:
        self.log.append("replay")
        work, results = recording
        for result, tensor in zip(results, work(), strict=True):
            result.copy_(tensor)

    def drop(self, recording: Any) -> None:
        self.log.append("drop")


def double(x: Tensor) -> tuple[Tensor, ...]:
    return (x * 2,)


def values(*shape: int) -> Tensor:
    return torch.randn(*shape)


def test_the_first_runs_are_eager_then_one_is_recorded_and_replayed() -> None:
    device = Recorder()
    graphs = StepGraphs(device)
    for _ in range(6):
        x = values(2, 3)
        assert torch.equal(graphs.run("step", double, (x,))[0], x * 2)
    assert device.log == ["run"] * 3 + ["record"] + ["replay"] * 3
    assert graphs.recorded == 1


def test_replays_read_fixed_inputs_and_write_fixed_results() -> None:
    graphs = StepGraphs(Recorder(), warm_ups=0)
    seen: list[int] = []

    def work(x: Tensor) -> tuple[Tensor, ...]:
        seen.append(x.data_ptr())
        return (x + 1,)

    results = [graphs.run("step", work, (values(4),))[0] for _ in range(3)]
    assert len(set(seen)) == 1
    assert len({result.data_ptr() for result in results}) == 1


def test_each_shape_dtype_and_key_has_its_own() -> None:
    device = Recorder()
    graphs = StepGraphs(device, warm_ups=0)
    for key, x in (("a", values(2)), ("a", values(3)), ("b", values(2)), ("a", values(2).double()), ("a", values(2))):
        graphs.run(key, double, (x,))
    assert device.log.count("record") == 4
    assert graphs.recorded == 4


def test_the_one_unused_for_longest_goes_first() -> None:
    device = Recorder()
    graphs = StepGraphs(device, most=2, warm_ups=0)
    for size in (1, 2, 1, 3):
        graphs.run("step", double, (values(size),))
    assert device.log.count("drop") == 1
    device.log.clear()
    graphs.run("step", double, (values(1),))
    assert device.log == ["replay"]
    graphs.run("step", double, (values(2),))
    assert device.log == ["replay", "drop", "record", "replay"]


@pytest.mark.parametrize(
    ("fail", "word"),
    [(RuntimeError("operation not permitted when stream is capturing\nmore"), "not permitted"),
     (torch.OutOfMemoryError("tried to allocate"), "no memory")],
)  # fmt: skip
def test_what_cannot_be_recorded_goes_on_eagerly_and_says_why(fail: Exception, word: str) -> None:
    device = Recorder(fail)
    graphs = StepGraphs(device, warm_ups=1)
    for _ in range(4):
        x = values(2)
        assert torch.equal(graphs.run("step", double, (x,))[0], x * 2)
    assert device.log == ["run", "record", "run", "run", "run"]  # one try
    assert word in graphs.reason
    assert "\n" not in graphs.reason


def test_an_error_of_the_step_itself_is_not_swallowed() -> None:
    def wrong(x: Tensor) -> tuple[Tensor, ...]:
        raise ValueError("shape")

    with pytest.raises(ValueError, match="shape"):
        StepGraphs(Recorder()).run("step", wrong, (values(1),))


def test_forgetting_starts_over() -> None:
    device = Recorder()
    graphs = StepGraphs(device, warm_ups=1)
    for _ in range(3):
        graphs.run("step", double, (values(2),))
    graphs.forget()
    assert graphs.recorded == 0
    device.log.clear()
    graphs.run("step", double, (values(2),))
    graphs.run("step", double, (values(2),))
    assert device.log == ["run", "record", "replay"]


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (refusal("off", CUDA), "off"),
        (refusal("on", torch.device("cpu")), "cpu"),
        (refusal("on", CUDA, streamed=12), "12 blocks stream"),
        (refusal("auto", CUDA, offload=True), "host memory"),
        (refusal("on", CUDA, dropout=True), "random masks"),
        (refusal("auto", CUDA, processes=2), "2 processes"),
    ],
)
def test_a_step_that_cannot_be_recorded_is_refused_in_words(found: str, word: str) -> None:
    assert word in found


def test_a_plain_resident_step_may_be_recorded() -> None:
    assert refusal("on", CUDA) == refusal("auto", CUDA) == ""

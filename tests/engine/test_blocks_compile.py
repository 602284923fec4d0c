"""Compiled blocks: the eager numbers, few graphs for many buckets, code that is kept, a way out of every failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flux_steps import error, make_step, worst
from torch import Tensor

from engine.blocks.compile import CompiledBlocks, wanted
from engine.blocks.setup import BlockFunctions, BlockSetup
from engine.blocks.transformer import EAGER_FUNCTIONS, LeanFlux
from engine.files import keep_code_in

ROOT = Path(__file__).resolve().parents[2]
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
SETUP: Any = BlockSetup(heads=1, text=2, attention=None, pieces=None, keep="full")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def toy(x: Tensor, setup: BlockSetup) -> Tensor:
    """Stands for a block's function where only the way around it matters."""
    return (x[:, setup.text :] * 2 + 1).sin()


TOYS = BlockFunctions(toy, toy, toy, toy)


class Backend:
    """Hands a graph back as it is and counts, or fails."""

    def __init__(self, fail: Exception | None = None, run: Callable[..., Any] | None = None) -> None:
        self.graphs = 0
        self.fail = fail
        self.run = run

    def __call__(self, module: Any, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1
        if self.fail is not None:
            raise self.fail
        return self.run or module.forward


@pytest.mark.parametrize(
    ("setting", "device", "pieces", "compiles", "word"),
    [
        ("on", CPU, "eager", True, ""),
        ("auto", CPU, "eager", False, ""),
        ("auto", CUDA, "eager", True, ""),
        ("auto", CUDA, "triton", False, "own fused kernels"),
        ("on", CUDA, "triton", True, ""),
        ("off", CUDA, "eager", False, ""),
    ],
)
def test_when_blocks_are_compiled(setting: str, device: torch.device, pieces: str, compiles: bool, word: str) -> None:
    assert wanted(setting, device, pieces)[0] is compiles
    assert word in wanted(setting, device, pieces)[1]


def test_code_is_kept_where_the_run_says_unless_the_environment_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr("engine.files._CHOSEN", frozenset({"TRITON_CACHE_DIR"}))
    try:
        keep_code_in(tmp_path)
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "inductor")
        assert os.environ["TRITON_CACHE_DIR"] == "/elsewhere"
    finally:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)


def test_one_graph_serves_all_token_counts_and_batches_above_one() -> None:
    backend = Backend()
    blocks = CompiledBlocks(TOYS, backend)
    for batch, tokens in ((1, 7), (1, 9), (1, 12), (2, 7), (4, 5)):
        x = torch.randn(batch, tokens, 6)
        assert torch.equal(blocks.functions.single_forward(x, SETUP), toy(x, SETUP))
    assert backend.graphs == 2  # one sample, and more
    assert blocks.reason == ""


def test_limits_hold_in_every_thread() -> None:
    """The backward compiles in autograd's thread of the device, where torch's settings are those of a new thread."""
    from torch.fx.experimental import _config as shapes

    def by_kind(x: Tensor, setup: BlockSetup) -> Tensor:
        return x + len(setup.keep)

    backend = Backend()
    blocks = CompiledBlocks(BlockFunctions(toy, by_kind, toy, toy), backend)

    def call(name: Any) -> bool:
        blocks.functions.single_backward(torch.randn(1, 4, 6), replace(SETUP, keep=name))
        return bool(shapes.use_duck_shape)

    with ThreadPoolExecutor(1) as thread:
        for number in range(12):  # more than the eight graphs that torch allows by default
            assert not thread.submit(call, f"kind {number}").result()
    assert blocks.reason == ""
    assert backend.graphs == 12


def test_a_block_that_cannot_be_compiled_runs_eagerly_and_says_why_once() -> None:
    backend = Backend(fail=RuntimeError("no compiler found\nat all"))
    blocks = CompiledBlocks(TOYS, backend)
    x = torch.randn(1, 4, 6)
    assert blocks.take_reason() == ""
    for _ in range(3):
        assert torch.equal(blocks.functions.single_forward(x, SETUP), toy(x, SETUP))
        assert torch.equal(blocks.functions.double_backward(x, SETUP), toy(x, SETUP))
    assert backend.graphs == 1  # nobody tries again
    assert "compiling single_forward failed" in blocks.reason
    assert "no compiler found" in blocks.reason
    assert "\n" not in blocks.reason
    assert blocks.take_reason() == blocks.reason
    assert blocks.take_reason() == ""


def test_what_cannot_be_traced_runs_eagerly() -> None:
    def undecided(x: Tensor, setup: BlockSetup) -> Tensor:
        return x if x.sum() > 0 else -x

    blocks = CompiledBlocks(BlockFunctions(undecided, toy, toy, toy), Backend())
    x = torch.randn(1, 4, 6)
    assert torch.equal(blocks.functions.single_forward(x, SETUP), undecided(x, SETUP))
    assert "single_forward" in blocks.reason


def test_code_that_fails_when_first_run_is_left() -> None:
    def run(*_: Any) -> Any:
        raise RuntimeError("CUDA driver version is insufficient")

    blocks = CompiledBlocks(TOYS, Backend(run=run))
    x = torch.randn(1, 4, 6)
    assert torch.equal(blocks.functions.single_forward(x, SETUP), toy(x, SETUP))
    assert "insufficient" in blocks.reason


def test_an_error_of_proven_code_is_the_steps_own() -> None:
    fail = False

    def run(*arguments: Tensor) -> Any:
        if fail:
            raise RuntimeError("device lost")
        return [toy(next(a for a in arguments if isinstance(a, Tensor) and a.ndim == 3), SETUP)]

    blocks = CompiledBlocks(TOYS, Backend(run=run))
    x = torch.randn(1, 4, 6)
    blocks.functions.single_forward(x, SETUP)
    fail = True
    with pytest.raises(RuntimeError, match="device lost"):
        blocks.functions.single_forward(x, SETUP)
    assert blocks.reason == ""


def test_running_out_of_memory_is_not_a_failed_compile() -> None:
    def run(*_: Any) -> Any:
        raise torch.OutOfMemoryError("tried to allocate 2 GB")

    blocks = CompiledBlocks(TOYS, Backend(run=run))
    with pytest.raises(torch.OutOfMemoryError):
        blocks.functions.single_forward(torch.randn(1, 4, 6), SETUP)
    assert blocks.reason == ""


BUCKETS = ((1, (8, 6)), (1, (8, 8)), (1, (4, 12)), (2, (8, 6)), (3, (6, 6)))
"""Batch and size of five buckets."""


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["full", "none"])
def test_ten_graphs_serve_every_block_of_five_buckets(checkpointing: Any) -> None:
    backend = Backend()
    blocks = CompiledBlocks(EAGER_FUNCTIONS, backend)
    for batch, size in BUCKETS:
        step = make_step(batch=batch, size=size)
        lean = LeanFlux.from_plain(step.model, step.lora, checkpointing=checkpointing)
        out, grads = step.run(lean)
        lean.functions = blocks.functions
        compiled_out, compiled_grads = step.run(lean)
        assert blocks.reason == ""
        assert error(compiled_out, out) < 1e-5
        assert worst(compiled_grads, grads) < 1e-5
    # Forward and backward of both kinds, the backward of the first block whose input wants no gradient; one sample
    # and more.
    assert backend.graphs == 10


CHILD = """
import json, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from engine.blocks.compile import CompiledBlocks
from engine.files import keep_code_in
keep_code_in(Path({cache!r}))
from flux_steps import SMALL, error, make_step, worst
from dataclasses import replace
from engine.blocks.transformer import LeanFlux
from torch._dynamo.utils import counters
step = make_step(params=replace(SMALL, depth=1, depth_single_blocks=1))
lean = LeanFlux.from_plain(step.model, step.lora)
out, grads = step.run(lean)
blocks = CompiledBlocks(lean.functions)
lean.functions = blocks.functions
found = step.run(lean)
print(json.dumps({{
    "out": error(found[0], out), "grads": worst(found[1], grads), "reason": blocks.reason,
    "graphs": counters["stats"]["unique_graphs"], "read": counters["inductor"]["fxgraph_cache_hit"],
    "missed": counters["inductor"]["possibly_missed_reinplacing_bytes"],
}}))
"""


def compiled_run(cache: Path) -> dict[str, Any]:
    """A tiny model's step through code that Inductor makes with the C++ compiler, in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        env.pop(name, None)
    code = CHILD.format(tests=str(Path(__file__).parent), cache=str(cache))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_inductors_code_gives_the_eager_numbers_and_the_next_start_reads_it(tmp_path: Path) -> None:
    first = compiled_run(tmp_path)
    assert first["reason"] == ""
    assert first["out"] < 1e-5
    assert first["grads"] < 1e-5
    assert first["graphs"] == 4
    assert first["read"] == 0
    second = compiled_run(tmp_path)
    assert second["read"] == 4
    assert (second["out"], second["grads"]) == (first["out"], first["grads"])

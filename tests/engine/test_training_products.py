"""Runs over packed bases: what runs in 8 bit is measured once and kept, and such runs resume to the bit."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import pytest
import torch
from model_files import tiny_flux
from safetensors.torch import load_file
from test_run import finish, pocket_config, told

import engine.training.lean
import engine.training.patience as patience
import engine.training.products as products
from engine.errors import DiskError
from engine.events import EventLog, Log, StateChanged, StepDone
from engine.files import disk_error
from engine.memory.calibration import decisions, packed_linears
from engine.memory.frozen import DoubleWeights, Resident, SingleWeights
from engine.memory.load import load_base
from engine.memory.products8 import Choice
from engine.run import Run
from engine.training.prepare import Stopped


def run_of(tmp_path, name, steps, memory, **options):
    training = {"epochs": 0, "steps": steps, "gradient_checkpointing": options.pop("kept", "full")}
    config = pocket_config(tmp_path / name, training=training)
    config = config.model_copy(
        update={"memory": config.memory.model_copy(update=memory), "cache_dir": tmp_path / "cache"}
    )
    return finish(Run(config, **options))


def weights(run):
    return load_file(max(run.folder.root.glob("*.safetensors")))


def test_what_runs_in_8_bit_is_decided_once(tmp_path):
    memory = {"precision": "int8", "compute": "8bit"}
    run = run_of(tmp_path, "a", 2, memory)
    assert run.exit_reason == "finished", told(run, Log)
    table = json.loads(run.folder.products.read_bytes())
    assert table["kind"] == "int8" and any(any(pair) for pair in table["linears"].values())
    assert any("products of blocks run in 8 bit" in event.text for event in told(run, Log))
    again = run_of(tmp_path, "b", 2, memory)
    assert json.loads(again.folder.products.read_bytes()) == table
    for name, value in weights(run).items():
        assert value.equal(weights(again)[name])


@pytest.mark.parametrize("precision", ["int8", pytest.param("fp8", marks=pytest.mark.slow)])
def test_streamed_blocks_multiply_in_8_bit_as_resident_ones(tmp_path, precision):
    runs = {}
    for swap in (0, 3, "all"):
        memory = {"precision": precision, "compute": "8bit", "blocks_to_swap": 6 if swap == "all" else swap}
        run = runs[swap] = run_of(tmp_path, f"{precision}{swap}", 2, memory)
        assert run.exit_reason == "finished", told(run, Log)
    losses = {swap: [event.loss for event in told(run, StepDone)] for swap, run in runs.items()}
    assert losses[0] == losses[3] == losses["all"]
    assert len({run.folder.products.read_text() for run in runs.values()}) == 1


def test_the_first_batch_is_measured_as_written_not_compiled(tmp_path, monkeypatch):
    """Compiled code would be made with the measuring built in."""
    watched, calls = [], []

    class Compiled:
        def __init__(self, functions):
            self.functions = type(functions)(**{name: self.noted(run) for name, run in vars(functions).items()})

        def noted(self, run):
            def noting(*arguments):
                blocks = [item for item in arguments if isinstance(item, SingleWeights | DoubleWeights)]
                calls.append(len(blocks))
                watched.extend(linear for linear in packed_linears(blocks).values() if linear.products.watch)
                return run(*arguments)

            return noting

        def take_reason(self):
            return ""

    monkeypatch.setattr(engine.training.lean, "CompiledBlocks", Compiled)
    run = run_of(tmp_path, "a", 1, {"precision": "int8", "compute": "8bit", "compile": "on"})
    assert run.exit_reason == "finished" and any(calls)
    assert run.folder.products.is_file() and not watched


def test_a_full_disk_holds_the_run_until_what_was_measured_can_be_written(tmp_path, monkeypatch):
    memory = {"precision": "int8", "compute": "8bit"}
    wanted = run_of(tmp_path, "a", 2, memory)
    write, refused = products.write_products, []

    def writing(path, *rest):
        if len(refused) < 2:
            refused.append(path)
            raise disk_error(OSError(errno.ENOSPC, "No space left on device"), path)
        write(path, *rest)

    monkeypatch.setattr(products, "write_products", writing)
    monkeypatch.setattr(patience, "RETRY_S", 0.02)
    run = run_of(tmp_path, "b", 2, memory)
    assert run.exit_reason == "finished" and len(refused) == 2
    states = [event.state for event in told(run, StateChanged)]
    assert states[states.index("paused") :][:2] == ["paused", "loading"] and states.count("paused") == 1
    assert run.folder.products.read_bytes() == wanted.folder.products.read_bytes()
    assert [event.loss for event in told(run, StepDone)] == [event.loss for event in told(wanted, StepDone)]
    assert all(value.equal(weights(wanted)[name]) for name, value in weights(run).items())


def test_measuring_again_is_said_when_a_run_goes_on(tmp_path):
    memory = {"precision": "int8", "compute": "8bit"}
    run = run_of(tmp_path, "a", 1, memory)
    assert not any(event.level == "warning" for event in told(run, Log))
    run.folder.products.unlink()
    longer = run.config.model_copy(update={"training": run.config.training.model_copy(update={"steps": 2})})
    again = finish(Run(longer, resume_from=run.folder.root))
    assert again.exit_reason == "finished" and run.folder.products.is_file()
    assert any(event.level == "warning" and "measured again" in event.text for event in told(again, Log))


@pytest.fixture
def kit(tmp_path):
    """One of several processes, as far as products go."""
    path = tiny_flux(tmp_path / "m.safetensors")
    base = load_base(path, device="cpu", dtype=torch.float32, precision="int8", choice=Choice("int8"))
    source = Resident(base.blocks)
    source.plan = SimpleNamespace(blocks=len(base.blocks))  # type: ignore[attr-defined]
    sent = []
    compute = SimpleNamespace(is_main=True, from_main=lambda value: sent.append(value) or value)
    lean = SimpleNamespace(products=Choice("int8"), source=source, transformer=SimpleNamespace(functions="compiled"))
    return SimpleNamespace(
        lean=lean, transformer=lean.transformer, compute=compute, sent=sent, linears=packed_linears(base.blocks),
        lora=SimpleNamespace(zero_grad=lambda: None),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("there", ""),
        ("other", "is about fp8 products, these are int8"),
        ("partial", "1 of 22 linears are not in it, 0.img.qkv"),
        ("no truth", "is damaged"),
        ("cut", "is damaged"),
    ],
)
def test_a_table_counts_whole_or_not_at_all(tmp_path, monkeypatch, kit, what, words):
    path, events, batches = tmp_path / "products.json", EventLog(), []
    monkeypatch.setattr(products, "_first_batch", batches.append)
    kept = {name: [True, True] for name in kit.linears} | {
        "0.img.qkv": [False, "no" if what == "no truth" else False]
    }
    if what == "partial":
        del kept["0.img.qkv"]
    table = json.dumps({"kind": "fp8" if what == "other" else "int8", "linears": kept})
    path.write_text(table[:90] if what == "cut" else table)
    products.settle_products(kit, path, events, resumed=True)
    warnings = [entry.event.text for entry in events.since(0) if entry.event.level == "warning"]
    assert len(batches) == len(warnings) == (what != "there")
    assert all(words in text for text in warnings)
    if what == "there":
        assert not kit.linears["0.img.qkv"].products.forward and kit.linears["0.img.mlp_out"].products.forward
    assert products.read_products(path, "int8", kit.linears) == (decisions(kit.linears), "")


def test_the_main_process_alone_reads_and_measures(tmp_path, monkeypatch, kit):
    path, events = tmp_path / "products.json", EventLog()
    batches = []
    monkeypatch.setattr(products, "_first_batch", batches.append)
    products.settle_products(kit, path, events, resumed=False)
    products.settle_products(kit, path, events, resumed=True)
    mine = decisions(kit.linears)
    assert batches == [kit] and kit.sent == [mine, mine]
    # Another one: whatever lies there, as on a disk of its own, it takes what the main one sends.
    kit.compute.is_main = False
    path.write_text("{")
    theirs = {name: (not forward, not back) for name, (forward, back) in mine.items()}
    kit.compute.from_main = lambda value: kit.sent.append(value) or theirs
    products.settle_products(kit, path, events, resumed=True)
    assert decisions(kit.linears) == theirs
    assert batches == [kit] and kit.sent[2:] == [None] and path.read_text() == "{"
    assert not any(entry.event.level == "warning" for entry in events.since(0))


def test_what_fails_in_the_main_process_ends_the_others_too(tmp_path, monkeypatch, kit):
    monkeypatch.setattr(products, "_first_batch", lambda kit: None)
    with pytest.raises(DiskError):
        products.settle_products(kit, tmp_path / "m.safetensors" / "products.json", EventLog(), resumed=False)
    assert kit.sent == [None] and kit.transformer.functions == "compiled"
    kit.compute.is_main = False
    with pytest.raises(Stopped):
        products.settle_products(kit, tmp_path / "products.json", EventLog(), resumed=False)
    assert kit.sent == [None, None]


@pytest.mark.parametrize(
    "precision", [pytest.param("int8", marks=pytest.mark.slow), "fp8", pytest.param("nf4", marks=pytest.mark.slow)]
)
def test_a_packed_streamed_base_trains(tmp_path, precision):
    losses = []
    for swap in (0, 3):
        run = run_of(tmp_path, f"{precision}{swap}", 2, {"precision": precision, "blocks_to_swap": swap})
        assert run.exit_reason == "finished"
        losses.append([event.loss for event in told(run, StepDone)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "kept",
    ["none", pytest.param("attention", marks=pytest.mark.slow), pytest.param("offload", marks=pytest.mark.slow)],
)
def test_what_is_kept_changes_no_bit(tmp_path, kept):
    plain = run_of(tmp_path, "plain", 2, {})
    other = run_of(tmp_path, kept, 2, {"blocks_to_swap": 2, "modulation_cache": False}, kept=kept)
    for name, value in weights(plain).items():
        assert value.equal(weights(other)[name])

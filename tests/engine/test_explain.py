"""Errors that nobody expected, and threads that die: always told, and after a lost GPU nothing touches it again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pocket import finish, told
from scarce_runs import make_place, small

from engine.commands import StopNow
from engine.errors import RunError
from engine.events import RunFailed, StateChanged
from engine.explain import explain
from engine.files import RunFolder
from engine.hardware.lost import is_lost
from engine.run import Run, open_run
from engine.training.background import Snapshot, Snapshots, Writer
from engine.training.keeper import Keeper
from engine.training.step import Stepper

TAIL = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)
LOST = {
    "CUDA error: device-side assert triggered": "stopped at a check",
    "CUDA error: unspecified launch failure": "failed in the middle",
    "CUDA error: an illegal memory access was encountered": "failed in the middle",
    "CUDA error: misaligned address": "failed in the middle",
    "CUDA error: the launch timed out and was terminated": "took too long",
    "CUDA error: uncorrectable ECC error encountered": "memory is damaged",
    "CUDA error: unknown error": "is lost",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable": "is lost",
    "CUDA error: no CUDA-capable device is detected": "is lost",
    "CUDA driver error: device not ready": "is lost",
    "CUDA error: system not yet initialized": "driver does not answer",
    "CUDA error: CUDA driver version is insufficient for CUDA runtime version": "driver does not answer",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`": "in the middle",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED": "in the middle",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a smallest model and, once a run was here, caches."""
    return make_place(tmp_path_factory.mktemp("explain"))


@pytest.mark.parametrize("kind", [torch.AcceleratorError, RuntimeError])
@pytest.mark.parametrize("words", LOST)
def test_a_lost_gpu_is_told_by_what_it_says(tmp_path, kind, words):
    folder = RunFolder(tmp_path / "run")
    (folder.states / "step-00000040").mkdir(parents=True)
    (folder.states / "step-00000020").mkdir()
    try:
        try:
            raise kind(words + TAIL)
        except RuntimeError as err:
            raise RunError("The copy failed", "", "") from err
    except RunError as err:
        assert is_lost(err)
        title, detail, hint = explain(err, folder)
    assert LOST[words] in title and words in detail and "\n" not in detail
    assert "state of step 40" in hint and f"`kiln resume {folder.root}`" in hint and "leave it first" in hint
    assert "kiln resume" not in explain(kind(words), None)[2]


@pytest.mark.parametrize(
    "err",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("shapes do not fit"),
        ValueError("CUDA error: device-side assert triggered"),
    ],
)
def test_other_errors_leave_the_gpu_usable(err):
    assert not is_lost(err)


class _Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


ENDS = {
    "SystemExit": (SystemExit(3), "broken off"),
    "KeyboardInterrupt": (KeyboardInterrupt(), "broken off"),
    "GeneratorExit": (GeneratorExit(), "broken off"),
    "MemoryError": (MemoryError(), "computer is out of memory"),
    "RecursionError": (RecursionError("maximum recursion depth exceeded"), "Unexpected RecursionError"),
    "silent": (_Silent(), "Unexpected _Silent"),
    "BaseException": (BaseException("bare"), "Unexpected BaseException"),
}


@pytest.mark.parametrize("name", ENDS)
def test_whatever_ends_the_engines_thread_is_told(place, monkeypatch, name):
    err, words = ENDS[name]

    def ends(*_: Any) -> Any:
        raise err

    monkeypatch.setattr("engine.trainer.check_base", ends)
    unraised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unraised.append)
    run = finish(Run(small(place)))
    [failure] = told(run, RunFailed)
    assert words in failure.title and failure.hint and failure.traceback and not unraised
    assert run.exit_reason == "failed" and told(run, StateChanged)[-1].state == "failed"


def lose(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> list[str]:
    """Lose the GPU in the ``at``-th call of ``owner.name``; returns the calls into CUDA made from then on."""
    work, calls, after = getattr(owner, name), [0], []
    gone = "CUDA error: unspecified launch failure"

    def works(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] != at:
            return work(*args, **options)
        for each in ("is_initialized", "empty_cache", "synchronize", "memory_allocated", "current_stream"):

            def touched(*_: Any, each: str = each) -> Any:
                if each == "is_initialized":
                    return True
                after.append(each)
                raise torch.AcceleratorError(gone)

            monkeypatch.setattr(torch.cuda, each, touched)
        raise torch.AcceleratorError(gone + TAIL)

    monkeypatch.setattr(owner, name, works)
    return after


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [
        (Stepper, "step", 3),
        pytest.param(Stepper, "apply", 4, marks=pytest.mark.slow),
        (Keeper, "_write", 3),
        pytest.param(Snapshot, "wait", 2, marks=pytest.mark.slow),
        (Keeper, "sample", 1),
    ],
    ids=["step", "update", "copying", "writer", "sampling"],
)
def test_a_gpu_lost_anywhere_is_never_touched_again(place, monkeypatch, owner, name, at):
    sampling = {"at_start": False, "every_steps": 3, "prompts": [{"prompt": "a", "steps": 1}]}
    config = small(place, training={"epochs": 3, "state_every_steps": 1}, sampling=sampling)
    with monkeypatch.context() as patched:
        after = lose(patched, owner, name, at)
        run = finish(Run(config))
    [failure] = told(run, RunFailed)
    assert "failed in the middle" in failure.title and "kiln resume" in failure.hint
    assert after == []
    assert run.folder is not None and not (run.folder.root / f"{run.folder.name}.safetensors").exists()
    assert finish(open_run(run.folder.root)).exit_reason == "finished"


class _Never:
    """An event of a GPU that has gone: it never comes."""

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        raise AssertionError("waited in the driver")


def test_a_writer_that_waits_for_a_lost_gpu_is_let_go():
    snapshots, writer = Snapshots(), Writer()
    snapshot = Snapshot({}, _Never(), snapshots._given_up)  # type: ignore[arg-type]
    writer.start(snapshot.wait)
    snapshots.give_up()
    err = writer.close()
    assert isinstance(err, RunError) and err.title == "The GPU was lost"


def test_an_end_that_cannot_free_the_gpu_is_still_an_end(place, monkeypatch):
    def gone() -> None:
        raise torch.AcceleratorError("CUDA error: unknown error")

    unraised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unraised.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", gone)
    run = Run(small(place))
    run.submit(StopNow())
    assert finish(run).exit_reason == "stopped" and not unraised

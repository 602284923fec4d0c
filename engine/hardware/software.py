"""What torch and the libraries beside it can do here, asked in a process of its own.

A CUDA library that does not match its driver can crash or hang the process that loads it: the child takes that, and
how it ended is the answer. Importing this module imports none of them; the child is this module too,
``python -m engine.hardware.software STAGE...``, one line of JSON a stage.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TIMEOUT_S = 120.0
"""For one child: torch alone takes ten seconds from a cold disk."""

STAGES = ("torch", "cuda", "bitsandbytes", "triton")
"""In the order in which they are asked."""

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """What one stage told; ``error`` is why it told nothing, in its own words."""

    values: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


def ask_software(stages: Sequence[str] = STAGES, timeout_s: float = TIMEOUT_S) -> dict[str, Answer]:
    """The answer of each stage. One that ends the child is an error; the stages after it get a new child."""
    answers: dict[str, Answer] = {}
    left = list(stages)
    while left:
        told, error = _child(left, timeout_s)
        answers |= {stage: Answer(values) for stage, values in told.items()}
        left = [stage for stage in left if stage not in told]
        if left:
            answers[left[0]] = Answer(error=error)
            left = left[1:]
    return answers


def installed(name: str) -> str:
    """A package's version, empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def runs_on(arches: Sequence[str], capability: tuple[int, int]) -> str:
    """How a torch built for ``arches`` ("sm_86", "compute_120") runs on a card: "native", "translated", or "".

    Machine code runs on cards of the same generation that are no older; other code is translated by the driver when
    it is first used, where the build has it.
    """
    # Code for one model or family alone (sm_90a, sm_120f) is left out: the plain one stands beside it.
    built = [(kind, number) for kind, _, number in (arch.partition("_") for arch in arches) if number.isdigit()]
    if any(kind == "sm" and _of(number)[0] == capability[0] and _of(number) <= capability for kind, number in built):
        return "native"
    return "translated" if any(kind == "compute" and _of(number) <= capability for kind, number in built) else ""


def _of(number: str) -> tuple[int, int]:
    return int(number[:-1] or 0), int(number[-1])


def _child(stages: Sequence[str], timeout_s: float) -> tuple[dict[str, dict[str, Any]], str]:
    """What a child told of ``stages``, and how it ended before it told of all."""
    # -P: the working folder, which may hold anything, is not a place to import from.
    command = [sys.executable, "-P", "-m", "engine.hardware.software", *stages]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return _lines(late.stdout or b""), f"no answer in {timeout_s:.0f} s"
    return _lines(done.stdout), _how_it_ended(done.returncode, done.stderr)


def _lines(output: bytes) -> dict[str, dict[str, Any]]:
    """The answers among what a child wrote; libraries may write lines of their own."""
    told = {}
    for line in output.decode("utf-8", "replace").splitlines():
        if line.startswith('{"stage": ') and line.endswith("}"):
            values = json.loads(line)
            told[values.pop("stage")] = values
    return told


def _how_it_ended(code: int, errors: bytes) -> str:
    if code < 0:
        names = {member.value: member.name for member in signal.Signals}
        return f"the process was ended by {names.get(-code, f'signal {-code}')}"
    lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"the process ended with code {code} and said nothing"


def _torch() -> dict[str, Any]:
    import torch

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda or "",
        "hip": torch.version.hip or "",
        "arches": torch.cuda.get_arch_list(),
        "mps": bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available()),
    }


def _cuda() -> dict[str, Any]:
    """Every card that torch sees, after a product on each."""
    import torch

    if torch.version.cuda and not torch.cuda.is_available():
        torch.cuda.init()  # says why, where is_available only says no
    devices = []
    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        ones = torch.ones(64, 64, device=device)
        product = float((ones @ ones)[0, 0])
        properties = torch.cuda.get_device_properties(device)
        uuid = str(getattr(properties, "uuid", ""))
        devices.append({"name": properties.name, "uuid": uuid, "computes": product == 64.0})
    return {"devices": devices}


def _bitsandbytes() -> dict[str, Any]:
    """Which library it loaded, after packing a small matrix where the base would be packed."""
    if find_spec("bitsandbytes") is None:
        return {"version": ""}
    import torch
    from bitsandbytes import cextension, functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    functional.quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4")
    return {
        "version": installed("bitsandbytes"),
        "device": device,
        "cuda": bool(getattr(cextension.lib, "compiled_with_cuda", False)),
    }


def _triton() -> dict[str, Any]:
    if find_spec("triton") is None:
        return {"version": ""}
    import_module("triton")
    return {"version": installed("triton")}


_ASKED: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": _torch,
    "cuda": _cuda,
    "bitsandbytes": _bitsandbytes,
    "triton": _triton,
}


def main(stages: Sequence[str]) -> None:
    """Answer ``stages`` on stdout; what goes wrong ends the process with its message last on stderr."""
    for stage in stages:
        print(json.dumps({"stage": stage, **_ASKED[stage]()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Python, torch and its CUDA against the driver, and the libraries beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.hardware.gpu import Gpu
from engine.hardware.software import Answer
from engine.text import safe_text
from tui.doctor.finding import Finding

PYTHONS = ((3, 11), (3, 14))
"""The oldest Python that works, and the first that is not supported yet."""

TORCHES = ((2, 11), (2, 14))

_BUILDS = (((13, 0), "cu130"), ((12, 8), "cu128"), ((12, 6), "cu126"))
"""Builds of torch by the CUDA that a driver must run, the newest first."""


@dataclass(frozen=True)
class Software:
    """What was read of Python and its packages.

    Attributes:
        answers: as :func:`engine.hardware.software.ask_software` gives them.
        xformers: its version, empty where it is not installed.
        compiler: the C compiler that Triton would call, empty without one.
    """

    python: tuple[int, int, int]
    answers: Mapping[str, Answer]
    xformers: str = ""
    compiler: str = ""
    linux: bool = True


def software_findings(read: Software, gpus: Sequence[Gpu]) -> list[Finding]:
    """Findings on everything that is installed."""
    found = [_python(read.python), _torch(read, gpus)]
    if read.answers["torch"].values.get("cuda") and gpus:
        found.append(_driver(read, gpus[0]))
    if hip := read.answers["torch"].values.get("hip"):
        found.append(
            Finding(
                "software", "ROCm", "warn", f"this torch is built for AMD's ROCm {hip}",
                "Training on AMD cards is untested: 8-bit products, memory figures and forecasts are missing.",
                "Try a short run first; `kiln bench demo` shows whether steps work.",
            )
        )  # fmt: skip
    return [*found, _bitsandbytes(read, bool(gpus)), _triton(read, bool(gpus)), _xformers(read.xformers)]


def torch_cuda(read: Software) -> tuple[int, int]:
    """The CUDA that torch is built for; 0.0 where for none."""
    return _number(str(read.answers["torch"].values.get("cuda", "")))


def build_for(cuda: tuple[int, int] | None) -> str:
    """The command that installs a torch which this driver's CUDA runs."""
    build = next((name for needed, name in _BUILDS if cuda is None or cuda >= needed), "")
    if not build:
        return "Update the NVIDIA driver first (560 or newer), then install torch for it: see pytorch.org."
    url = f"https://download.pytorch.org/whl/{build}"
    return f"pip install --force-reinstall torch --index-url {url}"


def _python(version: tuple[int, int, int]) -> Finding:
    text = ".".join(map(str, version))
    oldest, first_new = (".".join(map(str, each)) for each in PYTHONS)
    if PYTHONS[0] <= version[:2] < PYTHONS[1]:
        return Finding("software", "Python", "ok", text)
    return Finding(
        "software", "Python", "bad", f"{text}, where {oldest} or newer and older than {first_new} is needed",
        do=f"Make an environment with a Python from {oldest} on and install lorakiln in it.",
    )  # fmt: skip


def _torch(read: Software, gpus: Sequence[Gpu]) -> Finding:
    answer = read.answers["torch"]
    if answer.error:
        return Finding(
            "software", "torch", "bad", f"it cannot be imported: {safe_text(answer.error, 300)}",
            do=build_for(gpus[0].cuda if gpus else None),
        )  # fmt: skip
    version, cuda = str(answer.values["version"]), str(answer.values["cuda"])
    if not TORCHES[0] <= _number(version) < TORCHES[1]:
        between = " to ".join(".".join(map(str, each)) for each in TORCHES)
        return Finding(
            "software", "torch", "warn", f"{version}, tested are versions from {between}",
            do=build_for(gpus[0].cuda if gpus else None),
        )  # fmt: skip
    if not cuda and gpus and not answer.values["hip"]:
        return Finding(
            "software", "torch", "bad", f"{version} is built without CUDA, and there is a card for it",
            "Training would run on the processor, hundreds of times slower.",
            build_for(gpus[0].cuda),
        )  # fmt: skip
    error = read.answers["cuda"].error
    if cuda and gpus and error:
        return Finding(
            "software", "torch", "bad", f"{version} cannot use the card: {safe_text(error, 300)}",
            do="Look at the driver's line below; if that is well, restart the machine and try again.",
        )  # fmt: skip
    return Finding("software", "torch", "ok", f"{version}, {f'built for CUDA {cuda}' if cuda else 'without CUDA'}")


def _driver(read: Software, gpu: Gpu) -> Finding:
    needed, has = torch_cuda(read), gpu.cuda
    name = safe_text(gpu.driver, 40) or "unknown"
    if has is None:
        return Finding(
            "software", "driver", "warn", f"{name}, which does not say what CUDA it runs",
            do="Run nvidia-smi: the CUDA version it prints must not be older than torch's.",
        )  # fmt: skip
    what = f"{name} runs programs for CUDA {has[0]}.{has[1]}, torch is built for {needed[0]}.{needed[1]}"
    if has[0] < needed[0]:
        return Finding(
            "software", "driver", "bad", what, "The driver is older than torch needs: no kernel would start.",
            f"Update the NVIDIA driver, or take an older build: {build_for(has)}",
        )  # fmt: skip
    older = has < needed
    return Finding("software", "driver", "ok", what, "Older by a minor version, which CUDA allows." if older else "")


def _bitsandbytes(read: Software, on_gpu: bool) -> Finding:
    answer, subject = read.answers["bitsandbytes"], "bitsandbytes"
    lacks = "8-bit optimizers and nf4 cannot be had; adafactor and int8 stand in."
    again = "pip install --force-reinstall bitsandbytes"
    if answer.error:
        return Finding("software", subject, "warn", f"does not work: {safe_text(answer.error, 300)}", lacks, again)
    version = str(answer.values["version"])
    if not version:
        return Finding("software", subject, "warn", "not installed", lacks, "pip install bitsandbytes")
    if on_gpu and answer.values["device"] == "cuda" and not answer.values["cuda"]:
        return Finding("software", subject, "warn", f"{version} came without a library for this CUDA", lacks, again)
    where = "with its CUDA library" if answer.values["cuda"] else "on the processor alone"
    return Finding("software", subject, "ok", f"{version}, {where}")


def _triton(read: Software, on_gpu: bool) -> Finding:
    answer = read.answers["triton"]
    lacks = "Blocks are not compiled and int8 products take a pass more: steps are slower."
    version = str(answer.values.get("version", ""))
    if answer.error or not version:
        what = f"does not work: {safe_text(answer.error, 300)}" if answer.error else "not installed"
        package = "triton" if read.linux else "triton-windows"
        if not on_gpu:
            return Finding("software", "triton", "ok", f"{what}; without a card it is not needed")
        return Finding("software", "triton", "warn", what, lacks, f"pip install {package}")
    if not read.compiler and on_gpu:
        return Finding(
            "software", "triton", "warn", f"{version}, but there is no C compiler for it", lacks,
            "Install one, gcc for example (apt install gcc), or set CC to where it is.",
        )  # fmt: skip
    return Finding("software", "triton", "ok", f"{version}{f', compiler {read.compiler}' if read.compiler else ''}")


def _xformers(version: str) -> Finding:
    what = f"{version}; not needed" if version else "not installed; not needed"
    return Finding("software", "xformers", "ok", f"{what}, attention is torch's own")


def _number(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)

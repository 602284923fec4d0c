"""What a measured figure depends on: processor, cores, card, driver, versions. Read without torch."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engine.hardware.gpu import probe_gpus, visible_gpus


@dataclass(frozen=True)
class Machine:
    """The machine a figure was obtained on; ``gpu`` and ``driver`` are empty where there is none."""

    processor: str
    cores: int
    gpu: str
    driver: str
    vram_gb: float
    torch: str
    python: str


def this_machine() -> Machine:
    """The machine this runs on, with the first GPU that this process may use."""
    gpus, _ = probe_gpus()
    gpu = next(iter(visible_gpus(gpus)), None)
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = ""
    return Machine(
        processor=processor(),
        cores=os.cpu_count() or 0,
        gpu=gpu.name if gpu else "",
        driver=gpu.driver if gpu else "",
        vram_gb=round(gpu.total_gb or 0.0, 1) if gpu else 0.0,
        torch=torch,
        python=platform.python_version(),
    )


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system gives it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

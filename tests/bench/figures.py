"""Writes measured figures into a dated file, with what they were measured on.

``python -m tests.bench.figures FILE < TEXT`` does it for the output of another program.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path


def machine() -> list[tuple[str, str]]:
    """What a figure depends on: processor, cores, load, versions."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return [
        ("date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("processor", processor()),
        ("cores", str(os.cpu_count())),
        ("load (1 min)", f"{os.getloadavg()[0]:.1f}"),
        ("GPU", gpu),
        ("Python", platform.python_version()),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
    ]


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_figures(path: Path, title: str, body: str) -> None:
    """Write a Markdown page: title, machine, figures."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in machine())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# {title}\n\n| measured on | |\n|---|---|\n{rows}\n\n{body.strip()}\n", encoding="utf-8")
    print(f"figures are in {path}")


if __name__ == "__main__":
    write_figures(Path(sys.argv[1]), "Slow tests", f"```\n{sys.stdin.read().strip()}\n```")

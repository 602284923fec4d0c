"""Everything a first hour on a card should measure, in portions of at most ten minutes.

    python tests/gpu/first_hour.py WORK            goes on where the last call ended; run it until it says "all done"
    python tests/gpu/first_hour.py WORK --list     what there is to do

First the card's own rates, then the step through ``kiln bench`` at FLUX.1-dev's size with random weights: by
configuration at 512 and 1024 px, half and all blocks streamed, then each card's configuration under its memory cap.
Every measurement is a JSON line, on stdout and in WORK/first_hour.jsonl. WORK needs 50 GB of disk; files made once
are used again. A cap bounds torch's allocator to the card less 0.6 GiB for the context and 0.5 for a desktop; it
proves that a run fits, not how fast it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from card_rates import PARTS
from random_checkpoint import write_base

from engine.config import RunConfig
from engine.config_file import save_config
from engine.models.autoencoder_layout import AutoencoderSizes
from engine.models.flux import FluxParams
from engine.models.text_layout import ClipSizes, T5Sizes

BUDGET_S = 560.0
CONTEXT_GB, DESKTOP_GB = 0.6, 0.5


@dataclass(frozen=True)
class Job:
    """One ``kiln bench``: settings by table, laid over the basic ones; ``cap_gb`` is the card it must fit."""

    name: str
    px: int = 1024
    memory: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    cap_gb: int = 0
    longest_s: float = 300.0


def _memory(precision: str = "auto", swap: int = 0, **more: Any) -> dict[str, Any]:
    return {"precision": precision, "blocks_to_swap": swap, **more}


def _kept(name: str) -> dict[str, Any]:
    return {"gradient_checkpointing": name}


JOBS = (
    Job("bf16, 1024 px"),
    Job("bf16, 512 px", 512),
    Job("bf16, 1024 px, attention kept", training=_kept("attention")),
    Job("bf16, 512 px, graphs", 512, memory=_memory(cuda_graphs="on")),
    Job("bf16, 1024 px, eager", memory=_memory(compile="off")),
    Job("int8, 1024 px", memory=_memory("int8")),
    Job("fp8, 1024 px", memory=_memory("fp8")),
    Job("nf4, 1024 px", memory=_memory("nf4")),
    Job("int8, 1024 px, half streamed", memory=_memory("int8", 28)),
    Job("bf16, 1024 px, half streamed", memory=_memory(swap=28)),
    Job("bf16, 1024 px, batch 4, half streamed", memory=_memory(swap=28), training={"batch_size": 4}),
    Job("bf16, 1024 px, batch 4", training={"batch_size": 4}),
    Job("bf16, 1024 px, nothing recomputed", training=_kept("none")),
    Job("bf16, 1024 px, modulation cache off", memory=_memory(modulation_cache=False)),
    Job("24 GB: bf16", cap_gb=24),
    Job("16 GB: int8", memory=_memory("int8"), cap_gb=16),
    Job("12 GB: int8, offload", memory=_memory("int8"), training=_kept("offload"), cap_gb=12),
    Job("10 GB: int8, half streamed", memory=_memory("int8", 28), cap_gb=10),
    Job("8 GB: nf4, offload", memory=_memory("nf4"), training=_kept("offload"), cap_gb=8),
    Job("8 GB: int8, all streamed, offload", memory=_memory("int8", 57), training=_kept("offload"), cap_gb=8),
    Job("4 GB: int8, all streamed, offload", memory=_memory("int8", 57), training=_kept("offload"), cap_gb=4),
)

TINY_JOBS = (Job("tiny, streamed", 64, memory=_memory(swap=1)),)


def write_files(work: Path, tiny: bool) -> dict[str, str]:
    """Random model files of FLUX.1-dev's sizes (text encoders of one layer) and two pictures; once."""
    listed = work / "model.json"
    if listed.exists():
        return dict(json.loads(listed.read_text()))
    flux, clip, ae = FluxParams(), replace(ClipSizes(vocab_size=618), layers=1), AutoencoderSizes()
    t5 = replace(T5Sizes(vocab_size=1024), layers=1)
    if tiny:
        flux = replace(flux, hidden_size=256, num_heads=2, depth=1, depth_single_blocks=1, context_in_dim=64)
        t5 = T5Sizes(vocab_size=1024, d_model=64, d_kv=16, d_ff=64, layers=1, num_heads=4)
        ae = replace(ae, ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
    pictures = work / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for index in range(4):
        Image.effect_noise((1024, 1024), 60 + 20 * index).convert("RGB").save(pictures / f"{index}.png")
    model = write_base(work / "models", flux, clip, t5, ae)
    listed.write_text(json.dumps(model))
    return model


def write_config(work: Path, model: dict[str, str], job: Job, number: int) -> Path:
    """The configuration of a job."""
    config = RunConfig.model_validate(
        {
            "name": f"hour-{number}",
            "runs_dir": work / "runs",
            "cache_dir": work / "cache",
            "model": model | {"download_tokenizers": False},
            "dataset": {
                "folders": [{"path": work / "pictures"}],
                "resolution": job.px,
                "buckets": {"min_side": min(256, job.px)},
                "allow_missing_captions": True,
                "captions": {"trigger_word": "zorple"},
            },
            "lora": {"rank": 16},
            "training": {"batch_size": 1, "gradient_checkpointing": "full"} | job.training,
            "memory": job.memory,
        }
    )
    path = work / f"hour-{number}.toml"
    save_config(config, path)
    return path


def bench(config: Path, job: Job, steps: int, limit_s: float) -> dict[str, Any]:
    """Run one job in a process of its own; its figures, or how it failed."""
    command = [sys.executable, __file__, str(config.parent), "--child", str(config), str(job.cap_gb), str(steps)]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"problem": f"not done after {limit_s:.0f} s"}
    record: dict[str, Any] = {"wall_s": round(time.monotonic() - began, 1), "rc": done.returncode}
    if done.returncode:
        return record | {"problem": done.stderr[-1500:]}
    return record | json.loads(done.stdout.splitlines()[-1])


def child(config: str, cap_gb: int, steps: int) -> int:
    """Bound the allocator, then ``kiln bench``."""
    if cap_gb and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction((cap_gb - CONTEXT_GB - DESKTOP_GB) / total)
    from tui.__main__ import main as kiln

    return kiln(["bench", config, "--steps", str(steps), "--json"])


def measurements(work: Path, done: set[str], tiny: bool, end: float) -> Iterator[dict[str, Any]]:
    """What is not done yet, as far as the time goes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for part, measure in PARTS.items():
        if part not in done:
            yield {"job": part, "records": list(measure(device, tiny))}
    jobs = TINY_JOBS if tiny else JOBS
    left = [(number, job) for number, job in enumerate(jobs) if job.name not in done]
    if not left:
        return
    model = write_files(work, tiny)
    for number, job in left:
        room = end - time.monotonic()
        if room < (30 if tiny else 90):
            return
        config = write_config(work, model, job, number)
        limit = min(room, job.longest_s)
        figures = bench(config, job, 2 if tiny else 15, limit)
        # Cut short by this call's end, not by its own fault: the next call does it again.
        if "not done" in figures.get("problem", "") and limit < job.longest_s:
            return
        yield {"job": job.name, "cap_gb": job.cap_gb, **figures}


def main() -> int:
    """Measure what is left, within the time of one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds this call may take (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to test this program")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--child", nargs=3, metavar=("CONFIG", "CAP_GB", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        config, cap, steps = arguments.child
        return child(config, int(cap), int(steps))
    names = [*PARTS, *(job.name for job in (TINY_JOBS if arguments.tiny else JOBS))]
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    log = work / "first_hour.jsonl"
    done = {json.loads(line)["job"] for line in log.read_text().splitlines()} if log.exists() else set()
    if arguments.list:
        print("\n".join(f"{'done' if name in done else 'open'}  {name}" for name in names))
        return 0
    end = time.monotonic() + arguments.budget
    os.environ.setdefault("OMP_NUM_THREADS", "4")
    for record in measurements(work, done, arguments.tiny, end):
        line = json.dumps(record)
        with open(log, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        done.add(record["job"])
        print(line, flush=True)
    open_jobs = [name for name in names if name not in done]
    print(f"still open: {', '.join(open_jobs)}" if open_jobs else "all done", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

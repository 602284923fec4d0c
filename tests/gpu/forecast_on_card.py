"""The forecast against the card: what training allocates at its highest, under caps that mimic smaller cards.

    python tests/gpu/forecast_on_card.py WORK            goes on where the last call ended, until it says "all done"
    python tests/gpu/forecast_on_card.py WORK --table    what was measured so far, as Markdown for docs/figures

FLUX.1-dev's size with random weights, ``kiln bench`` by configuration, in portions of at most ten minutes. The first
run of a size fills the caches and is not looked at: encoding pictures may take more than a small configuration's
training. Measured is torch's own peak, so the context and what the allocator loses are left out of the forecast too.
Every measurement is a JSON line in WORK/forecast.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from first_hour import BUDGET_S, DESKTOP_GB, Job, bench, write_config, write_files

from engine.config import RunConfig
from engine.config_file import load_config
from engine.dataset.scan import Sample
from engine.hardware.cards import Card
from engine.hardware.rates import CardRates, rates_of
from engine.models.detect import ModelInfo
from profiles.estimate import forecast
from profiles.job import job_of, settings_of
from profiles.schema import GIB, Forecast, Machine

PICTURES = 4


def case(name: str, cap_gb: int, px: int = 1024, kept: str = "full", batch: int = 1, **memory: Any) -> Job:
    """One configuration in a line."""
    training = {"gradient_checkpointing": kept, "batch_size": batch}
    return Job(name, px, memory=memory, training=training, cap_gb=cap_gb)


CASES = (
    case("8 GB: nf4, offloaded", 8, kept="offload", precision="nf4"),
    case("8 GB: int8, all streamed, offloaded", 8, kept="offload", precision="int8", blocks_to_swap=57),
    case("8 GB: bf16, all streamed", 8, px=512, blocks_to_swap=57),
    case("10 GB: int8, half streamed", 10, precision="int8", blocks_to_swap=28),
    case("10 GB: fp8, 40 streamed, attention kept", 10, kept="attention", precision="fp8", blocks_to_swap=40),
    case("12 GB: int8, offloaded", 12, kept="offload", precision="int8"),
    case("12 GB: nf4, 512 px, batch 4", 12, px=512, batch=4, precision="nf4"),
    case("12 GB: int8 unpacked, 8 streamed", 12, precision="int8", compute="wide", blocks_to_swap=8),
    case("16 GB: int8", 16, precision="int8"),
    case("16 GB: fp8, batch 2", 16, batch=2, precision="fp8"),
    case("24 GB: bf16", 24),
    case("24 GB: bf16, half streamed, batch 4", 24, batch=4, blocks_to_swap=28),
    case("48 GB: bf16, nothing recomputed, 512 px", 48, px=512, kept="none"),
    case("48 GB: bf16, batch 4, attention kept, modulation on the card", 48, kept="attention", batch=4,
         modulation_cache=False),
    case("48 GB: int8, nothing recomputed", 48, kept="none", precision="int8"),
)  # fmt: skip


def machine() -> Machine:
    """This card, or one that stands in for it where there is none."""
    name, capability, total = "RTX 4090", (8, 9), 24.0
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        name, capability = properties.name, (properties.major, properties.minor)
        total = properties.total_memory / GIB
    rates = rates_of(name) or CardRates(100, 200, 200, 1000)
    return Machine(Card(name, total, capability, rates, 25.0), total, 64.0, 56.0, 8, 100.0, 100.0)


def forecast_of(config: RunConfig, infos: dict[str, ModelInfo] | None = None) -> Forecast:
    """The forecast for a configuration on the square pictures that the program writes."""
    samples = [
        Sample(n, Path(f"{n}.png"), f"{n}.png", None, "zorple", 1024, 1024, 1, False, "PNG") for n in range(PICTURES)
    ]
    here = machine()
    return forecast(job_of(config, samples, infos), settings_of(config, here), here)


def allocated_gb(said: Forecast) -> float:
    """What torch allocates at its highest once the caches are filled, GiB."""
    own = ("context", "lost")
    stages = (said.stage(name).vram for name in ("load", "train"))
    return max(sum(size for part, size in stage.items() if part not in own) for stage in stages) / GIB


def fits(said: Forecast, cap_gb: int) -> bool:
    """Whether training is said to fit a card of ``cap_gb`` with a desktop on it."""
    return said.stage("train").vram_gb + DESKTOP_GB <= cap_gb


def measure(work: Path, model: dict[str, str], job: Job, number: int, limit_s: float) -> dict[str, Any]:
    """One configuration: what was said and what was measured."""
    path = write_config(work, model, job, number)
    said = allocated_gb(forecast_of(load_config(path)))
    figures = bench(path, job, 6, limit_s)
    if "problem" in figures:
        return {"job": job.name, "cap_gb": job.cap_gb, "forecast_gb": said, "problem": figures["problem"]}
    found = figures["peak_gb"]
    return {
        "job": job.name, "cap_gb": job.cap_gb, "forecast_gb": round(said, 3), "measured_gb": found,
        "off": round(said / found - 1, 4), "held": figures["held"],
    }  # fmt: skip


def warm(work: Path, model: dict[str, str], px: int, limit_s: float) -> None:
    """Fill the caches for this size, once."""
    mark = work / f"warm-{px}"
    if mark.exists():
        return
    path = write_config(work, model, Job("warm", px, memory={"precision": "nf4"}), 900 + px)
    if "problem" not in bench(path, Job("warm"), 1, limit_s):
        mark.touch()


def table(records: list[dict[str, Any]]) -> str:
    """What was measured, as Markdown."""
    lines = ["| configuration | forecast, GiB | measured, GiB | difference |", "| --- | --- | --- | --- |"]
    for record in records:
        if "problem" in record:
            lines.append(f"| {record['job']} | {record['forecast_gb']:.2f} | failed | |")
        else:
            said, found, off = (record[key] for key in ("forecast_gb", "measured_gb", "off"))
            lines.append(f"| {record['job']} | {said:.2f} | {found:.2f} | {off:+.1%} |")
    return "\n".join(lines)


def main() -> int:
    """Measure what is left, within the time of one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds this call may take (%(default)s)")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    log = work / "forecast.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if arguments.table:
        print(table(records))
        return 0
    end = time.monotonic() + arguments.budget
    done = {record["job"] for record in records}
    model = write_files(work, tiny=False)
    for number, job in enumerate(CASES):
        if job.name in done:
            continue
        room = end - time.monotonic()
        if room < 120:
            break
        warm(work, model, job.px, room)
        record = measure(work, model, job, number, end - time.monotonic())
        if "not done" in record.get("problem", ""):
            break  # cut short by this call's end: the next one does it again
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        done.add(job.name)
        print(json.dumps(record), flush=True)
    left = [job.name for job in CASES if job.name not in done]
    print(f"still open: {', '.join(left)}" if left else "all done", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

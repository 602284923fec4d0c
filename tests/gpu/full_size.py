"""Train at FLUX.1-dev's full size with random weights, through the command line, and report time and memory.

Run as ``python tests/gpu/full_size.py WORK_DIR [--px 512 1024] [--steps 5]``. Prints one JSON line for each size:
median step time (the first two steps left out), its parts, peak GPU memory, seconds to load.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from random_checkpoint import write_base

from engine.events import MemorySampled, RunFailed, StepDone, entry_from_json
from engine.models.autoencoder_layout import AutoencoderSizes
from engine.models.flux import FluxParams
from engine.models.text_layout import ClipSizes, T5Sizes

CONFIG = """\
version = 1
name = "full-{px}"
runs_dir = "{work}/runs"
cache_dir = "{work}/cache"

[model]
{model}
download_tokenizers = false

[[dataset.folders]]
path = "{work}/pictures"

[dataset]
resolution = {px}
allow_missing_captions = true

[dataset.captions]
trigger_word = "zorple"

[lora]
rank = 16

[training]
epochs = 0
steps = {steps}
batch_size = 1
gradient_checkpointing = "full"

[saving]
every_epochs = 0
"""


def write_all(work: Path, small: bool) -> dict[str, str]:
    """Model files (FLUX.1-dev's sizes; vocabularies of the small tokenizers) and two pictures."""
    flux, clip, t5, ae = FluxParams(), ClipSizes(vocab_size=618), T5Sizes(vocab_size=1024), AutoencoderSizes()
    if small:
        flux = replace(flux, hidden_size=256, num_heads=2, depth=1, depth_single_blocks=1, context_in_dim=64)
        clip = replace(clip, layers=1)
        t5 = T5Sizes(vocab_size=1024, d_model=64, d_kv=16, d_ff=64, layers=1, num_heads=4)
        ae = replace(ae, ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
    pictures = work / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for index in range(2):
        Image.effect_noise((1024, 1024), 60 + 20 * index).convert("RGB").save(pictures / f"{index}.png")
    return write_base(work / "models", flux, clip, t5, ae)


def train(work: Path, model: dict[str, str], px: int, steps: int) -> dict[str, float]:
    """One run through ``kiln train --json``; returns its figures."""
    config = work / f"full-{px}.toml"
    table = "\n".join(f'{key} = "{value}"' for key, value in model.items())
    config.write_text(CONFIG.format(px=px, work=work, model=table, steps=steps))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tui", "train", str(config), "--json"], capture_output=True, text=True, check=False
    )
    events = [entry_from_json(line) for line in done.stdout.splitlines()]
    failed = [entry.event for entry in events if isinstance(entry.event, RunFailed)]
    if done.returncode or failed:
        raise SystemExit(f"rc {done.returncode}: {failed} {done.stderr[-2000:]}")
    taken = [entry.event for entry in events if isinstance(entry.event, StepDone)]
    # Wall-clock differences between events: on a GPU the host's own times are no step times.
    times = [entry.time for entry in events if isinstance(entry.event, StepDone)]
    memory = [entry.event for entry in events if isinstance(entry.event, MemorySampled)]
    assert len(taken) == steps and all(event.loss > 0 for event in taken)
    return {
        "px": px,
        "steps": steps,
        "step_s": statistics.median(b - a for a, b in itertools.pairwise(times[1:] if steps > 2 else times)),
        "first_step_s": times[0] - events[0].time,
        "peak_gb": max(event.vram_peak_gb for event in memory),
        "host_gb": max(event.process_gb for event in memory),
        "total_s": time.monotonic() - began,
        "loss": taken[-1].loss,
    }


def main() -> None:
    """Write the files once, train at each size, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--px", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a tiny model of the same kind, to test this program")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    began = time.monotonic()
    model = write_all(work, arguments.small)
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(json.dumps({"machine": machine, "torch": torch.__version__, "files_s": time.monotonic() - began}))
    for px in arguments.px:
        print(json.dumps(train(work, model, px, arguments.steps)), flush=True)


if __name__ == "__main__":
    main()

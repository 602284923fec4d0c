"""Time the same step in lorakiln and in other trainers, interleaved, one process per run.

Run as::

    python -m tests.bench.peers --kohya DIR --ai-toolkit DIR --onetrainer DIR [--packages DIR] [--case small|flux]

The folders are checkouts of sd-scripts, ai-toolkit and OneTrainer; those not given are left out, diffusers and peft
are installed already. ``--packages`` is a folder with what the checkouts import besides (einops, toml, optimum-quanto
and so on). First every contender's loss and gradients are compared with ours in float32 on a small model: one that
differs is not timed. Then each is timed in a fresh process per round, in a shuffled order, and medians are printed as
ratios.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.bench.peers.case import FLUX_DEV, SMALL, Case, random_adapter, random_batch, random_model
from tests.bench.peers.checkout import commit_of

CONTENDERS = {
    "lorakiln": ("ours", "build"),
    "lorakiln, attention kept": ("ours", "build_best"),
    "diffusers + peft": ("diffusers_peft", "build"),
    "kohya": ("kohya", "build"),
    "ai-toolkit": ("ai_toolkit", "build"),
    "OneTrainer": ("onetrainer", "build"),
}
FLAGS = {
    "lorakiln": "gradient_checkpointing = full, targets = default",
    "lorakiln, attention kept": "gradient_checkpointing = attention, targets = default",
    "diffusers + peft": "enable_gradient_checkpointing, float32 adapters under autocast, separate q, k, v",
    "kohya": "--gradient_checkpointing --mixed_precision bf16, network_args *_mod_dim=0",
    "ai-toolkit": "gradient_checkpointing, float32 adapters outside autocast, modulation ignored",
    "OneTrainer": "gradient_checkpointing on, compile off, no quantisation",
}
"""What each was set to, in its own words; ``--keep`` turns recomputing off for all."""

CHECKOUTS = {"kohya": "kohya", "ai-toolkit": "ai_toolkit", "OneTrainer": "onetrainer"}
TINY = replace(SMALL, hidden_size=256, num_heads=2, depth=1, depth_single_blocks=1)
LIMIT = 1e-5
"""Largest relative difference of a gradient, float32, for a contender to be timed."""


def build(name: str, case: Case, checkout: str) -> Any:
    """The contender called ``name``."""
    module, function = CONTENDERS[name]
    make = getattr(importlib.import_module(f"tests.bench.peers.{module}"), function)
    model, adapter = random_model(case), random_adapter(case)
    return make(case, model, adapter, Path(checkout)) if checkout else make(case, model, adapter)


def difference(name: str, checkout: str) -> float:
    """Largest relative difference of loss and gradients from ours, in float32 on a small model."""
    found = []
    for contender, folder in (("lorakiln", ""), (name, checkout)):
        case = Case(params=TINY, side=64, text=8, batch=2, dtype=torch.float32)
        one = build(contender, case, folder)
        loss = one.loss(random_batch(case))
        loss.backward()
        found.append((float(loss), one.gradients()))
    (loss, ours), (other_loss, theirs) = found
    worst = abs(loss - other_loss) / abs(loss)
    for target, pair in ours.items():
        for mine, other in zip(pair, theirs[target], strict=True):
            worst = max(worst, float((mine - other).norm() / mine.norm()))
    return worst


def timed(name: str, case: Case, checkout: str, warm: int, steps: int) -> dict[str, float]:
    """Median step time of one run, after ``warm`` steps, and the peak of what was allocated on a GPU."""
    one, batch = build(name, case, checkout), random_batch(case)
    cuda = case.device.startswith("cuda")
    times = []
    for number in range(warm + steps):
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        one.step(batch)
        if cuda:
            torch.cuda.synchronize()
        if number >= warm:
            times.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0
    return {"step_s": statistics.median(times), "peak_gb": peak}


def case_of(arguments: argparse.Namespace) -> Case:
    """The configuration asked for."""
    if arguments.case == "small":
        return Case(checkpointing=not arguments.keep, device=arguments.device, batch=arguments.batch)
    return Case(
        params=FLUX_DEV,
        side=arguments.side,
        text=512,
        batch=arguments.batch,
        checkpointing=not arguments.keep,
        device=arguments.device,
    )


def in_process(words: list[str], name: str, job: str) -> dict[str, float]:
    """Run one job in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.peers", *words, "--one", name, "--job", job],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def compare(arguments: argparse.Namespace, words: list[str]) -> None:
    """Check every contender, time all of them in turns, print a table."""
    checkouts = {name: getattr(arguments, key) for name, key in CHECKOUTS.items()}
    names = [name for name in CONTENDERS if name not in CHECKOUTS or checkouts[name]]
    print(f"torch {torch.__version__}, {arguments.device}, {torch.get_num_threads()} threads")
    for name in [*names]:
        worst = in_process(words, name, "check")["difference"]
        commit = commit_of(Path(checkouts[name])) if checkouts.get(name) else ""
        print(f"{name} {commit}: differs by {worst:.1e} in float32; {FLAGS[name]}", flush=True)
        if not worst <= LIMIT:
            print(f"{name} is left out: over {LIMIT:g}")
            names.remove(name)
    print("\nEqual settings: blocks are recomputed by all, the same linears are adapted")
    _table(arguments, words, names)
    print("\nEach at its best here: nothing is recomputed. Compiled and 8-bit settings need a GPU and are not driven")
    _table(arguments, [*words, "--keep"], [name for name in names if name != "lorakiln, attention kept"])


def _table(arguments: argparse.Namespace, words: list[str], names: list[str]) -> None:
    """Time contenders in turns, a process each time, and print medians."""
    times: dict[str, list[float]] = {name: [] for name in names}
    peaks = dict.fromkeys(names, 0.0)
    for number in range(arguments.rounds):
        order = list(names)
        random.Random(number).shuffle(order)
        for name in order:
            found = in_process(words, name, "time")
            times[name].append(found["step_s"])
            peaks[name] = max(peaks[name], found["peak_gb"])
    base = statistics.median(times["diffusers + peft"])
    print("\n| step | median s | spread | of diffusers + peft | peak GB |\n|---|---|---|---|---|")
    for name in names:
        middle, spread = statistics.median(times[name]), max(times[name]) - min(times[name])
        peak = f"{peaks[name]:.1f}" if peaks[name] else ""
        print(f"| {name} | {middle:.3f} | {spread:.3f} | {middle / base:.2f} | {peak} |")


def main() -> None:
    """Read the arguments and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, key in CHECKOUTS.items():
        parser.add_argument(f"--{key.replace('_', '-')}", dest=key, default="", help=f"checkout of {name}")
    parser.add_argument("--packages", default="", help="folder of packages that the checkouts need")
    parser.add_argument("--case", choices=["small", "flux"], default="small")
    parser.add_argument("--side", type=int, default=1024, help="pixels, for --case flux")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="nothing is recomputed in the backward pass")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warm", type=int, default=1)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    parser.add_argument("--job", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.packages:
        sys.path.append(arguments.packages)
    if not arguments.one:
        compare(arguments, sys.argv[1:])
        return
    checkout = getattr(arguments, CHECKOUTS[arguments.one]) if arguments.one in CHECKOUTS else ""
    if arguments.job == "check":
        print(json.dumps({"difference": difference(arguments.one, checkout)}))
    else:
        print(json.dumps(timed(arguments.one, case_of(arguments), checkout, arguments.warm, arguments.steps)))


if __name__ == "__main__":
    main()

"""The tables of the trace as Markdown: ``python -m tests.bench.trace [--px 512 1024]``; minutes on one core."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace

from tests.bench.trace.against import FIXED, compare, drawn
from tests.bench.trace.contenders import (
    CONTENDERS,
    SMALL,
    SMALL_PX,
    SMALL_TEXT,
    Case,
    Contender,
    Counted,
    count,
    count_block,
    count_scaled,
    fused,
    lean,
    peft,
)
from tests.bench.trace.ideal import input_bytes, step_flops
from tests.bench.trace.memory import CONFIGURATIONS, hold
from tests.bench.trace.predict import CARDS, seconds


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(list(head))]
    lines += [[str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def steps(cases: Iterable[tuple[str, Case]]) -> str:
    """Every contender's step: products against the ideal, launches, bytes, memory."""
    rows = []
    for label, case in cases:
        for name, build in CONTENDERS.items():
            counted = count(build, case)  # every block of it, not scaled up
            rows.append((label, name, *_step_cells(counted, case)))
    head = ["step", "contender", "TFLOP", "over ideal", "launches", "products GB", "rest GB", "kept MiB", "peak MiB"]
    return table(head, rows)


def _step_cells(counted: Counted, case: Case) -> tuple[str, ...]:
    return (
        f"{counted.flops / 1e12:.3f}",
        f"{counted.flops / step_flops(case):.4f}",
        f"{counted.launches:,}",
        f"{counted.product_gb:.1f}",
        f"{counted.rest_gb:.1f}",
        f"{counted.kept_bytes / 2**20:.0f}",
        f"{counted.peak_bytes / 2**20:.0f}",
    )


def blocks(case: Case, contenders: dict[str, Callable[[Case], Contender]] = CONTENDERS) -> str:
    """What one block costs: bytes outside products in block inputs (X), launches, what it keeps unless recomputed."""
    rows = []
    for name, build in contenders.items():
        for kind in ("double", "single"):
            full = count_block(build, case, kind)
            kept = count_block(build, replace(case, checkpointing="none"), kind)
            rest = full.rest_gb * 1e9 / input_bytes(case)
            rows.append((name, kind, f"{rest:.0f}", full.launches, f"{kept.kept_bytes / 2**20:.0f}"))
    return table(["contender", "block", "rest, X", "launches", "kept if nothing is recomputed, MiB"], rows)


def memory() -> str:
    """Forecast peak by configuration at 1024 px, batch 1, rank 16."""
    rows = []
    for meant in CONFIGURATIONS:
        held = hold(meant.configuration)
        cells = (held.weights, held.adapters, held.checkpoints, held.working, held.total, held.host, held.link)
        rows.append((f"{meant.card_gb} GB", meant.name, *(f"{cell:.2f}" for cell in cells)))
    head = ["card", "configuration", "weights", "adapters", "checkpoints", "working", "peak", "host", "PCIe a step"]
    return table(head, rows) + "\n\nGB of 1e9 bytes; the peak is with the context and what the allocator loses."


def forecasts(seed: int) -> str:
    """Forecast and traced allocations of training, over fixed and drawn configurations."""
    rows = []
    for configuration in (*FIXED, *drawn(seed, 30)):
        found = compare(configuration)
        rows.append((found.name, f"{found.forecast / 1e9:.3f}", f"{found.traced / 1e9:.3f}", f"{found.off:+.2%}"))
    return table(["configuration", "forecast, GB", "traced, GB", "difference"], rows)


def predictions(px: int) -> str:
    """Expected seconds a step by card: bf16 eager and with fused kernels, 8 bit, diffusers with peft."""
    case = Case(px=px)
    kept = replace(case, checkpointing="attention")
    rows = {
        "diffusers + peft, eager": (count_scaled(peft, case), False),
        "lean, eager": (count_scaled(lean, case), False),
        "lean, fused kernels": (count_scaled(fused, case), False),
        "lean, fused kernels, attention kept": (count_scaled(fused, kept), False),
        "the same, linears in 8 bit": (count_scaled(fused, kept), True),
    }
    cells = (
        (name, *(f"{seconds(counted, card, few):.2f}" for card in CARDS)) for name, (counted, few) in rows.items()
    )
    return table([f"{px} px", *CARDS], cells)


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--px", type=int, nargs="+", default=[512, 1024])
    parser.add_argument(
        "--forecast", type=int, metavar="SEED", help="the forecast beside the trace, and nothing else"
    )
    arguments = parser.parse_args()
    if arguments.forecast is not None:
        print(forecasts(arguments.forecast))
        return
    cases = [(f"FLUX.1-dev, {px} px", Case(px=px)) for px in arguments.px]
    cases.append(("small, 1152 tokens", Case(params=SMALL, px=SMALL_PX, text=SMALL_TEXT)))
    print("## A step, blocks checkpointed\n\n" + steps(cases) + "\n")
    print("## A block at 1024 px\n\n" + blocks(Case()) + "\n")
    print("## Memory\n\n" + memory() + "\n")
    print("## Expected seconds a step\n\n" + "\n\n".join(predictions(px) for px in arguments.px))


if __name__ == "__main__":
    main()

"""Trains the runs and writes what they measured and what the oracle says, one JSON file each.

``python -m tests.bench.sweet.record [NAME ...]``; about three minutes a run on one core.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from engine.config import RunConfig
from engine.events import CheckpointSaved, Measured, RunFailed, StepDone
from engine.lora.adapter import LoraSet, inject
from engine.lora.formats import load_lora
from engine.models.pocket.evaluate import load_pocket
from engine.run import Run
from tests.bench.sweet.oracle import Oracle
from tests.bench.sweet.runs import RUNS, SCORED, Spec, lay_out

RECORDED = Path(__file__).parent / "recorded"


def main() -> None:
    """Record the runs named on the command line, or all."""
    names = sys.argv[1:] or [spec.name for spec in RUNS]
    for spec in (spec for spec in RUNS if spec.name in names):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="lorakiln-sweet-") as folder:
            record = _record(spec, Path(folder))
        RECORDED.mkdir(exist_ok=True)
        (RECORDED / f"{spec.name}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"{spec.name}: {time.monotonic() - began:.0f} s", flush=True)


def _record(spec: Spec, folder: Path) -> dict[str, object]:
    config = lay_out(spec, folder)
    run = Run(config)
    run.start()
    run.join()
    events = [entry.event for entry in run.events.since(0)]
    failed = [event for event in events if isinstance(event, RunFailed)]
    if failed:
        raise SystemExit(f"{spec.name}: {failed[0]}")
    files = [Path(e.path) for e in events if isinstance(e, CheckpointSaved) and e.kind == "epoch"]
    worths = _judge(spec, config, files)
    return {
        "spec": asdict(spec),
        "measured": [asdict(event) for event in events if isinstance(event, Measured)],
        "epoch_losses": _epoch_losses(events),
        "oracle": worths,
    }


def _judge(spec: Spec, config: RunConfig, files: list[Path]) -> list[dict[str, float]]:
    """The base first, then every :data:`SCORED`-th file."""
    pocket = load_pocket()
    oracle = Oracle(pocket, spec.seed)
    worths = [asdict(oracle.worth())]
    lora: LoraSet | None = None
    for file in files[SCORED - 1 :: SCORED]:
        state, targets = load_lora(file)
        if lora is None:
            lora = inject(pocket.transformer, targets, config.lora, 0)
        lora.load_state(state)
        worths.append(asdict(oracle.worth()))
    return worths


def _epoch_losses(events: list[object]) -> list[float]:
    sums: dict[int, list[float]] = {}
    for event in events:
        if isinstance(event, StepDone):
            sums.setdefault(event.epoch, []).append(event.loss)
    return [sum(losses) / len(losses) for _, losses in sorted(sums.items())]


if __name__ == "__main__":
    main()

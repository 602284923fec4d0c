"""Which products of an 8-bit base run in 8 bit: measured on a run's first batch, then kept with the run.

A run that goes on must compute as it did before, so what was decided is read again and not measured twice; where it
cannot be read any more that is said. Pictures drawn from a run's LoRA are computed as the run computes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from engine.blocks.transformer import EAGER_FUNCTIONS, LeanFlux
from engine.errors import EngineError
from engine.events import EventLog, Log
from engine.files import RunFolder, atomic_write
from engine.memory.calibration import Decisions, calibrate, decide, decisions, in_words, packed_linears
from engine.memory.frozen import BlockWeights
from engine.memory.precision import Packed8
from engine.sealed import sealed, unsealed
from engine.text import safe_text
from engine.training.kit import Kit
from engine.training.lean import Lean
from engine.training.prepare import Stopped


def settle_products(kit: Kit, path: Path, events: EventLog, resumed: bool) -> None:
    """Put in force what ``path`` says; where it says nothing of this base, measure and write it.

    The main process reads or measures, the others take what it found.

    Args:
        resumed: whether the run has made steps already, so that measuring again may change its course.

    Raises:
        DiskError: it cannot be written.
        Stopped: in the other processes, when the main one could not measure.
    """
    if kit.lean.products.kind == "wide":
        return
    linears = _linears(kit.lean)
    decided: Decisions | None = None
    failed: EngineError | torch.OutOfMemoryError | None = None
    if kit.compute.is_main:
        try:
            decided = _decided(kit, linears, path, events, resumed)
        except (EngineError, torch.OutOfMemoryError) as err:
            failed = err
    decided = kit.compute.from_main(decided)
    if decided is None:
        raise failed or Stopped
    decide(linears, decided)


def take_products(lean: Lean, lora: Path | None) -> str:
    """Let products run as in the run whose folder ``lora`` lies in, and wide where nothing was measured.

    Returns:
        What was decided, in words; empty for a base without 8-bit products.
    """
    kind = lean.products.kind
    if kind == "wide":
        return ""
    linears = _linears(lean)
    decided, why = None, "no LoRA of a run is used"
    if lora is not None:
        path = RunFolder(lora.parent).products
        decided, reason = read_products(path, kind, linears)
        why = f"{safe_text(path, 400)} {reason}"
    if decided is None:
        decide(linears, dict.fromkeys(linears, (False, False)))
        return f"No product runs in 8 bit, since none was measured: {why}"
    decide(linears, decided)
    return f"{sum(map(sum, decided.values()))} of {2 * len(linears)} products of blocks run in 8 bit, as in the run"


def _linears(lean: Lean) -> dict[str, Packed8]:
    """All linears that can multiply in 8 bit."""
    blocks: list[BlockWeights] = []
    for block in range(lean.source.plan.blocks):
        # Let go of at once: there are fewer slots than streamed blocks. What a view of a slot reads changes then, but
        # all copies of a linear share what is decided, wherever they lie.
        with lean.source.use(block) as weights:
            blocks.append(weights)
    return packed_linears(blocks)


def _decided(kit: Kit, linears: dict[str, Packed8], path: Path, events: EventLog, resumed: bool) -> Decisions:
    """What ``path`` says, or else what the first batch says, written there."""
    kind = kit.lean.products.kind
    decided, why = read_products(path, kind, linears)
    if decided is not None:
        return decided
    if resumed:
        words = f"What runs in 8 bit is measured again, and the run's course may differ: {safe_text(path, 400)} {why}"
        events.append(Log("warning", words))
    with torch.random.fork_rng(), _eager(kit.transformer):
        seen = calibrate(linears, lambda: _first_batch(kit))
    kit.lora.zero_grad()
    events.append(Log("info", in_words(linears, seen)))
    decided = decisions(linears)
    write_products(path, kind, decided)
    return decided


@contextmanager
def _eager(transformer: LeanFlux) -> Iterator[None]:
    """Blocks as they are written: compiled code would have what looks on built in, and be made again after it."""
    functions, transformer.functions = transformer.functions, EAGER_FUNCTIONS
    try:
        yield
    finally:
        transformer.functions = functions


def _first_batch(kit: Kit) -> None:
    """Forward and backward of the run's first micro-batch."""
    order = kit.prepared.order
    turn = next(order.turns())
    loss, _ = kit.objective.loss(kit.objective.inputs(order.step(turn)[0], turn.step, 0))
    loss.backward()


def write_products(path: Path, kind: str, decided: Decisions) -> None:
    """Write down what was decided for a base of this kind.

    Raises:
        DiskError: it cannot be written.
    """
    atomic_write(path, sealed(json.dumps({"kind": kind, "linears": decided}, indent=1)))


def read_products(path: Path, kind: str, names: Collection[str]) -> tuple[Decisions | None, str]:
    """What was decided for the linears ``names`` of a base of this kind; or None and what is wrong with ``path``."""
    try:
        table = unsealed(path.read_bytes())
        found = str(table["kind"])
        decided = {str(name): _pair(pair) for name, pair in table["linears"].items()}
    except FileNotFoundError:
        return None, "is not there"
    except OSError as err:
        return None, f"cannot be read ({err.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, "is damaged"
    if found != kind:
        return None, f"is about {safe_text(found, 20)} products, these are {kind}"
    missing = [name for name in names if name not in decided]
    if missing:
        return None, f"is damaged: {len(missing)} of {len(names)} linears are not in it, {missing[0]} for one"
    return {name: decided[name] for name in names}, ""


def _pair(pair: list[object]) -> tuple[bool, bool]:
    forward, back = pair
    if not isinstance(forward, bool) or not isinstance(back, bool):
        raise TypeError(f"neither true nor false: {pair}")
    return forward, back

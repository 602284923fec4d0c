"""What a run does about a step that is not finite: once again, then without it, or an end with nothing broken saved.

Such a step has changed nothing, and neither have those launched after it (:mod:`engine.training.gate`). The loop goes
back to it. It is tried once more with the same data and draws: a fault of the hardware mostly comes once. If it is no
better it is left out, or the run stops, as the configuration says; too many stop it in any case. Where weights or the
optimizer's state are broken themselves, the newest sound state on the disk is taken up again.

Everything is written down in the run's folder with the step's pictures, captions and noise levels before it counts,
so that a resumed run leaves out what this one left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from engine.batches import Turn
from engine.config import RunConfig
from engine.errors import RunError
from engine.events import EventLog, Log, LossSpiked, StepBroken
from engine.files import disk_error, flush
from engine.sealed import sealed, unsealed
from engine.text import safe_text
from engine.training.checkpoint import Place
from engine.training.keeper import Keeper
from engine.training.ledger import SKIPS_WITHIN
from engine.training.nonfinite import Corrupted, Look, Micro, NonFinite, broken_tensors, examine, likely_cause
from engine.training.optimizer_state import optimizer_tensors
from engine.training.spikes import Spike


class Unmendable(RunError):
    """The run cannot go on; the ledger's place is that of the last good step, which can be saved."""


class Faults:
    """One run's faults and what was done about them.

    Args:
        config: the run's; ``faults`` in it decides.
        keeper: knows everything else: folder, kit, ledger and how to take up a state.
    """

    def __init__(self, config: RunConfig, keeper: Keeper, events: EventLog) -> None:
        self.config = config
        self.keeper = keeper
        self.kit = keeper.kit
        self.ledger = keeper.ledger
        self.events = events
        self.path = keeper.folder.faults
        compute = self.kit.compute
        self._left_out: set[int] = set(compute.from_main(read_skips(self.path) if compute.is_main else []))
        self._trying: Turn | None = None
        self._look: Look | None = None
        self._good: Place | None = None
        self._restored = False
        self.ledger.spiked = self._spiked

    def look_at(self, step: int) -> Look | None:
        """What watches ``step``, if it is one that is tried again."""
        if self._trying is None or self._trying.step != step:
            return None
        self._look = Look()
        return self._look

    def leave_out(self, turn: Turn) -> bool:
        """Leave a step out if that was decided, and say so; False if it is to be made.

        Raises:
            NonFinite: as :meth:`engine.training.ledger.Ledger.flush`.
        """
        if turn.step not in self._left_out:
            return False
        self.ledger.flush()
        place = self.ledger.place
        if place.step not in place.skipped:
            self._good = place
        self.ledger.skip(turn)
        text = f"Step {turn.step} is left out: weights and optimizer are as before it, its pictures count as seen"
        self.events.append(StepBroken(turn.step, turn.epoch, "skipped", text, names=self._names(turn)))
        return True

    def settle(self) -> None:
        """Say when a step that was tried again has gone well."""
        trying = self._trying
        if trying is None or self.ledger.told < trying.step:
            return
        self._trying = None
        often = "a fault that came once, of the hardware most likely"
        text = f"Step {trying.step} gave finite numbers the second time: {often}"
        self._write(trying, "passed", text, [], {})
        self.events.append(StepBroken(trying.step, trying.epoch, "passed", text))

    def mend(self, err: NonFinite | Corrupted) -> None:
        """Decide how the run goes on after ``err``; the loop then goes on after the ledger's place.

        Raises:
            Unmendable: it does not.
            RunError: it does not, and weights or optimizer are broken: nothing of them may be saved.
            DiskError: the fault could not be written down.
        """
        self.settle()
        if isinstance(err, Corrupted):
            self.kit.compute.free_unused()
            self._restore(None, str(err.detail))
            return
        turn, corrupted = err.turn, self._corrupted()
        look = self._look if self._trying == turn else None
        found = examine(self.kit, turn, look)
        cause = likely_cause(self.kit, found, corrupted, turn)
        told = f"Step {turn.step} is not finite (loss {err.loss:.4g}, gradient norm {err.grad_norm:.4g}): {cause}"
        record = {"loss": _plain(err.loss), "grad_norm": _plain(err.grad_norm), "not_finite": list(corrupted)}
        if corrupted:
            self._write(turn, "restored", cause, found, record)
            self._restore(turn, told)
        elif self._trying != turn:
            self._trying = turn
            self._write(turn, "again", cause, found, record)
            self._tell(err, "again", f"{told}. Nothing was changed; the same step is tried once more")
            self._forget_inputs()
        else:
            self._trying = None
            self._give_up(err, told, cause, found, record)

    def _give_up(self, err: NonFinite, told: str, cause: str, found: list[Micro], record: dict[str, Any]) -> None:
        """The step was no better the second time."""
        turn, place, faults = err.turn, self.ledger.place, self.config.faults
        recent = sum(step > turn.step - SKIPS_WITHIN for step in place.skipped) + 1
        if faults.on_nonfinite == "skip" and recent < faults.patience:
            self._write(turn, "skipped", cause, found, record)
            self._left_out.add(turn.step)
            self._tell(err, "found", f"{told}. It was no better the second time")
            return
        if self._good is not None and place.step in place.skipped:
            # Those left out just before have changed nothing: a resumed run may try them anew.
            place = self.ledger.place = replace(self._good, elapsed_s=place.elapsed_s)
        self._write(turn, "stopped", cause, found, record | {"back_to": place.step})
        self._tell(err, "stopped", f"{told}. It was no better the second time", place.step)
        often = f", the {_nth(recent)} such step within {SKIPS_WITHIN}" if recent > 1 else ""
        numbers = f"loss {err.loss}, gradient norm {err.grad_norm}, twice{often}"
        saved = f"The state of step {place.step} is saved and" if place.step else "Nothing was changed and"
        raise Unmendable(
            err.title,
            f"step {turn.step}: {numbers}, on {err.names}: {cause}",
            f"{saved} no broken LoRA was written; {safe_text(self.path, 400)} has the batch. "
            "Lower optimizer.learning_rate or mend what is named, then resume the run.",
        )

    def _restore(self, turn: Turn | None, told: str) -> None:
        """Take up the newest sound state on the disk.

        Raises:
            RunError: there is none, or this is the second time.
        """
        if self._restored or not self.keeper.restore():
            why = "it is the second time" if self._restored else "no sound state was saved yet"
            raise RunError(
                "The weights are no longer numbers",
                f"{told}; {why}",
                "Nothing broken was saved. Test the machine's memory and its GPU's, then resume the run."
                if self._restored
                else "Test the machine's memory and its GPU's, then start again.",
            )
        self._restored = True
        self._trying = None
        self._forget_inputs()
        back = self.ledger.place.step
        text = f"{told}. The run goes on from its saved state of step {back}; once more, and it stops"
        step, epoch = (turn.step, turn.epoch) if turn is not None else (back, self.ledger.place.epoch)
        self.events.append(StepBroken(step, epoch, "restored", safe_text(text, 2000), back_to=back))

    def _corrupted(self) -> tuple[str, ...]:
        """What is broken of weights and optimizer, in any process."""
        kit = self.kit
        parts = broken_tensors(kit.lora.weights, optimizer_tensors(kit.optimizer)[0])
        names = ("weights", "optimizer state")
        bad = kit.compute.sum(torch.tensor([float(name in parts) for name in names], device=kit.compute.device))
        return tuple(name for name, count in zip(names, bad.tolist(), strict=True) if count)

    def _forget_inputs(self) -> None:
        """Let everything that goes into a step be read and computed anew: what lies in memory may be what broke."""
        self.kit.objective.entries.forget()
        if self.kit.objective.modulations is not None:
            self.kit.objective.modulations.drop()

    def _spiked(self, spike: Spike) -> None:
        """Tell of losses that jumped, and keep a state from before."""
        kept = self.keeper.keep_before(spike.steps[0], f"the loss jumped at step {spike.steps[0]}")
        names = tuple(f"step {step}: {name}" for step, name in zip(spike.steps, spike.names, strict=True))
        text = (
            f"The loss jumped: {spike.loss:.4g} at step {spike.steps[-1]}, the third in a row far above the usual "
            f"{spike.usual:.4g} ({spike.score:.0f} times its spread), on {'; '.join(names)}"
        )
        text += f". The state of step {kept} is kept" if kept else ""
        step, loss = spike.steps[-1], spike.loss
        self.events.append(
            LossSpiked(
                step,
                loss,
                spike.usual,
                spike.score,
                tuple(safe_text(n, 500) for n in names),
                kept,
                safe_text(text, 1500),
            )
        )

    def _names(self, turn: Turn) -> str:
        return safe_text("; ".join(micro.names for micro in self.kit.prepared.order.step(turn)), 500)

    def _tell(self, err: NonFinite, action: str, text: str, back_to: int = 0) -> None:
        turn, text = err.turn, safe_text(text, 2000)
        if action == "found":
            self.events.append(Log("warning", text))
            return
        names = safe_text(err.names, 500)
        event = StepBroken(turn.step, turn.epoch, action, text, err.loss, err.grad_norm, names, back_to)
        self.events.append(event)

    def _write(self, turn: Turn, action: str, cause: str, found: Iterable[Micro], record: dict[str, Any]) -> None:
        """Append a line to the run's faults; returns when it is on the disk."""
        if not self.kit.compute.is_main:
            return
        micros = [
            asdict(micro) | {"loss": _plain(micro.loss), "sigmas": list(map(_plain, micro.sigmas))} for micro in found
        ]
        place = {"step": turn.step, "epoch": turn.epoch, "action": action, "cause": cause}
        line = sealed(json.dumps(place | record | {"micro_batches": micros}, ensure_ascii=True)) + "\n"
        try:
            with open(self.path, "ab+") as file:
                # A kill may have left the end of the last line off.
                torn = file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n"
                file.write((b"\n" if torn else b"") + line.encode("ascii"))
            flush(self.path)
        except OSError as err:
            raise disk_error(err, self.path) from err


def read_skips(path: Path) -> list[int]:
    """The steps that an earlier sitting left out; those before a stop are tried anew. Damaged lines are passed over.

    Raises:
        DiskError: the file stands there but cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as err:
        raise disk_error(err, path) from err
    skips: set[int] = set()
    for line in lines:
        try:
            record = unsealed(line)
            action, step, back_to = record["action"], record["step"], record.get("back_to", 0)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if not isinstance(step, int) or not isinstance(back_to, int):
            continue
        if action == "skipped":
            skips.add(step)
        elif action == "stopped":
            skips = {each for each in skips if each <= back_to}
    return sorted(skips)


def _plain(value: float | None) -> float | str | None:
    """A number as JSON has it; "nan", "inf" and "-inf" where it has none."""
    return value if value is None or math.isfinite(value) else str(value)


def _nth(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")

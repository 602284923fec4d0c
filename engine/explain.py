"""Errors that nobody expected, in a title, a detail and a hint: how a run that ended by one tells it.

Torch-free: torch's errors are known by their names and words.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from engine.files import RunFolder, disk_error
from engine.hardware.lost import chain, is_lost
from engine.training.generations import next_step

Told = tuple[str, str, str]
"""Title, detail and hint."""

_LOST = (
    (
        ("ECC", "uncorrectable"),
        "The GPU's memory is damaged",
        "it found a bit that it could not correct",
        "Reset the card or restart the machine; `nvidia-smi -q -d ECC,PAGE_RETIREMENT` counts such errors. If they "
        "come again the card wears out.",
    ),
    (
        ("device-side assert",),
        "The GPU stopped at a check in its own code",
        "an index or a value was out of range there: a defect of a kernel, or of the hardware",
        "Run it once more with CUDA_LAUNCH_BLOCKING=1 in the environment, which names the place, and report it.",
    ),
    (
        ("launch timed out",),
        "The GPU took too long over one piece of work",
        "the driver stops what keeps the display waiting",
        "Drive the display from another card, or lower dataset.resolution or training.batch_size.",
    ),
    (
        ("illegal", "misaligned", "unspecified launch failure", "EXECUTION_FAILED", "INTERNAL_ERROR"),
        "The GPU failed in the middle of its work",
        "it touched memory it may not: a defect of the driver or a kernel, or unstable hardware",
        "`dmesg | grep -i xid` has what the driver says. Take back overclocking, check power and heat; if it comes "
        "again with another driver, please report it.",
    ),
    (
        (
            "driver version",
            "system has unsupported",
            "initialization error",
            "system not yet initialized",
            "forward compat",
        ),
        "The GPU's driver does not answer as it should",
        "it was changed or restarted meanwhile, or is another one than its library",
        "Restart the machine, or reload the driver.",
    ),
    (
        ("",),
        "The GPU is lost",
        "the driver no longer reaches it",
        "`nvidia-smi` says whether it is back, `dmesg | grep -i xid` why it went. Mostly it is power, heat, its slot "
        "or the driver; restarting the machine brings it back.",
    ),
)
"""By words in what was said, the first that fits: title, what happened, what to do."""


def explain(err: BaseException, folder: RunFolder | None) -> Told:
    """Title, detail and hint for an exception that nobody expected."""
    kind, text = type(err).__name__, said(err)
    if is_lost(err):
        return _explain_lost(err, folder)
    if kind == "OutOfMemoryError":
        # Outside the steps and what else the ladder does again, or in one of several processes, where there is none.
        return (
            "The GPU is out of memory",
            text.split("\n")[0] + _tried(folder),
            'Set training.gradient_checkpointing = "full" and memory.precision = "int8", or lower '
            "dataset.resolution, training.batch_size or lora.rank.",
        )
    if isinstance(err, MemoryError):
        return (
            "The computer is out of memory",
            text or "an allocation in host memory was refused",
            "Close other programs, lower memory.blocks_to_swap, or use a smaller model file (fp8)." + _resume(folder),
        )
    if isinstance(err, OSError) and err.errno is not None:
        named = Path(os.fsdecode(err.filename)) if isinstance(err.filename, str | bytes) else None
        failed = disk_error(err, named or (folder.root if folder else Path.cwd()))
        return failed.title, failed.detail.replace("writing", "reading or writing", 1), failed.hint
    if isinstance(err, KeyboardInterrupt | SystemExit | GeneratorExit):
        detail = f"{kind} was raised in its thread: {text}" if text else f"{kind} was raised in its thread"
        return "The run was broken off", detail, _resume(folder).strip() or "Start it again."
    where = f"; the traceback is in {folder.log}" if folder else ""
    return f"Unexpected {kind}", text, f"This is a defect of lorakiln: please report it{where}.{_resume(folder)}"


def said(err: BaseException) -> str:
    """What an exception says; safe for those whose text cannot be made."""
    return str(traceback.TracebackException(type(err), err, None))


def _explain_lost(err: BaseException, folder: RunFolder | None) -> Told:
    lost = next(each for each in chain(err) if is_lost(each) and not is_lost(each.__cause__ or each.__context__))
    # The first line alone: below it torch names device-side assertions whatever happened.
    line = next((line.strip() for line in said(lost).splitlines() if line.strip()), type(lost).__name__)
    title, what, hint = next(told for words, *told in _LOST if any(word.lower() in line.lower() for word in words))
    again = _resume(folder) or " Then start the run again."
    return title, f"{what} ({line})", f"{hint} This process cannot use the card any more: leave it first.{again}"


def _resume(folder: RunFolder | None) -> str:
    """How to go on, in a sentence with a blank before it; nothing where there is nothing to go on with."""
    step = next_step(folder.states) - 1 if folder else 0
    return (
        f" The state of step {step} stands: `kiln resume {folder.root}` goes on from it." if folder and step else ""
    )


def _tried(folder: RunFolder | None) -> str:
    """What was changed before, in words for the end of a sentence."""
    from engine.memory.rungs import read_taken

    taken, _ = read_taken(folder.memory) if folder else ([], "")
    return "; changed before: " + "; ".join(map(str, taken)) if taken else "; no rung of memory.ladder helps there"

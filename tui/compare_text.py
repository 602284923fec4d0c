"""A comparison of runs as text for a terminal and as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tui.comparing import Compared, Comparison, shown
from tui.report import curves_plot
from tui.units import short_time, size

HEAD = ("", "RUN", "VERDICT", "RANGE", "BEST", "HELD-OUT", "DRIFT", "STEP", "PEAK", "LORA", "STATE")
FIGURES = {
    0: "rank", 2: "verdict", 3: "good epochs", 4: "best epoch", 5: "held-out loss", 6: "drift", 7: "time a step",
    8: "peak memory", 9: "LoRA file", 10: "state",
}  # fmt: skip
"""What the cells of :func:`row_of` but the name are called where there is room for more than :data:`HEAD`."""

MOST_CURVES = 6
"""More lines in one plot cannot be told apart."""

VALUE_CELLS = 28


def comparison_text(found: Comparison, width: int = 78, unicode: bool = True) -> str:
    """All of it: the table, what can be said of the best, settings that differ, curves."""
    parts = [aligned([HEAD, *map(row_of, found.runs)]), "\n".join(verdict_lines(found)), settings_text(found)]
    for title, points in (("over epochs", "by_epoch"), ("over steps", "by_step"), ("", "losses")):
        curves = {
            f"{number} {shown(run.name, 40)}": getattr(run, points)
            for number, run in enumerate(found.runs[:MOST_CURVES], start=1)
            if len(getattr(run, points)[0]) > 1
        }
        if curves and (title or not any(len(run.by_step[0]) > 1 for run in found.runs)):
            heading = f"Held-out loss {title}" if title else "Smoothed training loss"
            axis = "epoch" if points == "by_epoch" else "step"
            parts.append(f"{heading}\n{curves_plot(curves, width, 16, unicode, axis=axis)}")
    return "\n\n".join(part for part in parts if part)


def row_of(run: Compared) -> tuple[str, ...]:
    """One run's figures in the order of :data:`HEAD`."""
    span = f"{run.first}-{run.last}" if run.best else "-"
    return (
        rank_of(run),
        shown(run.name, 40),
        run.verdict or "-",
        span,
        str(run.best or "-"),
        "-" if run.held_out is None else f"{run.held_out:.4f}",
        "-" if run.drift is None else f"{100 * run.drift:.2f} %",
        "-" if run.step_s is None else short_time(run.step_s),
        "-" if run.peak_gb is None else f"{run.peak_gb:.1f} GB",
        size(run.lora_bytes) if run.lora_bytes else "-",
        run.state,
    )


def rank_of(run: Compared) -> str:
    """The rank, with a letter for its group from the second on."""
    if not run.rank:
        return "-"
    return f"{run.rank}{chr(ord('a') + min(run.group, 25)) if run.group else ''}"


def verdict_lines(found: Comparison) -> list[str]:
    """Which run is best, in words, and what cannot be compared and why."""
    lines = []
    for run in found.winners:
        rivals = sum(one.group == run.group for one in found.runs)
        at = f"at epoch {run.best}" if run.best else "at its lowest, no range is advised yet"
        lines.append(f"Best of {rivals}: {shown(run.name)}, held-out loss {run.held_out:.4f} {at}.")
    if not lines:
        lines.append("No two of these runs can be ranked by held-out loss.")
    return lines + [f"{line}." for line in found.apart]


def settings_text(found: Comparison) -> str:
    """A table of the settings that differ."""
    if not found.differing:
        return "No setting differs."
    head = ("SETTING", *(shown(run.name, VALUE_CELLS) for run in found.runs))
    rows = [(name, *map(_short, values)) for name, values in found.differing.items()]
    return aligned([head, *rows])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Plain values: the runs in their order, the settings that differ, what cannot be compared."""
    return {
        "runs": [_plain(run) for run in found.runs],
        "settings": {name: list(values) for name, values in found.differing.items()},
        "best": [run.name for run in found.winners],
        "apart": list(found.apart),
    }


def _plain(run: Compared) -> dict[str, Any]:
    names = (
        "name", "state", "group", "rank", "verdict", "first", "last", "best", "held_out", "drift",
        "step_s", "peak_gb", "lora_bytes",
    )  # fmt: skip
    curves = {"epochs": run.by_epoch[0], "steps": run.by_step[0], "held_out_losses": run.by_step[1]}
    losses = {"loss_steps": run.losses[0], "losses": run.losses[1]}
    plain: dict[str, Any] = {name: _finite(getattr(run, name)) for name in names} | {"folder": str(run.folder)}
    return plain | {name: list(map(_finite, values)) for name, values in (curves | losses).items()}


def _finite(value: Any) -> Any:
    """JSON has no infinity, and none is a figure."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: str) -> str:
    """The end of a value says more than its beginning: of paths it is the file."""
    return value if len(value) <= VALUE_CELLS else "..." + value[-(VALUE_CELLS - 3) :]

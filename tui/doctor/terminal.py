"""What the terminal can show: characters, colours, pictures, size."""

from __future__ import annotations

from tui.doctor.finding import Finding
from tui.terminal.traits import Traits

LEAST_COLUMNS, LEAST_ROWS = 80, 24


def terminal_findings(traits: Traits | None, answered: bool) -> list[Finding]:
    """Findings on the terminal.

    Args:
        traits: None where output goes to no terminal.
        answered: the terminal was asked and answered; else its environment alone is known.
    """
    if traits is None:
        return [Finding("terminal", "terminal", "ok", "none here, so nothing is known of it")]
    if traits.term in ("", "dumb"):
        return [
            Finding(
                "terminal", "terminal", "warn", f"TERM is {traits.term!a}: it cannot move its cursor",
                "The full screen cannot open.",
                "Use another terminal; `kiln train RUN.toml` needs no more than lines.",
            )
        ]  # fmt: skip
    found = [_characters(traits), _colours(traits), _pictures(traits, answered), _size(traits)]
    return [*found, _distance(traits)] if traits.slow else found


def _characters(traits: Traits) -> Finding:
    if not traits.ascii:
        return Finding("terminal", "characters", "ok", "UTF-8")
    why = "Plots and frames are drawn in plain ASCII."
    if traits.utf8:
        return Finding("terminal", "characters", "warn", "the bare Linux console", why, "Use a terminal window.")
    return Finding(
        "terminal", "characters", "warn", "the locale is not UTF-8", why, "Set LANG, to C.UTF-8 for example."
    )


def _colours(traits: Traits) -> Finding:
    if traits.no_color:
        return Finding("terminal", "colours", "ok", "none, as NO_COLOR asks")
    if traits.colorterm in ("truecolor", "24bit"):
        return Finding("terminal", "colours", "ok", "16 million")
    if "256" in traits.term:
        what = "256; COLORTERM does not tell of more"
        return Finding("terminal", "colours", "ok", what, "Pictures are coarser than with 16 million.")
    return Finding(
        "terminal", "colours", "warn", f"few: TERM is {traits.term!a}", "Pictures are hard to make out.",
        "Set COLORTERM=truecolor if the terminal can show it.",
    )  # fmt: skip


def _pictures(traits: Traits, answered: bool) -> Finding:
    if traits.images:
        return Finding("terminal", "pictures", "ok", f"as pixels, by the {traits.images} protocol")
    if traits.multiplexer:
        return Finding(
            "terminal", "pictures", "ok", "as coloured cells", "tmux and screen let no picture protocol through."
        )
    told = "" if answered else "it was not asked, or did not answer; "
    return Finding("terminal", "pictures", "ok", f"{told}as coloured cells")


def _size(traits: Traits) -> Finding:
    what = f"{traits.columns} columns, {traits.rows} rows"
    if traits.columns >= LEAST_COLUMNS and traits.rows >= LEAST_ROWS:
        return Finding("terminal", "size", "ok", what)
    return Finding(
        "terminal", "size", "warn", what, "The workstation shows less than it could.",
        f"Make the window at least {LEAST_COLUMNS} by {LEAST_ROWS}.",
    )  # fmt: skip


def _distance(traits: Traits) -> Finding:
    trip = f"{traits.round_trip_ms:.0f} ms there and back" if traits.round_trip_ms else "answer time unknown"
    what = f"over SSH, {trip}" if traits.ssh else trip
    return Finding("terminal", "link", "ok", what, "Fewer frames are drawn; a dropped link does not end a run.")

"""What some events are in words, for the log of a :class:`~tui.view.RunView`."""

from __future__ import annotations

from pathlib import PurePath

from engine.events import CaptionsTaken, Foreseen, Probed
from tui.units import short_time

NEARLY_FULL_GB = 0.3
"""A probe that leaves less of the card is worth a warning: what others take in a moment would be missing."""


def comparison(probed: Probed, foreseen: Foreseen) -> str:
    """What the probe of the largest bucket measured, against its forecast."""
    total = f" of {probed.total_gb:.1f}" if probed.total_gb else ""
    words = f"probe of {probed.width}x{probed.height}: peak {probed.peak_gb:.1f}{total} GB"
    pace = f"{short_time(probed.step_s)} a step"
    if not foreseen.peak_gb and not foreseen.step_s:
        return f"{words}, {pace}; no forecast: {foreseen.basis}"
    if foreseen.peak_gb:
        words += f", forecast {foreseen.peak_gb:.1f} ({probed.peak_gb / foreseen.peak_gb - 1:+.1%})"
    if foreseen.step_s:
        pace += f", forecast {short_time(foreseen.step_s)} ({probed.step_s / foreseen.step_s - 1:+.0%})"
    return f"{words}; {pace}" + (f"; forecast by {foreseen.basis}" if foreseen.basis else "")


def taken_words(event: CaptionsTaken) -> str:
    """Which captions count from which epoch on, in a line."""
    shown = ", ".join(PurePath(name).name for name in event.names[:3])
    more = f" and {len(event.names) - 3} more" if len(event.names) > 3 else ""
    counts = "caption counts" if len(event.names) == 1 else "captions count"
    return f"edited {counts} from epoch {event.epoch}: {shown}{more}"

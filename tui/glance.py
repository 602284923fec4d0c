"""The view of a run as far as lists of runs show it, from a long event file in little time.

Nearly all lines are steps and samples of memory. Of a step a list needs its place and its loss, of a sample only when
it was: both are taken from lines whose seal holds, which are as a run wrote them. Every other line is read as
:func:`engine.events.replay` reads it. What a list shows is the same as in the whole view.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from pathlib import Path

from engine.events import LONGEST_LINE, StepDone, entry_from_json
from engine.files import open_to_read
from tui.courses import SMOOTHINGS, Courses, Smoothed
from tui.view import RunView, fold, spend

_PLAIN = re.compile(
    rb'\{"seq": (\d{1,15}), "time": (\d{1,12}(?:\.\d{1,3})?), "type": "(?:MemorySampled", "|StepDone", '
    rb'"step": (\d{1,15}), "epoch": (\d{1,15}), "loss": (-?\d{1,15}(?:\.\d+)?(?:e-\d+)?|NaN|-?Infinity), ")'
)
_SEAL = b', "crc32": "'
_NUMBER = re.compile(rb'[0-9a-f]{8}"\}\n')


def glance(path: Path) -> RunView:
    """The view of an event file with what a list shows: of the steps, only places and losses.

    Raises:
        OSError: the file cannot be read.
    """
    view, stepped = RunView(), False
    with open_to_read(path) as file:
        while line := file.readline(LONGEST_LINE):  # pieces of a longer one are no events
            plain = _PLAIN.match(line)
            if plain is None or not _holds(line):
                _fold_whole(view, line, stepped)
                stepped = False
                continue
            seq, at, step, epoch, loss = plain.groups()
            spend(view, float(at))
            view.seq = int(seq)
            if step is not None:
                stepped = True
                view.step, view.epoch, view.stage = int(step), int(epoch), ""
                view.courses.step.append(view.step)
                view.courses.loss.append(float(loss))
    _smooth(view.courses)
    return view


def _fold_whole(view: RunView, line: bytes, stepped: bool) -> None:
    """Fold a line that may say anything; ``stepped``: a step came before it, and was not folded whole."""
    if stepped:  # where it goes back, it matters where the run stood
        view.last_step = StepDone(view.step, view.epoch, view.courses.loss[-1], *(0.0,) * 6)
    with contextlib.suppress(ValueError):
        fold(view, entry_from_json(line.decode("utf-8", "replace")))


def _smooth(courses: Courses) -> None:
    """The one smoothed course that lists show, made from all losses."""
    shown = Smoothed(SMOOTHINGS[0])
    for loss in courses.loss:
        shown.add(loss)
    courses.smoothed = (shown,)


def _holds(line: bytes) -> bool:
    """Whether a line bears its checksum (:func:`engine.sealed.sealed`), and it is right."""
    seal, number = line[-23:-11], line[-11:]
    return seal == _SEAL and _NUMBER.fullmatch(number) is not None and zlib.crc32(line[:-23]) == int(number[:8], 16)

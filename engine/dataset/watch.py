"""Which captions and notes changed since they were last looked at; asked between epochs, for thousands at once.

A file is read only if its place, size or times changed. What cannot be read, or is gone, changes nothing: the picture
keeps the text it has, and the reason is told.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.dataset.captions import read_caption
from engine.dataset.edits import caption_places
from engine.dataset.scan import Sample
from engine.dataset.sidecar import SIDECAR_NAME, PictureNotes, load_sidecar
from engine.errors import DatasetError

UNSETTLED_NS = 2 * 10**9
"""A file changed this short ago may change again within one tick of the file system's clock: it is read again."""

Mark = tuple[str, int, int, int, int]
"""Path, inode, size, mtime and ctime of a caption file: equal means unchanged."""


@dataclass
class Changes:
    """What a look found: new texts by the sample's index, and lines for the log."""

    texts: dict[int, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


class NotesWatch:
    """Looks whether what the sidecar files of ``folders`` say of pictures is as it was when this was made.

    Exclusion, repeats and crop decide what a run's order and caches were made of: changed while it is live, they
    count from its next start, and that is said.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._known: dict[Path, tuple[object, Mapping[str, PictureNotes]]] = dict.fromkeys(folders, (None, {}))
        self.look()

    def look(self) -> list[str]:
        """What changed since the last look, in a line for each folder."""
        lines = []
        for folder, (mark, before) in self._known.items():
            now_mark = _mark([str(folder / SIDECAR_NAME)], "")
            if now_mark == mark:
                continue
            now = before
            try:
                now = load_sidecar(folder).pictures
            except DatasetError as err:
                lines.append(f"{err.title}: {err.detail}; the run goes on with what they said")
            self._known[folder] = now_mark, now
            changed = [
                f"{name} ({kinds})"
                for name in sorted(before.keys() | now.keys())
                if (kinds := _differences(before.get(name), now.get(name)))
            ]
            if changed:
                shown = ", ".join(changed[:3]) + (" ..." if len(changed) > 3 else "")
                lines.append(f"Notes changed count from the run's next start: {shown} ({len(changed)})")
        return lines


def _differences(before: PictureNotes | None, now: PictureNotes | None) -> str:
    """Which notes that a run is made of differ, in words."""
    one, other = before or PictureNotes(), now or PictureNotes()
    kinds = {"exclude": "exclusion", "repeats": "repeats", "crop": "crop"}
    return ", ".join(word for kind, word in kinds.items() if getattr(one, kind) != getattr(other, kind))


class CaptionWatch:
    """Looks after the caption files of ``samples``; the first look reads them all."""

    def __init__(self, samples: Iterable[Sample], extensions: Sequence[str]) -> None:
        self._places = [(sample, _places(sample, extensions)) for sample in samples]
        self._marks: dict[int, Mark | None] = {}

    def look(self, text_of: Callable[[Sample], str]) -> Changes:
        """Compare every file that changed since the last look with the text its picture has now."""
        found = Changes()
        settled = time.time_ns() - UNSETTLED_NS
        for sample, places in self._places:
            mark = _mark(places, str(sample.caption_path))
            if sample.index in self._marks and self._marks[sample.index] == mark:
                continue
            self._compare(sample, mark, text_of(sample), found)
            if mark is None or max(mark[3:]) < settled:
                self._marks[sample.index] = mark
            else:
                self.forget([sample.index])
        return found

    def forget(self, indices: Iterable[int]) -> None:
        """Read these samples' files again at the next look."""
        for index in indices:
            self._marks.pop(index, None)

    def _compare(self, sample: Sample, mark: Mark | None, now: str, found: Changes) -> None:
        if mark is None:
            if now and sample.caption_path is not None:
                found.remarks.append(f"{sample.name}: its caption file is gone; it keeps the text it had")
            return
        try:
            text = read_caption(Path(mark[0]))
        except DatasetError as err:
            found.remarks.append(f"{sample.name}: {err.title}: {err.detail}; it keeps the text it had")
            return
        if text == now:
            return
        found.texts[sample.index] = text
        if not text:
            found.remarks.append(f"{sample.name}: its caption is empty now")


def _places(sample: Sample, extensions: Sequence[str]) -> list[str]:
    """Where the caption may stand, best first; the place found by the scan may be spelled in another way."""
    places = [str(path) for path in caption_places(sample.path, extensions)]
    own = sample.caption_path
    if own is not None and str(own) not in places:
        ending = own.suffix.lower()
        ranks = [at for at, place in enumerate(places, start=1) if os.path.splitext(place)[1] == ending]
        places.insert(ranks[0] if ranks else len(places), str(own))
    return places


def _mark(places: list[str], scanned: str) -> Mark | None:
    for place in places:
        try:
            # A new link may lead anywhere; the one that the scan found, it has looked where to.
            found = os.stat(place, follow_symlinks=place == scanned)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(found.st_mode):
            return (place, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return None

"""Problems put together by their kind: what is said once of many pictures, the worst first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.dataset.problems import Fix, Problem, Severity

_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}

TITLES = {
    "animated": "Several frames or pages",
    "apart": "Stand apart from the set",
    "blurred": "Blurred against the rest of the set",
    "border": "Bars of one colour at the edges",
    "bucket": "Too small for any bucket",
    "caption": "Captions that cannot be read",
    "clip-overflow": "Captions longer than CLIP reads",
    "cmyk": "Colours are inks (CMYK)",
    "copy": "The same picture twice, byte by byte",
    "cropped": "Much is lost to the crop",
    "empty-caption": "Empty captions",
    "empty-folder": "Folders without pictures",
    "enlarged": "Too small for the resolution",
    "exif": "Damaged EXIF data",
    "held-out-copy": "Also among the held-out pictures",
    "jpeg-blocks": "Heavy JPEG blocks",
    "link-outside": "Links that lead out of the folder",
    "near-copy": "Nearly the same picture twice",
    "no-caption": "No caption",
    "odd-shape": "Odd shapes",
    "orphan-caption": "Captions without a picture",
    "picture": "Pictures that cannot be read",
    "same-file": "One file under two names",
    "same-stem": "Two pictures would share one caption",
    "small-bucket": "Buckets smaller than a batch",
    "t5-overflow": "Captions longer than T5 reads",
    "transparent": "Transparent pictures",
    "turned": "Turned by their EXIF data",
    "unsupported": "Kinds of files that cannot be trained on",
}
"""What a kind of problem is called where several are told together; the others are told by their own message."""


@dataclass(frozen=True)
class Finding:
    """All problems of one kind. ``fix`` is what can be done about those that have it."""

    code: str
    severity: Severity
    title: str
    problems: tuple[Problem, ...]

    @property
    def fix(self) -> Fix:
        """What can be done about some of them at once; empty for nothing."""
        return next((each.fix for each in self.problems if each.fix), "")

    @property
    def hints(self) -> tuple[str, ...]:
        """What to do, each said once."""
        return tuple(dict.fromkeys(each.hint for each in self.problems if each.hint))


def grouped(problems: Iterable[Problem]) -> tuple[Finding, ...]:
    """Problems by severity and kind; errors first, then what most pictures have."""
    by_kind: dict[tuple[Severity, str], list[Problem]] = {}
    for found in problems:
        by_kind.setdefault((found.severity, found.code), []).append(found)
    findings = [
        Finding(code, severity, TITLES.get(code, found[0].message), tuple(found))
        for (severity, code), found in by_kind.items()
    ]
    return tuple(sorted(findings, key=lambda each: (_ORDER[each.severity], -len(each.problems))))

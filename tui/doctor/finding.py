"""A line of the doctor's report: what was found, how it is judged, why, and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from engine.text import safe_text
from tui.glyphs import Glyphs

Verdict = Literal["ok", "warn", "bad"]

WIDTH = 80
_SUBJECT = 13
_INDENT = " " * (2 + len("! warn") + 2 + _SUBJECT + 2)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: "software", "graphics", "host", "disk" or "terminal".
        subject: what was looked at, in a word or two.
        verdict: "bad" keeps runs from working, "warn" costs speed, memory or comfort.
        what: what was found.
        why: what that means for a run; may be empty where all is well.
        do: what to do about it; never empty where it is not.
    """

    area: str
    subject: str
    verdict: Verdict
    what: str
    why: str = ""
    do: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, cleaned of what a terminal would obey."""
        return {key: safe_text(value) for key, value in asdict(self).items()}


def worst(findings: Sequence[Finding]) -> Verdict:
    """The verdict over all."""
    verdicts = {finding.verdict for finding in findings}
    return "bad" if "bad" in verdicts else "warn" if "warn" in verdicts else "ok"


def text_of(findings: Sequence[Finding], glyphs: Glyphs) -> str:
    """The report in lines of at most 80 columns: sign and word, subject, what was found; reason and remedy below."""
    lines: list[str] = []
    for area in dict.fromkeys(finding.area for finding in findings):
        lines += ["", area.capitalize()]
        for finding in findings:
            if finding.area == area:
                lines += _lines(finding, glyphs)
    return "\n".join([*lines[1:], "", summary(findings)])


def summary(findings: Sequence[Finding]) -> str:
    """One line: how many problems and warnings there are."""
    bad = sum(finding.verdict == "bad" for finding in findings)
    warn = sum(finding.verdict == "warn" for finding in findings)
    if not bad and not warn:
        return "All is well."
    counted = [f"{count} {name}{'s' * (count > 1)}" for count, name in ((bad, "problem"), (warn, "warning")) if count]
    return f"{' and '.join(counted)}{'' if bad else '; nothing that keeps a run from working'}."


def _lines(finding: Finding, glyphs: Glyphs) -> list[str]:
    sign = {"ok": glyphs.done, "warn": glyphs.warning, "bad": glyphs.error}[finding.verdict]
    subject = safe_text(finding.subject, _SUBJECT)
    head = f"  {sign} {finding.verdict:4}  {subject:{_SUBJECT}}  "
    lines = _wrapped(finding.what, head)
    if finding.why:
        lines += _wrapped(finding.why, _INDENT)
    if finding.do:
        lines += _wrapped(finding.do, f"{_INDENT}{glyphs.arrow} ")
    return lines


def _wrapped(text: str, head: str) -> list[str]:
    return textwrap.wrap(
        safe_text(text), WIDTH, initial_indent=head, subsequent_indent=" " * max(len(_INDENT), len(head)),
        break_on_hyphens=False,
    )  # fmt: skip

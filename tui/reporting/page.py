"""A page: its head with the policy that nothing comes from outside, and the sections of one run."""

from __future__ import annotations

from tui.reporting import curves, sections, summary
from tui.reporting.facts import RunFacts
from tui.reporting.grid import Cells, column_id, grid
from tui.reporting.looks import STYLE
from tui.reporting.markup import Markup, element, joined
from tui.reporting.pictures import Key, Pictures
from tui.reporting.settings_table import settings
from tui.reporting.zoom import dialog, script, script_hash
from tui.units import size

MARKER = b'name="generator" content="lorakiln report"'
"""What a page says that it was made by: such a file may be written over by the next."""

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{script}'; base-uri 'none'; "
    "form-action 'none'"
)
"""The browser's own guard: were there a way past the escaping, it would still load and run nothing."""

NAMES = {
    "pictures": "Pictures", "epochs": "Epochs", "curves": "Curves", "usage": "How to use it", "dataset": "Dataset",
    "settings": "Settings", "machine": "Machine and time", "faults": "Faults",
}  # fmt: skip
"""Sections to jump to, by their ids."""


def run_page(facts: RunFacts, pictures: Pictures, refused: dict[Key, str]) -> str:
    """The whole page of one run."""
    parts = {
        "pictures": grid(facts, Cells(pictures, refused)),
        "epochs": sections.epochs(facts),
        "curves": curves.curves(facts),
        "usage": summary.usage(facts),
        "dataset": sections.dataset(facts),
        "settings": settings(facts.config, facts.shorten),
        "machine": sections.machine(facts),
        "faults": sections.faults(facts),
    }
    said = picture_words(pictures)
    return document(
        f"{facts.name}: lorakiln report",
        summary.head(facts),
        jumps(_advised(facts) | {id_: NAMES[id_] for id_, part in parts.items() if part}),
        element("main", *parts.values()),
        sections.about([facts], said),
    )


def _advised(facts: RunFacts) -> dict[str, str]:
    """A link to the pictures of the first recommended epoch that has any, at a run's many epochs."""
    shown = next((epoch for epoch in facts.epochs if facts.is_advised(epoch)), None)
    return {column_id(shown): "Recommended epochs"} if shown is not None else {}


def jumps(names: dict[str, str]) -> Markup:
    """Links to the sections."""
    links = [element("li", element("a", words, href=f"#{id_}")) for id_, words in names.items()]
    return element("nav", element("ul", *links), aria_label="sections")


def document(title: str, *body: Markup) -> str:
    """A whole document: nothing in it refers to anything outside of it."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        # The policy is ours; its quotes are escaped as an attribute's are.
        element("meta", http_equiv="Content-Security-Policy", content=POLICY.format(script=script_hash())),
        element("meta", name="generator", content="lorakiln report"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    inside = joined((*body, dialog(), script()), Markup("\n"))
    return f"<!DOCTYPE html>\n{element('html', head, element('body', inside), lang='en')}\n"


def picture_words(pictures: Pictures) -> list[str]:
    """What of the pictures is in the page, and what is not."""
    words: list[str] = []
    if pictures.made:
        words.append(
            f"Its {_count(len(pictures.made))} take {size(pictures.size)}, at most {pictures.side} pixels a side; "
            "the files themselves lie in the run's folder."
        )
    if pictures.left_out:
        words.append(f"{_count(len(pictures.left_out))} were left out for want of room: --max-mb makes more.")
    if pictures.failed:
        words.append(f"{_count(len(pictures.failed))} could not be read.")
    return words


def _count(number: int) -> str:
    return "1 picture" if number == 1 else f"{number} pictures"

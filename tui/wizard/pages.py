"""The wizard's pages as data: what each asks, in which fields, and whether it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from profiles.schema import Fit
from tui.setup.fields import FIELDS as FORM_FIELDS
from tui.setup.fields import FILES, SLOTS, Field
from tui.setup.notes import Note
from tui.wizard import answers, suitability

State = Literal["done", "mend", "open"]
"""done: nothing is left to do there; mend: something is wrong; open: not answered or not known yet."""


@dataclass(frozen=True)
class Page:
    """One page. ``fields`` are ids, of the form or of the wizard's own."""

    id: str
    title: str
    lead: str
    fields: tuple[str, ...]


PAGES: tuple[Page, ...] = (
    Page(
        "lora", "LoRA?",
        "A LoRA is a small file that teaches FLUX.1 one thing it does not know: a face, a style, an object. "
        "Is it the right thing here? Three questions; page down skips them.",
        ("want", "count", "tried"),
    ),
    Page(
        "model", "Model",
        "What is it trained on? FLUX.1-dev for pictures that count; the pocket model to try everything in a minute.",
        ("base", *SLOTS),
    ),
    Page(
        "dataset", "Dataset",
        "Which pictures? Each has a text file of its name that says what is on it.",
        ("folder", "repeats", "class_folder", "trigger"),
    ),
    Page(
        "goal", "Goal",
        "What is to be learned? A recipe fills in the numbers; each can be changed.",
        ("preset", "resolution", "rank", "alpha", "rate", "schedule", "epochs", "save_every", "sample_every",
         "prompts"),
    ),
    Page(
        "fit", "Fit",
        "What this machine can hold. Change anything: the rest adapts to it.",
        ("place", "aim", "leave", "done", "nf4"),
    ),
    Page("review", "Review", "All together. Nothing is written or begun before you say so.",
         ("name", "runs_dir", "price")),
)  # fmt: skip

FIELDS: dict[str, Field] = {
    field.id: field
    for page in PAGES
    for name in page.fields
    for field in (*FORM_FIELDS.values(), *suitability.FIELDS, *answers.FIELDS)
    if field.id == name
}
"""Every field of the wizard by its id, in the order of the pages."""

ANSWERS = frozenset(answers.DEFAULTS)
"""Fields whose values are the wizard's own, not the form's."""


ADVICE = frozenset(field.id for field in suitability.FIELDS)
"""Answers that may lead away, but never stand in the way."""


def page_of(name: str) -> int:
    """The number of the page that has a field."""
    return next(number for number, page in enumerate(PAGES) if name in page.fields)


def number_of(name: str) -> int:
    """The number of the page that is called so; the first where there is none."""
    return next((number for number, page in enumerate(PAGES) if page.id == name), 0)


def states(
    notes: Mapping[str, Note], values: Mapping[str, str], busy: bool, fit: Fit | None, ready: bool
) -> tuple[State, ...]:
    """How it stands with each page."""
    found: list[State] = []
    for page in PAGES:
        bad = any(notes.get(name, Note("")).kind == "bad" for name in page.fields)
        if bad or (page.id == "fit" and fit is not None and not fit.fits):
            found.append("mend")
        elif page.id == "lora":
            found.append("done" if values.get("want") else "open")
        elif page.id == "fit":
            found.append("open" if fit is None else "done")
        elif page.id == "review":
            found.append("done" if ready and fit is not None else "open")
        else:
            found.append("open" if busy or _undecided(page, notes, values) else "done")
    return tuple(found)


def _undecided(page: Page, notes: Mapping[str, Note], values: Mapping[str, str]) -> bool:
    """Whether the files or pictures of a page have not been looked at."""
    if page.id == "model":
        return values["base"] == FILES and any(slot not in notes for slot in SLOTS)
    return page.id == "dataset" and notes.get("folder", Note("")).kind != "good"


def missing(notes: Mapping[str, Note]) -> str:
    """Why nothing can be forecast yet, in words; "" where nothing does. Model files need not be there for it."""
    wrong = [name for name in FIELDS if notes.get(name, Note("")).kind == "bad"]
    bad = [name for name in wrong if name not in ADVICE and name not in SLOTS]
    if not bad:
        return ""
    pages = list(dict.fromkeys(PAGES[page_of(name)].title.lower() for name in bad))
    return f"known once {' and '.join(pages)} {'is' if len(pages) == 1 else 'are'} right"

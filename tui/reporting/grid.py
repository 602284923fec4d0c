"""The pictures of a run side by side: prompts down, epochs across, the dataset's own and the base model first."""

from __future__ import annotations

from collections.abc import Sequence

from tui.epochs import Prompt
from tui.reporting.facts import RunFacts
from tui.reporting.markup import Markup, element, joined, section
from tui.reporting.pictures import Key, Pictures
from tui.reporting.plan import has_strengths, own_key, sample_key, strength_key

WORDS_LIMIT = 3000
"""Characters of a prompt beside its pictures: the page shows a few lines, and all of it with the enlarged one."""

ALT_LIMIT = 80

OWN = "from the dataset"


def epoch_name(epoch: int) -> str:
    """What an epoch is called."""
    return "base model" if epoch == 0 else f"epoch {epoch}"


class Cells:
    """Makes the cells of a grid.

    Args:
        pictures: what is in the page.
        refused: why some were not asked for, by key.
    """

    def __init__(self, pictures: Pictures, refused: dict[Key, str]) -> None:
        self._pictures = pictures
        self._refused = refused

    def cell(self, key: Key, words: str, label: str, class_: str | None = None, remark: str = "") -> Markup:
        """A picture to enlarge, with ``words`` on what it is, or why there is none; ``label`` is for paper, a
        ``remark`` stands below it."""
        picture = self._pictures.made.get(key)
        if picture is not None:
            image = element(
                "img", src=picture.uri, alt=words, width=picture.width, height=picture.height,
                loading="lazy", decoding="async", class_="tiny" if picture.is_tiny else None,
            )  # fmt: skip
            inside: object = element("button", image, type="button", class_="shot")
        elif key in self._pictures.left_out:
            inside = element("span", "left out: no room", class_="none")
        elif (why := self._pictures.failed.get(key) or self._refused.get(key)) is not None:
            inside = element("span", why, class_="none bad")
        else:
            inside = element("span", "–", class_="none", aria_label="no picture")
        below = element("small", remark) if remark else ""
        return element("td", inside, below, class_=class_, data_label=label)


def grid(facts: RunFacts, cells: Cells, run: int = 0) -> Markup:
    """The section with the grid at full strength, and below it those at others."""
    main = facts.main_strength
    hint = element(
        "p",
        "Click a picture to enlarge it; then the arrow keys walk along epochs and prompts, and esc closes it.",
        class_="hint screen-only",
    )
    if not facts.grid:
        return section("Pictures", element("p", "No sample pictures were drawn in this run."), id_="pictures")
    several = [epoch for epoch in facts.epochs if has_strengths(facts, epoch)]
    titled = element("h3", f"At strength {main:g}") if several or main != 1.0 else ""
    more = [_strengths(facts, cells, run, epoch, facts.strengths) for epoch in several]
    return section("Pictures", hint, titled, _grid(facts, cells, run, main), *more, id_="pictures")


def heads(facts: RunFacts, epochs: Sequence[int]) -> list[Markup]:
    """Column headings: each epoch with what distinguishes it, in words and not by colour alone."""
    found = []
    for epoch in epochs:
        words = [element("span", badge, class_="badge") for badge in badges(facts, epoch)]
        marks = element("div", joined(words, " "), class_="marks") if words else ""
        looks = column_class(facts, epoch)
        found.append(element("th", epoch_name(epoch), marks, scope="col", class_=looks, id=column_id(epoch)))
    return found


def column_id(epoch: int) -> str:
    """By which links lead to an epoch's pictures."""
    return f"epoch-{epoch}"


def badges(facts: RunFacts, epoch: int) -> list[str]:
    """What an epoch is distinguished by, in words."""
    found = ["advised"] if facts.is_advised(epoch) else []
    if epoch and epoch == facts.judged.chosen:
        found.append("chosen")
    if stars := facts.judged.of(epoch).stars:
        found.append("★" * stars)
    return found


def column_class(facts: RunFacts, epoch: int) -> str | None:
    """Looks of an epoch's column."""
    found = ["advised"] if facts.is_advised(epoch) else []
    found += ["chosen"] if epoch and epoch == facts.judged.chosen else []
    return " ".join(found) or None


def prompt_head(prompt: Prompt) -> Markup:
    """The heading of a prompt's row."""
    kind = element("span", prompt.kind, class_="badge") if prompt.kind else ""
    words = element("span", prompt.text[:WORDS_LIMIT] + ("…" if len(prompt.text) > WORDS_LIMIT else ""))
    return element("th", kind, words, element("small", f"seed {prompt.seed}"), scope="row")


def words_of(prompt: Prompt, epoch: int, strength: float = 1.0, run: str = "") -> str:
    """What a picture is, in words."""
    at = "" if strength == 1.0 else f" at strength {strength:g}"
    text = prompt.text[:ALT_LIMIT] + ("…" if len(prompt.text) > ALT_LIMIT else "")
    return f"{f'{run}, ' if run else ''}{epoch_name(epoch)}{at}: {text}"


def _grid(facts: RunFacts, cells: Cells, run: int, strength: float) -> Markup:
    epochs = sorted({epoch for epoch, _, at in facts.grid if at == strength})
    has_own = bool(facts.dataset.trained)
    own = [element("th", OWN, scope="col")] if has_own else []
    head = element("tr", element("th", "Prompt", scope="col"), *own, *heads(facts, epochs))
    rows = []
    for prompt in facts.prompts:
        row = [prompt_head(prompt)]
        if has_own:
            beside = f"from the dataset, beside: {prompt.text[:ALT_LIMIT]}"
            row.append(cells.cell(own_key(run, prompt.index), beside, OWN))
        row += [
            cells.cell(sample_key(run, epoch, prompt.index, strength), words_of(prompt, epoch, strength),
                       epoch_name(epoch), column_class(facts, epoch),
                       facts.remark((epoch, prompt.index, strength)))
            for epoch in epochs
        ]  # fmt: skip
        rows.append(element("tr", *row))
    return scrolled(element("table", element("thead", head), element("tbody", *rows), class_="grid"), "pictures")


def scrolled(inside: Markup, label: str) -> Markup:
    """A part that scrolls by itself, by the keyboard too."""
    return element("div", inside, class_="scroll", tabindex="0", role="group", aria_label=label)


def _strengths(facts: RunFacts, cells: Cells, run: int, epoch: int, strengths: Sequence[float]) -> Markup:
    """One epoch's pictures by strength."""
    names = [element("th", f"strength {strength:g}", scope="col") for strength in strengths]
    rows = [
        element("tr", prompt_head(prompt), *(
            cells.cell(strength_key(run, epoch, prompt.index, strength), words_of(prompt, epoch, strength),
                       f"strength {strength:g}", remark=facts.remark((epoch, prompt.index, strength)))
            for strength in strengths
        ))
        for prompt in facts.prompts
        if any((epoch, prompt.index, strength) in facts.grid for strength in strengths)
    ]  # fmt: skip
    head = element("tr", element("th", "Prompt", scope="col"), *names)
    inner = element("table", element("thead", head), element("tbody", *rows), class_="grid")
    title = element("h3", f"Strengths at {epoch_name(epoch)}")
    return element("div", title, scrolled(inner, f"strengths at epoch {epoch}"))

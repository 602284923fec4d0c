"""One page for several runs: curves over each other, the same prompts side by side, settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tui.compare_text import FIGURES, row_of, verdict_lines
from tui.comparing import Compared, Comparison, compare, compared
from tui.epochs import Prompt
from tui.reporting import sections
from tui.reporting.chart import chart
from tui.reporting.curves import drift_line, loss_line, training_line
from tui.reporting.facts import RunFacts
from tui.reporting.grid import Cells, badges, epoch_name, scrolled, words_of
from tui.reporting.markup import NOTHING, Markup, element, joined, section, table
from tui.reporting.page import document, jumps, picture_words
from tui.reporting.pictures import Key, Pictures
from tui.reporting.plan import sample_key
from tui.reporting.settings_table import flat
from tui.units import duration

_NAMES = {"runs": "Runs", "pictures": "Pictures", "curves": "Curves", "settings": "Settings", "faults": "Faults"}

_HEADS = ("Epochs", "Chosen", "Worked", "In words")
"""Columns that the comparison on the terminal has not."""


def ranked(runs: Sequence[RunFacts]) -> tuple[list[RunFacts], Comparison]:
    """The runs in the order of their comparison, and that: as of `kiln compare`, with paths told by their ends."""
    by_folder = {facts.folder: facts for facts in runs}
    found = compare([_side(facts) for facts in runs])
    return [by_folder[run.folder] for run in found.runs], found


def _side(facts: RunFacts) -> Compared:
    side = compared(facts.folder, facts.state, facts.config, facts.view, "cannot be read")
    if facts.config is None:
        return side
    return replace(side, settings=flat(facts.config, facts.shorten))


def runs_page(runs: Sequence[RunFacts], found: Comparison, pictures: Pictures, refused: dict[Key, str]) -> str:
    """The whole page, of what :func:`ranked` gave."""
    names = [facts.name for facts in runs]
    parts = {
        "runs": _table(runs, found),
        "pictures": _grid(runs, Cells(pictures, refused)),
        "curves": _curves(runs),
        "settings": _differences(runs, found),
        "faults": _faults(runs),
    }
    title = "Comparison of " + ", ".join(names)
    head = element("header", element("p", "lorakiln: runs compared", class_="kicker"), element("h1", title))
    return document(
        f"{title}: lorakiln report",
        head,
        jumps({id_: _NAMES[id_] for id_, part in parts.items() if part}),
        element("main", *parts.values()),
        sections.about(list(runs), picture_words(pictures)),
    )


def _table(runs: Sequence[RunFacts], found: Comparison) -> Markup:
    rows = []
    for facts, run in zip(runs, found.runs, strict=True):
        figures, chosen = row_of(run), facts.judged.chosen
        rows.append((
            facts.name, *(figures[at] for at in FIGURES), f"{facts.view.epoch} of {facts.view.epochs}",
            str(chosen) if chosen else "", duration(run.elapsed_s), facts.advice.text,
        ))  # fmt: skip
    heads = ("Run", *(label[0].upper() + label[1:] for label in FIGURES.values()), *_HEADS)
    said = element("p", " ".join(verdict_lines(found)), class_="verdict")
    return section("Runs", said, table(heads, rows, class_="figures"), id_="runs")


def _curves(runs: Sequence[RunFacts]) -> Markup:
    measured = [[one for one in facts.view.measured if one.held_out or one.train] for facts in runs]
    named = list(zip([facts.name for facts in runs], measured, strict=True))
    charts = [
        chart(
            "Loss on held-out pictures", [loss_line(name, many, "held_out") for name, many in named], y_name="loss"
        ),
        chart("Loss on training pictures", [loss_line(name, many, "train") for name, many in named], y_name="loss"),
        chart("Drift", [drift_line(name, many) for name, many in named], y_name="drift", from_zero=True),
        chart("Loss while training", [training_line(facts.name, facts) for facts in runs], "step", "loss"),
    ]
    return section("Curves", element("div", *charts, class_="charts") if any(charts) else "", id_="curves")


def _grid(runs: Sequence[RunFacts], cells: Cells) -> Markup:
    """Below each prompt a row for each run that drew it with the same seed."""
    epochs = sorted({epoch for facts in runs for epoch, _, at in facts.grid if at == facts.main_strength})
    rows: list[Markup] = []
    for text, seed in _prompts(runs):
        shown = Prompt(0, text, "", seed)
        found = [(number, facts, _same(facts, text, seed)) for number, facts in enumerate(runs)]
        having = [(number, facts, prompt) for number, facts, prompt in found if prompt is not None]
        rows.append(element("tr", element("th", text, element("small", f" seed {seed}"), scope="rowgroup",
                                          colspan=len(epochs) + 1, class_="prompt")))  # fmt: skip
        for number, facts, prompt in having:
            row = [element("th", element("span", facts.name), _marks(facts), scope="row")]
            for epoch in epochs:
                words = words_of(shown, epoch, facts.main_strength, facts.name)
                looks = "advised" if facts.is_advised(epoch) else None
                row.append(
                    cells.cell(
                        sample_key(number, epoch, prompt.index, facts.main_strength), words, epoch_name(epoch), looks
                    )
                )
            rows.append(element("tr", *row))
    if not rows:
        return section("Pictures", element("p", "None of the runs drew sample pictures."), id_="pictures")
    head = [element("th", epoch_name(epoch), scope="col") for epoch in epochs]
    inner = element("table", element("thead", element("tr", element("th", "Run", scope="col"), *head)),
                    element("tbody", *rows), class_="grid")  # fmt: skip
    hint = "Recommended epochs are shaded. Click a picture to enlarge it; the arrow keys walk, esc closes it."
    return section("Pictures", element("p", hint, class_="hint"), scrolled(inner, "pictures"), id_="pictures")


def _prompts(runs: Sequence[RunFacts]) -> list[tuple[str, int]]:
    """Every prompt with its seed, those of the most runs first."""
    counts: dict[tuple[str, int], int] = {}
    for facts in runs:
        for key in dict.fromkeys((prompt.text, prompt.seed) for prompt in facts.prompts):
            counts[key] = counts.get(key, 0) + 1
    return sorted(counts, key=lambda key: -counts[key])


def _same(facts: RunFacts, text: str, seed: int) -> Prompt | None:
    return next((prompt for prompt in facts.prompts if (prompt.text, prompt.seed) == (text, seed)), None)


def _marks(facts: RunFacts) -> Markup:
    found = [f"{epoch_name(epoch)} {badge}" for epoch in facts.epochs for badge in badges(facts, epoch)
             if badge != "advised"]  # fmt: skip
    if facts.advice.best:
        found.insert(0, f"advised: {facts.advice.first} to {facts.advice.last}")
    return element("small", ", ".join(found)) if found else NOTHING


def _differences(runs: Sequence[RunFacts], found: Comparison) -> Markup:
    if not found.differing:
        return section("Settings", element("p", "All settings are the same."), id_="settings")
    heads = ("Setting", *(facts.name for facts in runs))
    rows = [(name, *values) for name, values in found.differing.items()]
    return section("Settings", table(heads, rows, "Settings that differ", class_="figures"), id_="settings")


def _faults(runs: Sequence[RunFacts]) -> Markup:
    """Those of each run, below its name."""
    parts = []
    for facts in runs:
        failure = facts.view.failure
        troubles = [*facts.troubles, *([f"{failure.title}: {failure.detail}"] if failure is not None else [])]
        if troubles:
            items = [element("li", facts.shorten.text(text)) for text in troubles]
            parts.append(element("div", element("h3", facts.name), element("ul", joined(items))))
    return section("Faults", *parts, id_="faults")

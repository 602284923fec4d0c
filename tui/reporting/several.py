"""One page for several runs: curves over each other, the same prompts side by side, settings that differ."""

from __future__ import annotations

from collections.abc import Sequence

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
from tui.reporting.summary import held_out_best
from tui.units import duration

_NAMES = {"runs": "Runs", "pictures": "Pictures", "curves": "Curves", "settings": "Settings", "faults": "Faults"}


def runs_page(runs: Sequence[RunFacts], pictures: Pictures, refused: dict[Key, str]) -> str:
    """The whole page."""
    names = [facts.name for facts in runs]
    parts = {
        "runs": _table(runs),
        "pictures": _grid(runs, Cells(pictures, refused)),
        "curves": _curves(runs),
        "settings": _differences(runs),
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


def _table(runs: Sequence[RunFacts]) -> Markup:
    rows = []
    for facts in runs:
        view, advice, chosen = facts.view, facts.advice, facts.judged.chosen
        range_ = f"{advice.first} to {advice.last}" if advice.best else "none yet"
        rows.append((
            facts.name, facts.state, f"{view.epoch} of {view.epochs}", range_, str(chosen) if chosen else "",
            held_out_best(facts), duration(view.done.elapsed_s if view.done is not None else view.active_s),
            advice.text,
        ))  # fmt: skip
    heads = ("Run", "State", "Epochs", "Recommended", "Chosen", "Lowest held-out loss", "Worked", "Verdict")
    hint = "Losses compare only where pictures and noise were the same: the same dataset, held out alike."
    return section("Runs", table(heads, rows, class_="figures"), element("p", hint, class_="hint"), id_="runs")


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


def _differences(runs: Sequence[RunFacts]) -> Markup:
    every = [flat(facts.config, facts.shorten) if facts.config is not None else {} for facts in runs]
    names = dict.fromkeys(name for one in every for name in one)
    rows = [
        (name, *(one.get(name, "unset" if one else "unknown") for one in every))
        for name in names
        if name != "name" and len({one.get(name, "unset") for one in every}) > 1
    ]
    heads = ("Setting", *(facts.name for facts in runs))
    if not rows:
        return section("Settings", element("p", "All settings are the same."), id_="settings")
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

"""The head of a page: what came out, which epochs are recommended, which one was taken, and how to use it."""

from __future__ import annotations

from pathlib import Path

from tui.reporting.facts import RunFacts
from tui.reporting.markup import Markup, element, section
from tui.units import duration
from tui.usage_words import usages
from tui.view import LIVE_STATES

_UNSURE = "The recommendation is early work: the pictures have the last word."


def head(facts: RunFacts) -> Markup:
    """Title, verdict, range and choice."""
    view, advice, chosen = facts.view, facts.advice, facts.judged.chosen
    ended = "goes on" if facts.state in LIVE_STATES else facts.state
    state = f"{ended} at step {view.step} of {view.steps}, epoch {view.epoch} of {view.epochs}"
    if not view.steps:
        state = "has not begun" if facts.state in ("new", "interrupted") else ended
    return element(
        "header",
        element("p", "lorakiln: report on a run", class_="kicker"),
        element("h1", facts.name),
        element("p", f"Run {state}.", class_="hint"),
        element("p", advice.text, class_="verdict"),
        element(
            "dl",
            *_fact("Recommended", _range(facts), _best(facts)),
            *_fact("Chosen", f"epoch {chosen}" if chosen else "none yet", _opinion(facts)),
            *_fact("Trigger", facts.trigger or "none", ""),
            *_fact("Trained on", _pictures(facts), duration(view.done.elapsed_s if view.done else view.active_s)),
        ),
        element("p", _UNSURE, class_="hint") if advice.best else "",
        *(element("p", change, class_="hint") for change in advice.changes),
    )


def _fact(name: str, value: str, more: str) -> list[Markup]:
    said = element("small", more) if more else ""
    return [element("div", element("dt", name), element("dd", value, said))]


def _range(facts: RunFacts) -> str:
    advice = facts.advice
    if not advice.best:
        return "no range yet"
    return f"epoch {advice.first}" if advice.first == advice.last else f"epochs {advice.first} to {advice.last}"


def _best(facts: RunFacts) -> str:
    return f"{facts.advice.best} is the earliest good one; {facts.advice.sure}" if facts.advice.best else ""


def _opinion(facts: RunFacts) -> str:
    opinion = facts.judged.of(facts.judged.chosen)
    words = ["★" * opinion.stars] if opinion.stars else []
    words += [f"picked in {opinion.wins} of {opinion.shown} blind comparisons"] if opinion.shown else []
    return ", ".join(words)


def _pictures(facts: RunFacts) -> str:
    count = facts.view.images or len(facts.dataset.trained)
    return f"{count} pictures" if count != 1 else "1 picture"


def the_file(facts: RunFacts) -> Path | None:
    """The LoRA to take: the chosen epoch's, else the earliest good one's, else the last; one that is there."""
    by_epoch = {row.epoch: row.files for row in facts.rows if row.files}
    wanted = [facts.judged.chosen, facts.advice.best, *sorted(by_epoch, reverse=True)]
    files = [path for epoch in wanted for path in by_epoch.get(epoch, ())]
    return next((path for path in files if path.is_file()), files[0] if files else None)


def usage(facts: RunFacts) -> Markup:
    """How to use the LoRA, in words to copy."""
    path = the_file(facts)
    if path is None:
        return section("How to use it", element("p", "The run has no LoRA file yet."), id_="usage")
    layout = "diffusers" if path.name.endswith(".diffusers.safetensors") else "kohya"
    gone = "" if path.is_file() else " It is not in the run's folder any more."
    parts = [
        element("div", element("h3", one.title), element("p", one.words), element("pre", element("code", one.snippet),
                tabindex="0"))
        for one in usages(path.name, layout, facts.trigger, facts.view.variant)
    ]  # fmt: skip
    intro = element("p", "The file is ", element("code", path.name), ".", gone)
    return section("How to use it", intro, element("div", *parts, class_="side wide"), id_="usage")

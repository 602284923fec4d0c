"""The sections of a page that are words and tables: epochs, dataset, machine, time, faults."""

from __future__ import annotations

import time
from statistics import fmean

from tui.epochs import EpochRow
from tui.judged import QUESTIONS
from tui.reporting.facts import RunFacts
from tui.reporting.grid import badges, column_class
from tui.reporting.markup import NOTHING, Markup, element, joined, section, table
from tui.units import duration, number, short_time, size
from tui.version import VERSION

FAULTS_SHOWN = 60
BUCKETS_SHOWN = 12


def epochs(facts: RunFacts) -> Markup:
    """Each epoch: verdict, figures, file, and what was thought of it."""
    if not facts.rows:
        return NOTHING
    judged = any(row.opinion != type(row.opinion)() for row in facts.rows)
    head = ["Epoch", "Step", "Verdict", "Held out", "Training", "Drift", "File"]
    head += ["Stars", "Blind wins", *(_short(name) for name in QUESTIONS), "Note"] if judged else []
    first = element("tr", *(element("th", cell, scope="col") for cell in head))
    body = [element("tr", *_epoch(facts, row, judged), class_=column_class(facts, row.epoch)) for row in facts.rows]
    inner = element("table", element("thead", first), element("tbody", *body), class_="figures epochs")
    holder = element("div", inner, class_="scroll", tabindex="0", role="group", aria_label="epochs")
    asked = " ".join(f"{_short(name)}: {question}" for name, question in QUESTIONS.items())
    words = element("p", f"Asked of each epoch: {asked}", class_="hint") if judged else ""
    return section("Epochs", holder, words, id_="epochs")


def _short(name: str) -> str:
    return name.capitalize()


def _epoch(facts: RunFacts, row: EpochRow, judged: bool) -> list[Markup]:
    measured, opinion = row.measured, row.opinion
    name = "base" if row.epoch == 0 else str(row.epoch)
    marks = [element("span", badge, class_="badge") for badge in badges(facts, row.epoch) if "★" not in badge]
    cells: list[object] = [
        str(row.step),
        row.verdict,
        number(fmean(measured.held_out), 8) if measured is not None and measured.held_out else "",
        number(fmean(measured.train), 8) if measured is not None and measured.train else "",
        number(measured.drift, 7) if measured is not None and measured.drift is not None else "",
        _file(row),
    ]
    if judged:
        wins = f"{opinion.wins} of {opinion.shown}" if opinion.shown else ""
        stars = element("span", "★" * opinion.stars, aria_label=f"{opinion.stars} of 5") if opinion.stars else ""
        cells += [stars, wins, *(getattr(opinion, question) for question in QUESTIONS)]
        cells.append(element("span", facts.shorten.text(opinion.note), class_="note") if opinion.note else "")
    head = element("th", joined([name, *marks], " "), scope="row")
    return [head, *(element("td", cell) for cell in cells)]


def _file(row: EpochRow) -> str:
    if not row.files:
        return ""
    more = f" and {len(row.files) - 1} more" if len(row.files) > 1 else ""
    # A limit on files, or the user, may have removed it since.
    gone = "" if row.files[0].is_file() else " (not there any more)"
    return f"{row.files[0].name}{more}{gone}"


def dataset(facts: RunFacts) -> Markup:
    """Pictures, captions, buckets, the trigger, the most frequent tags."""
    found = facts.dataset
    if found.missing:
        words = f"Nothing is told of it: {facts.shorten.text(found.missing)}."
        return section("Dataset", element("p", words), id_="dataset")
    every = len(found.trained) + found.regularization
    config = facts.config
    rows = [
        ("Pictures to learn from", str(len(found.trained))),
        ("Pictures of the class", str(found.regularization)),
        ("With a caption", f"{found.captioned} of {every}"),
        ("Trigger word", facts.trigger or "none"),
        ("Seen in an epoch", str(sum(one.repeats for one in found.trained))),
        ("Cannot be used", str(found.problems[0])),
        ("Warnings", str(found.problems[1])),
    ]
    if config is not None:
        rows.insert(5, ("Resolution", str(config.dataset.resolution)))
        rule = config.validation
        rows.insert(6, ("Held out", str(rule.held_out) if rule.folder is None else "a folder of their own"))
    buckets = [(f"{width} × {height}", str(count)) for (width, height), count in found.buckets[:BUCKETS_SHOWN]]
    if len(found.buckets) > BUCKETS_SHOWN:
        rest = sum(count for _, count in found.buckets[BUCKETS_SHOWN:])
        buckets.append((f"{len(found.buckets) - BUCKETS_SHOWN} others", str(rest)))
    tables = [table(("", "Count"), rows, "Summary"), table(("Size", "Pictures"), buckets, "Buckets")]
    if found.tags:
        tables.append(table(("Tag", "Captions"), [(tag[:120], str(count)) for tag, count in found.tags],
                            "Most frequent tags"))  # fmt: skip
    said = element("p", "As it lies there now.", class_="hint")
    return section("Dataset", said, element("div", *tables, class_="side"), id_="dataset")


def machine(facts: RunFacts) -> Markup:
    """Hardware, versions and time."""
    view, versions = facts.view, facts.versions
    memory = view.memory
    names = {"device": "Trained on", "precision": "Precision of the base", "lorakiln": "lorakiln", "torch": "torch",
             "processes": "Processes"}  # fmt: skip
    made = [(words, versions[name]) for name, words in names.items() if versions.get(name)]
    made = [(words, "float32" if value == "no" else value) for words, value in made]
    made.insert(0, ("Base model", f"{view.family} {view.variant}".strip() or "unknown"))
    if memory is not None and memory.vram_total_gb:
        made.append(("GPU memory", f"{memory.vram_total_gb:.1f} GiB, {memory.vram_peak_gb:.1f} at most in use"))
    if memory is not None:
        made.append(("Host memory", f"{memory.host_total_gb:.1f} GiB"))
    files = [file.size_bytes for file in view.checkpoints]
    spent = [
        ("State", facts.state),
        ("Steps", f"{view.step} of {view.steps}"),
        ("Epochs", f"{view.epoch} of {view.epochs}"),
        ("A step", short_time(view.step_s) if view.step_s is not None else "unknown"),
        ("Worked", duration(view.done.elapsed_s if view.done is not None else view.active_s)),
        *((f"of it {state}", duration(took)) for state, took in sorted(view.seconds.items()) if took >= 0.5),
        ("LoRA files", f"{len(files)}, {size(files[-1])} each" if files else "none"),
    ]
    tables = table(("", "Value"), made, "Machine and versions"), table(("", "Value"), spent, "Time")
    return section("Machine and time", element("div", *tables, class_="side"), id_="machine")


def faults(facts: RunFacts) -> Markup:
    """What went wrong while it ran, oldest first; nothing where nothing did."""
    view, shorten = facts.view, facts.shorten
    told = [(line.level, facts.told(line.text)) for line in view.log if line.level in ("warning", "error")]
    rows = [(f"{level}", text) for level, text in told[-FAULTS_SHOWN:]]
    rows += [("changed", f"{one.setting}: {one.before} to {one.after}, as memory ran out while {one.stage}")
             for one in view.stepped_down]  # fmt: skip
    if view.skipped:
        rows.append(("skipped", "steps that were not finite: " + ", ".join(map(str, view.skipped[:FAULTS_SHOWN]))))
    rows += [("unread", shorten.text(text)) for text in facts.troubles]
    failed = NOTHING
    if view.failure is not None:
        said = [shorten.text(text) for text in (view.failure.detail, view.failure.hint) if text]
        title = element("h3", shorten.text(view.failure.title))
        failed = element("div", title, *(element("p", text) for text in said), class_="failed")
    before = (
        element("p", f"The last {FAULTS_SHOWN} of {len(told)}.", class_="hint") if len(told) > FAULTS_SHOWN else ""
    )
    return section("Faults", failed, before, table(("", "What"), rows) if rows else "", id_="faults")


def about(facts: list[RunFacts], words: list[str]) -> Markup:
    """By whom and when it was written, and what is not in it."""
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts[0].read_at))
    lines = [f"Written by lorakiln {VERSION} on {day}. It needs no network and asks for none.", *words]
    return element("footer", *(element("p", line) for line in lines))

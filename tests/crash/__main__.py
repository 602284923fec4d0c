"""What `make crash` writes, and how a failure of it is repeated.

``python -m tests.crash FIGURES REPORT PAGE`` makes the dated table: FIGURES is what the suites said (JSON lines, see
``tests/reliability.py``), REPORT what pytest and the fuzzers printed; what failed stands first.
``python -m tests.crash kill SCENARIO SEED [clock]`` repeats one chain of kills.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

from tests.bench.figures import write_figures

FAILED = re.compile(r"^(FAILED\b|ERROR\b|found something).*", re.MULTILINE)
SUMMARY = re.compile(r"^.*\b\d+ (?:passed|failed|error).* in .*$", re.MULTILINE)


def tables(figures: str) -> str:
    """One table for each suite, in the order in which they spoke; a figure said again is a further row."""
    suites: dict[str, list[tuple[str, str]]] = {}
    for line in figures.splitlines():
        record = json.loads(line)
        suites.setdefault(record["suite"], []).append((record["name"], record["value"]))
    parts = []
    for suite, rows in suites.items():
        lines = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)
        parts.append(f"## {suite.capitalize()}\n\n| | |\n|---|---|\n{lines}")
    return "\n\n".join(parts)


def outcome(report: str) -> str:
    """What failed, and how many tests there were."""
    failed = [match[0] for match in FAILED.finditer(report)]
    lines = [f"- {line}" for line in failed] or ["Nothing failed."]
    return "\n".join([*lines, "", *(match[0].strip("= ") for match in SUMMARY.finditer(report))])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write_page(figures: Path, report: Path, page: Path) -> int:
    """Write the page; 1 where there are no figures to write."""
    said = figures.read_text(encoding="utf-8") if figures.exists() else ""
    found = outcome(report.read_text(encoding="utf-8", errors="replace"))
    write_figures(page, "Crashes, faults and hostile input", f"{found}\n\n{tables(said)}")
    return 0 if said else 1


def repeat(scenario: str, seed: int, clock: bool) -> None:
    """Run one chain of kills again and say what happened."""
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parent)]
    from harness import Zygote, run_chain

    place = Path(tempfile.mkdtemp(prefix="kiln-crash-"))
    zygote = Zygote(place)
    try:
        chain = run_chain(zygote, scenario, seed, clock=clock)
    finally:
        zygote.close()
        print(f"homes, logs and notes are in {place}")
    print(f"held: {chain.scenario}/{chain.variant}, killed at {', '.join(chain.kills)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["kill"]:
        repeat(sys.argv[2], int(sys.argv[3]), "clock" in sys.argv[4:])
    else:
        sys.exit(write_page(*map(Path, sys.argv[1:4])))

"""What the crash and fuzz suites measured, collected into the table of docs/reliability.md.

A suite says ``figure("kills", "resumed runs with the same bits", "300 of 300")``; with ``KILN_FIGURES`` naming a file
each is appended there as a JSON line, and ``python -m tests.crash`` makes the table.
"""

from __future__ import annotations

import json
import os


def figure(suite: str, name: str, value: str) -> None:
    """Keep a figure; without ``KILN_FIGURES`` it is only printed."""
    line = json.dumps({"suite": suite, "name": name, "value": value})
    if path := os.environ.get("KILN_FIGURES"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    else:
        print(line)

"""Nothing of the screen is imported late: a host outlives an update of the program."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = ("app", "fitted", "habits", "opening", "plan", "settings", "workplace", "palette", "symptoms", "reading")
TORCH = {"engine.run"}
"""Begins a run, and brings torch: imported only then."""


def inner_imports(path: Path) -> set[str]:
    """The modules of ours that functions in ``path`` import."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    found = {node.module for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom)}
    return {name for name in found if name and name.split(".")[0] in ("tui", "engine", "profiles")}


def test_what_is_imported_late_is_there_already() -> None:
    files = [ROOT / "tui" / f"{name}.py" for name in HOST]
    parts = ("screens", "widgets", "setup", "wizard")
    files += [path for part in parts for path in (ROOT / "tui" / part).glob("*.py")]
    wanted = set().union(*map(inner_imports, files)) - TORCH
    code = "import json, sys, tui.app, tui.preload; tui.preload.load_rest(); print(json.dumps(list(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(json.loads(told.stdout))
    assert "tui.screens.setup" in wanted and not wanted - loaded
    assert "torch" not in loaded

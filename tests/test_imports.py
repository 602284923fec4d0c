"""Who may import whom, and what must not be imported at all before the first frame is on the screen."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "profiles", "tui")
HEAVY = ("torch", "transformers", "diffusers", "accelerate", "bitsandbytes", "peft", "prodigyopt", "schedulefree")

TORCH_FREE = (
    "engine.config", "engine.config_names", "engine.config_part", "engine.config_measuring", "engine.config_memory",
    "engine.config_sampling", "engine.config_file", "engine.config_writer", "engine.config_problems",
    "engine.toml_positions", "engine.events", "engine.event_values", "engine.events_faults",
    "engine.events_measured", "engine.events_memory", "engine.events_steps", "engine.commands", "engine.errors",
    "engine.explain", "engine.files", "engine.leftovers", "engine.line_file", "engine.locks", "engine.sealed",
    "engine.draws", "engine.text", "engine.run", "engine.jobs", "engine.dataset.", "engine.hardware.",
    "engine.models.header", "engine.models.detect", "engine.models.find", "engine.models.flux_work",
    "engine.models.tokenizers", "engine.models.scorer_files", "engine.lora.metadata", "engine.training.advisor",
    "engine.training.changes",
    "engine.training.generations", "engine.training.outlook", "engine.training.record", "engine.memory.plan",
    "engine.memory.simulate", "engine.memory.rungs", "profiles.", "tui.",
    "engine.config_tracking", "engine.training.tracking", "engine.training.trackers",
    "engine.caption_job", "engine.captioners.answers", "engine.captioners.drafts", "engine.captioners.found",
    "engine.captioners.making", "engine.captioners.request", "engine.captioners.tags", "engine.captioners.word_diff",
)  # fmt: skip
"""Modules, and packages (with a dot at the end) all of whose modules import without torch."""

TUI_MAY_IMPORT = (
    "engine.config", "engine.config_names", "engine.config_file", "engine.config_writer", "engine.events",
    "engine.commands", "engine.errors", "engine.files", "engine.locks", "engine.sealed", "engine.text",
    "engine.draws", "engine.run", "engine.jobs", "engine.dataset.", "engine.hardware.",
    "engine.models.header", "engine.models.detect", "engine.models.find", "engine.models.flux_work",
    "engine.models.tokenizers", "engine.lora.metadata", "engine.training.advisor", "engine.caption_job",
    "engine.captioners.drafts", "engine.captioners.found", "engine.captioners.making",
    "engine.captioners.request", "engine.captioners.word_diff",
)  # fmt: skip

PROFILES_MAY_IMPORT = (
    *TUI_MAY_IMPORT, "engine.config_memory", "engine.memory.plan", "engine.memory.simulate", "engine.memory.rungs",
    "engine.models.text_layout",
)  # fmt: skip
"""What streams, and what that costs, is decided once: the forecast asks the same pure functions as the engine."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def listed(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name == pattern or (pattern.endswith(".") and f"{name}.".startswith(pattern)) for pattern in patterns)


def imports_of(name: str) -> Iterator[str]:
    """Our own modules that ``name`` imports, anywhere in it, for types only or not at all excepted."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


@functools.cache
def graph() -> dict[str, list[str]]:
    """Every module of ours and what it imports of the others."""
    return {name: sorted(set(imports_of(name)) - {name}) for name in MODULES}


def loaded_by(modules: list[str]) -> str:
    """Import ``modules`` in a process of their own; which heavy libraries came along, and how it ended."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip()


def test_importing_the_torch_free_modules_loads_no_torch() -> None:
    names = [name for name in MODULES if listed(name, TORCH_FREE)]
    assert len(names) > 40
    if loaded_by(names) == "[]":
        return
    guilty = {name: found for name in names if (found := loaded_by([name])) != "[]"}
    assert not guilty
    pytest.fail("together they load torch, each alone does not")


def test_the_screens_see_only_the_engines_outside() -> None:
    inside = {
        f"{name} imports {target}"
        for name, targets in graph().items()
        if (package := name.split(".")[0]) in ("tui", "profiles")
        for target in targets
        if target.startswith("engine.")
        and not listed(target, TUI_MAY_IMPORT if package == "tui" else PROFILES_MAY_IMPORT)
    }
    assert not inside


def test_nobody_imports_upwards() -> None:
    order = {package: number for number, package in enumerate(PACKAGES)}
    upwards = {
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in targets
        if order[target.split(".")[0]] > order[name.split(".")[0]]
    }
    assert not upwards


def test_there_are_no_import_cycles() -> None:
    # Modules that import nothing left are taken away until none can be; what stays is in a cycle, or leads to one.
    left = {name: set(targets) for name, targets in graph().items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_the_floors_hold() -> None:
    """The contracts in pyproject.toml, checked by import-linter."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--cache-dir", ".import_linter_cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

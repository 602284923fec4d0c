"""The house rules, kept by the suite: sizes, documentation, names, and what may not be written at all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import TREES, dropped_trees  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "profiles", "tui")
FILE_LINES, TEST_FILE_LINES = 400, 600
FUNCTION_LINES, LONG_FUNCTION_LINES = 60, 120
LONG_FUNCTIONS = {"forward", "backward", "train"}
CLASS_METHODS = 20
BAD_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
# Called by Textual, torch or the standard library under names they chose; what they are is documented there.
FRAMEWORK_METHODS = re.compile(
    r"(on|watch|validate|compute|action|key|check)_\w+|compose|render|render_line|forward|filter"
)

SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def nodes(paths: list[Path], *kinds: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for path in paths:
        for node in ast.walk(TREES[path]):
            if isinstance(node, kinds):
                yield path, node


def test_files_are_short() -> None:
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in (*SOURCES, *TESTS)}
    long = {
        str(path.relative_to(ROOT)): count
        for path, count in lines.items()
        if count > (TEST_FILE_LINES if path in TESTS else FILE_LINES)
    }
    assert not long


def test_functions_are_short() -> None:
    long = []
    for path, node in nodes([*SOURCES, *TESTS], ast.FunctionDef, ast.AsyncFunctionDef):
        assert isinstance(node, Function)
        budget = LONG_FUNCTION_LINES if node.name in LONG_FUNCTIONS else FUNCTION_LINES
        count = (node.end_lineno or node.lineno) - node.lineno + 1
        if count > budget:
            long.append(f"{where(path, node)} {node.name}: {count} lines")
    assert not long


def test_classes_are_small() -> None:
    large = []
    for path, node in nodes(SOURCES, ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        methods = sum(isinstance(item, Function) for item in node.body)
        if methods > CLASS_METHODS:
            large.append(f"{where(path, node)} {node.name}: {methods} methods")
    assert not large


def public_without_docstring(path: Path) -> Iterator[str]:
    tree = TREES[path]
    if not ast.get_docstring(tree):
        yield f"{where(path, tree)} module"
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield f"{where(path, node)} {node.name}"
        for item in node.body if isinstance(node, ast.ClassDef) else ():
            if not isinstance(item, Function) or item.name.startswith("_") or ast.get_docstring(item):
                continue
            if not FRAMEWORK_METHODS.fullmatch(item.name):
                yield f"{where(path, item)} {node.name}.{item.name}"


def test_every_public_name_is_documented() -> None:
    missing = [name for path in SOURCES for name in public_without_docstring(path)]
    missing += [f"{where(path, TREES[path])} module" for path in TESTS if not ast.get_docstring(TREES[path])]
    assert not missing


def test_modules_are_named_for_what_they_own() -> None:
    assert not [str(path) for path in SOURCES if {path.stem, path.parent.name} & BAD_NAMES]


def test_packages_are_docstrings_only() -> None:
    full = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.name == "__init__.py" and any(not isinstance(node, ast.Expr) for node in TREES[path].body)
    ]
    assert not full


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in TESTS if path.name not in ("conftest.py", "__init__.py", "__main__.py")]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {getattr(item, "id", None) if item is not None else "BaseException" for item in caught}
    raises_again = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
    return bool(names & {"Exception", "BaseException"}) and not raises_again


def test_only_the_edges_of_the_engines_threads_catch_everything() -> None:
    broad = [where(path, node).split(":")[0] for path, node in nodes(SOURCES, ast.ExceptHandler) if is_broad(node)]
    assert broad == ["engine/caption_job.py", "engine/run.py"]


def test_no_exception_is_passed_over() -> None:
    silent = [
        where(path, node)
        for path, node in nodes(SOURCES, ast.ExceptHandler)
        if all(isinstance(item, ast.Pass) for item in node.body)
    ]
    assert not silent


FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"torch.load", "torch.save", "numpy.load", "np.load", "os.system", "eval", "exec"}


def test_nothing_can_run_code_from_a_file() -> None:
    found = []
    for path, node in nodes(SOURCES, ast.Import, ast.ImportFrom, ast.Call, ast.keyword):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            bad = bool({name.split(".")[0] for name in names} & FORBIDDEN_IMPORTS)
        elif isinstance(node, ast.Call):
            bad = ast.unparse(node.func) in FORBIDDEN_CALLS
        else:
            assert isinstance(node, ast.keyword)
            allowed = isinstance(node.value, ast.Constant) and node.value.value is False
            bad = node.arg in ("shell", "trust_remote_code", "allow_pickle") and not allowed
        if bad:
            found.append(where(path, node))
    assert not found


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "XX" + "X"])
def test_nothing_is_left_for_later(word: str) -> None:
    pattern = re.compile(rf"\b{word}\b")
    assert not [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (*SOURCES, *TESTS)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]

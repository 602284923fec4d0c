"""No text from outside reaches a screen, a terminal or a log past the gate, as far as the code itself tells.

Fields that hold what others wrote (names, paths, captions, errors' words ...) may not be handed to what shows them,
neither bare nor inside an f-string or a concatenation: ``safe`` or ``safe_text`` has to stand in between. A variable
is followed to what the same function puts into it; what a function of our own returns is that function's business.
Gating twice does no harm, so a finding is mended by gating at the sink.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import TREES, dropped_trees  # noqa: F401

from engine.errors import DatasetError
from engine.text import safe_text

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for package in ("engine", "profiles", "tui") for path in (ROOT / package).rglob("*.py"))
SCREENS = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == "tui"]

FOREIGN = {
    "name", "path", "caption", "caption_path", "stem", "parent", "prompt", "negative", "trigger_word", "comment",
    "author", "title", "detail", "hint", "message", "problem", "strerror", "filename", "lora_path", "folder", "root",
    "run_name", "model", "reason",
}  # fmt: skip
"""Attributes that hold text, or a path, from outside."""
OURS = {"PAGES[self.number].title", "self.stepper.gate.reason"}
"""Texts of the program that lie under such a name."""
SHOWS = {
    "Static", "Label", "Option", "Button", "Checkbox", "RadioButton", "Content", "Content.styled", "Content.assemble",
    "Text", "Text.assemble", "Segment", "Selection", "TabPane", "Collapsible", "print", "sys.stdout.write",
    "sys.stderr.write", "Log",
}  # fmt: skip
"""What shows its first argument; ``print``, ``assemble`` and the event ``Log`` all of them. ``notify`` has the gate
inside, and so have errors and the log file of a run."""
TITLES = {"border_title", "border_subtitle", "tooltip", "sub_title", "placeholder"}
UNSAFE_WIDGETS = {"Markdown", "MarkdownViewer", "RichLog", "Log", "DirectoryTree", "Link", "Pretty"}
"""Widgets that take text for more than text, or filter nothing: not used at all."""
PASSES_ON = {"str", "repr", "format", "join", "strip", "lstrip", "rstrip", "title", "lower", "upper", "replace"} | {
    "ljust", "rjust", "center", "removeprefix", "removesuffix", "capitalize", "basename", "relpath", "abspath",
    "as_posix", "fspath", "fsdecode", "decode", "with_suffix", "resolve",
}  # fmt: skip
"""Functions and methods whose result is as raw as what they are given."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def assigned(function: ast.AST) -> dict[str, list[ast.expr]]:
    """What a function puts into each of its variables."""
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and isinstance(node.target, ast.Name):
            values.setdefault(node.target.id, []).extend([node.value] if node.value else [])
    return values


def raw(node: ast.expr | None, known: dict[str, list[ast.expr]], seen: frozenset[str] = frozenset()) -> bool:
    """Whether text from outside may come out of an expression without having passed the gate."""
    inner: list[ast.expr | None] = []
    if isinstance(node, ast.Attribute):
        return node.attr in FOREIGN and ast.unparse(node) not in OURS
    if isinstance(node, ast.Name):
        values = [] if node.id in seen else known.get(node.id, [])
        return any(raw(value, known, seen | {node.id}) for value in values)
    if isinstance(node, ast.FormattedValue):
        return node.format_spec is None and raw(node.value, known, seen)
    if isinstance(node, ast.Call):
        method = isinstance(node.func, ast.Attribute)
        if (node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)) not in PASSES_ON:
            return False
        inner = [*node.args, node.func.value if isinstance(node.func, ast.Attribute) and method else None]
    elif isinstance(node, ast.JoinedStr):
        inner = list(node.values)
    elif isinstance(node, ast.BinOp):
        inner = [node.left, node.right] if isinstance(node.op, ast.Add | ast.Mod | ast.Div) else []
    elif isinstance(node, ast.IfExp):
        inner = [node.body, node.orelse]
    elif isinstance(node, ast.BoolOp):
        inner = list(node.values)
    elif isinstance(node, ast.List | ast.Tuple):
        inner = list(node.elts)
    elif isinstance(node, ast.GeneratorExp | ast.ListComp):
        inner = [node.elt]
    elif isinstance(node, ast.Subscript | ast.Starred):
        inner = [node.value]
    return any(raw(part, known, seen) for part in inner)


def leaks(function: ast.AST) -> Iterator[ast.AST]:
    """The places in a function where raw text is shown."""
    known = assigned(function)
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            shown = node.args if called in ("print", "Log") or called.endswith("assemble") else node.args[:1]
            if called in SHOWS and any(raw(argument, known) for argument in shown):
                yield node
            if any(keyword.arg in TITLES and raw(keyword.value, known) for keyword in node.keywords):
                yield node
        elif isinstance(node, ast.Assign):
            named = {target.attr for target in node.targets if isinstance(target, ast.Attribute)}
            if named & TITLES and raw(node.value, known):
                yield node


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def places(paths: list[Path]) -> list[str]:
    found = {
        f"{path.relative_to(ROOT)}:{getattr(leak, 'lineno', 0)}: {ast.unparse(leak)[:120]}"
        for path in paths
        for function in functions(TREES[path])
        for leak in leaks(function)
    }
    return sorted(found)


def test_screens_and_commands_show_no_raw_text() -> None:
    assert not places(SCREENS)


def test_what_the_engine_tells_is_gated() -> None:
    assert not places([path for path in SOURCES if path not in SCREENS and path.parent.name != "build"])


def test_nothing_takes_text_for_markup() -> None:
    found = []
    for path in SCREENS:
        for node in ast.walk(TREES[path]):
            imported = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textual.widgets")
            widgets = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) and imported else set()
            read = isinstance(node, ast.Attribute) and node.attr == "from_markup"
            allowed = isinstance(node, ast.keyword) and node.arg == "markup" and ast.unparse(node.value) == "True"
            if widgets & UNSAFE_WIDGETS or read or allowed:
                found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert not found


@pytest.mark.parametrize(
    ("code", "leaking"),
    [
        ("Static(row.name)", True), ("Static(safe(row.name))", False), ("Static('name')", False),
        ("Static(f'{row.name} of 3')", True), ("Static(f'{safe_text(row.name)} of {count}')", False),
        ("text = str(error.detail)\n    Label(text)", True), ("text = safe(error.detail)\n    Label(text)", False),
        ("self.border_title = 'of ' + row.name", True), ("self.border_title = safe('of ' + row.name)", False),
        ("Content.assemble('a', (row.caption, 'bold'))", True), ("Content.assemble((safe(row.caption), 'b'))", False),
        ("print(', '.join(row.name for row in rows))", True), ("print(f'{row.size:,} {safe_text(row.name)}')", False),
        ("Input(placeholder=row.name)", True), ("Option(row.name if row else '')", True),
        ("Segment(path.stem)", True),
    ],
)  # fmt: skip
def test_the_rule_itself(code: str, leaking: bool) -> None:
    tree = ast.parse(f"def shown(self, row, rows, error, path):\n    {code}\n")
    assert bool(list(leaks(tree))) == leaking


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=60))
def test_an_errors_words_are_gated_whatever_they_quote(text: str) -> None:
    """So whoever shows, logs or prints an error cannot forget it."""
    error = DatasetError(text, f"file: {text}", f"do: {text}")
    for words in (error.title, error.detail, error.hint, str(error), error.args[0]):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", words)
    assert error.title == safe_text(text, 500)

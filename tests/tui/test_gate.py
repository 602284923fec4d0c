"""No string reaches a widget but through the gate: read from the source, since one forgotten call is enough.

A plain string given to a Textual widget is markup: a file name could end the application, or be an action that a
click runs. So what widgets show is a constant, or made by :func:`tui.safe.safe` and functions that return
``Content``.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import TREES, dropped_trees  # noqa: F401

TUI = Path(__file__).resolve().parents[2] / "tui"
SOURCES = sorted(TUI.rglob("*.py"))

WIDGETS = frozenset({
    "Static", "Label", "Button", "Checkbox", "RadioButton", "Option", "Collapsible", "TabPane", "Link", "Digits",
    "Markdown", "MaskedInput", "Selection", "Toast", "Tooltip",
})  # fmt: skip
"""Their first argument is shown, as markup where it is a string."""

TITLES = frozenset({"border_title", "border_subtitle", "tooltip", "loading_text"})
MARKUP = frozenset({"from_markup", "escape_markup", "render_markup"})


@functools.cache
def content_makers() -> frozenset[str]:
    """Functions whose result is content."""
    return frozenset({"safe", "Content"}) | {
        node.name
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.FunctionDef) and node.returns is not None and ast.unparse(node.returns) == "Content"
    }


def is_safe(value: ast.expr) -> bool:
    """Whether ``value`` is a constant, or content made by one of the makers."""
    if isinstance(value, ast.Constant):
        return not (isinstance(value.value, str) and "[" in value.value)
    if isinstance(value, ast.Tuple):
        return all(is_safe(part) for part in value.elts)
    if isinstance(value, ast.IfExp):
        return is_safe(value.body) and is_safe(value.orelse)
    if isinstance(value, ast.Call):
        name = value.func
        if isinstance(name, ast.Attribute):  # Content.assemble, Content("\n").join, self._content
            return name.attr in content_makers() or is_safe(name.value) or ast.unparse(name.value) == "Content"
        if isinstance(name, ast.Name) and name.id in ("map", "cast") and value.args:
            return any(is_safe(arg) or ast.unparse(arg) == "safe" for arg in value.args)
        return isinstance(name, ast.Name) and name.id in content_makers()
    return False


def shown_values(tree: ast.AST) -> Iterator[tuple[int, str, ast.expr]]:
    """Every expression that a widget of Textual's is given to show: its line, where it goes, itself."""
    statics = any(isinstance(node, ast.ImportFrom) and node.module == "textual.widgets" for node in ast.walk(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                yield from (
                    (node.lineno, part.attr, node.value)
                    for part in parts
                    if isinstance(part, ast.Attribute) and part.attr in TITLES
                )
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            updates = name == "update" and statics and len(node.args) == 1 and "Static" in ast.unparse(node.func)
            if updates or (name in WIDGETS and node.args):
                yield node.lineno, name, node.args[0]


def test_widgets_are_given_content_only() -> None:
    raw = [
        f"{path.relative_to(TUI)}:{line} {where} = {ast.unparse(value)}"
        for path in SOURCES
        for line, where, value in shown_values(TREES[path])
        if not is_safe(value)
    ]
    assert not raw


def test_nothing_is_parsed_as_markup() -> None:
    found = [
        f"{path.relative_to(TUI)}:{node.lineno} {name}"
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Attribute | ast.keyword)
        and (name := node.attr if isinstance(node, ast.Attribute) else node.arg or "")
        and (name in MARKUP or (name == "markup" and isinstance(node, ast.keyword) and _is_true(node.value)))
    ]
    assert not found


def _is_true(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def test_only_the_gate_shows_toasts_past_itself() -> None:
    past = [
        path.name
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().notify"
    ]
    assert past == ["habits.py"]


@pytest.mark.parametrize(
    ("source", "safe"),
    [
        ('Static(f"{name}")', False), ("Static(name)", False), ("Static(self.name + 'x')", False),
        ("Static(str(path))", False), ("Static(path.name)", False), ('Static("plain")', True), ("Static()", True),
        ("Static(safe(name))", True), ("Option(Content(name))", True), ("Static(Content.assemble(a, b))", True),
        ('self.border_title = f"{n}"', False), ("self.border_title = safe(n)", True), ('Static("[x]")', False),
        ("a.border_title, a.border_subtitle = map(safe, two)", True), ("Label(x if y else safe(z))", False),
    ],
    ids=range(15),
)  # fmt: skip
def test_the_test_finds_what_it_should(source: str, safe: bool) -> None:
    assert all(is_safe(value) for _, _, value in shown_values(ast.parse(source))) is safe

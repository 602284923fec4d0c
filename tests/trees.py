"""Source as syntax trees, for tests that look at it: parsed when asked for, dropped with the last test of a module.

A million nodes made while tests are collected would cost every worker seconds, and every collection of garbage after.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest


class Trees(dict[Path, ast.Module]):
    """The tree of a file, by its path."""

    def __missing__(self, path: Path) -> ast.Module:
        tree = self[path] = ast.parse(path.read_text(encoding="utf-8"))
        return tree


TREES = Trees()


@pytest.fixture(scope="module", autouse=True)
def dropped_trees() -> Iterator[None]:
    """Imported by every module that looks at trees."""
    yield
    TREES.clear()

"""A work folder for every test that wants one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import Work

# The fake run is the screen tests'.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tui"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A screen that a stalled machine kept waiting is looked at once more; the report counts it as rerun."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture
def work() -> Iterator[Work]:
    """A work folder; what was started in it ends with the test."""
    work = Work()
    yield work
    work.close()

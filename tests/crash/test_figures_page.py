"""The page of crash figures: a table by suite, and whatever failed in plain sight."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability import figure

ROOT = Path(__file__).resolve().parents[2]


def page_of(folder: Path, report: str) -> tuple[int, str]:
    from tests.crash.__main__ import write_page

    (folder / "report").write_text(report)
    code = write_page(folder / "figures", folder / "report", folder / "page.md")
    return code, (folder / "page.md").read_text()


@pytest.fixture(autouse=True)
def _root_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_figures_become_tables_and_failures_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_FIGURES", str(tmp_path / "figures"))
    figure("kills", "runs", "3 of 3")
    figure("disk", "a|b", "1")
    figure("kills", "runs", "4 of 4")
    report = "FAILED tests/crash/test_kill.py::test_x - AssertionError\n1 failed, 2 passed, 9 deselected in 3.10s\n"
    code, page = page_of(tmp_path, report + "found something: toml\n")
    assert code == 0
    assert "- found something: toml" in page
    assert page.index("- FAILED tests/crash/test_kill.py") < page.index("1 failed, 2 passed") < page.index("## Kills")
    assert "| runs | 3 of 3 |\n| runs | 4 of 4 |\n" in page and "| a\\|b | 1 |" in page


def test_a_page_without_figures_is_a_failure(tmp_path: Path) -> None:
    code, page = page_of(tmp_path, "3 passed in 1.00s\n")
    assert code == 1 and "Nothing failed." in page

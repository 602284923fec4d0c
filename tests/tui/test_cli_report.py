"""`kiln report` as a shell sees it, and the key in the runs screen that writes the same."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from made_run import Shape, made_run
from watching import text_of, until

from tui.__main__ import main
from tui.app import KilnApp
from tui.commands.report import Bar, show
from tui.reporting.page import MARKER
from tui.screens.runs import RunsScreen
from tui.workplace import Workplace

SMALL = Shape(epochs=3)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder with two runs."""
    monkeypatch.chdir(tmp_path)
    made_run(tmp_path / "runs", "owl", SMALL)
    made_run(tmp_path / "runs", "cat", SMALL)
    return tmp_path


def test_one_run_by_its_name_goes_into_its_folder(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "owl"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0].startswith("runs/owl/report.html  ") and "9 pictures" in told.out
    assert (work / "runs" / "owl" / "report.png").read_bytes().startswith(b"\x89PNG") and told.err == ""


def test_names_of_files_and_what_is_left_out_can_be_chosen(work: Path) -> None:
    words = ["--out", "my page.html", "--sheet", "sheets/one.png", "--no-dataset", "--open-nothing"]
    assert main(["report", "runs/owl", *words]) == 0
    assert MARKER in (work / "my page.html").read_bytes() and (work / "sheets" / "one.png").is_file()
    assert "from the dataset" not in (work / "my page.html").read_text()


def test_several_runs_are_compared_beside_their_folders(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "owl", "cat", "runs/owl"]) == 0
    assert capsys.readouterr().out.startswith("runs/comparison.html  ")
    assert "Comparison of owl, cat" in (work / "runs" / "comparison.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["no\x1bsuch"], "There is no such run"),
        (["owl", "--out", "theirs.html"], "A file of that name is there already"),
        (["owl", "--out", "one.png", "--sheet", "./one.png"], "need two files"),
        (["owl", "--max-mb", "0"], "give 1 to 1000"),
        ([f"r{number}" for number in range(9)], "Too many runs"),
    ],
)
def test_what_is_wrong_is_said(work: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    (work / "theirs.html").write_text("theirs")
    assert main(["report", *words]) == 2
    said = capsys.readouterr().err
    assert told in said and "\x1b" not in said
    assert (work / "theirs.html").read_text() == "theirs"


def test_a_bar_is_drawn_on_a_terminal_alone() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        bar = Bar(stream)
        bar.show("make pictures", 3, 12)
        bar.clear()
        assert ("make pictures" in stream.getvalue() and "3/12" in stream.getvalue()) is drawn


def test_a_desktop_is_asked_to_show_it_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/shown.part && mv {tmp_path}/shown.part {tmp_path}/shown\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not show(tmp_path / "a b.html")
    monkeypatch.setenv("DISPLAY", ":0")
    asked = show(tmp_path / "a b.html")
    assert asked is not None
    assert asked.wait(30) == 0 and (tmp_path / "shown").read_text() == f"{tmp_path}/a b.html\n"


async def test_a_key_in_the_runs_screen_writes_it(work: Path) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(110, 30)) as pilot:
        await pilot.pause()
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and not app.screen.reading)
        screen = app.screen
        assert isinstance(screen, RunsScreen) and screen.card is not None
        name = screen.card.summary.name
        await pilot.press("w")
        await until(pilot, lambda: f"Report: runs/{name}/report.html" in text_of(app))
        page = work / "runs" / name / "report.html"
        assert MARKER in page.read_bytes()
        page.write_text("mine")
        await pilot.press("w")
        await until(pilot, lambda: "A file of that name is there already" in text_of(app))
        assert page.read_text() == "mine"

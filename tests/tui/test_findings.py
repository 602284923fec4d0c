"""What is wrong with a dataset on the screen: listed, mended after a question, taken back; and the balance."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from textual.pilot import Pilot
from tiny_pictures import add
from watching import text_of, until

from engine.dataset.balance import balance, uneven
from engine.dataset.sidecar import load_sidecar
from tui.app import KilnApp
from tui.screens.balance import BalanceDialog, balance_lines
from tui.screens.dialogs import ChoiceDialog, ErrorDialog
from tui.screens.findings import FindingsScreen
from tui.screens.pick import PickDialog
from tui.settings import Settings
from tui.terminal.traits import Traits
from tui.workplace import Workplace

HOSTILE = "\x1b]52;c;QQ==\x07[b]x"

COPY = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"


def noise(path: Path, seed: int, side: int = 64) -> None:
    """A picture that is like no other, with a caption."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
    path.with_suffix(".txt").write_text(f"number {seed}, a cup", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bad encoding, a picture twice, two of one stem, and one with a hostile name."""
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(4):
        noise(folder / f"{number}.png", number)
    (folder / "again.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "again.txt").write_bytes("ein Café".encode("cp1252"))
    noise(folder / "two.png", 8)
    noise(folder / "two.webp", 9)
    noise(folder / f"{HOSTILE}.png", 10)
    return folder


class Opened:
    """The workbench with the findings over it."""

    def __init__(self, app: KilnApp, pilot: Pilot[Any]) -> None:
        self.app, self.pilot = app, pilot

    @property
    def screen(self) -> FindingsScreen:
        return next(screen for screen in self.app.screen_stack if isinstance(screen, FindingsScreen))

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(self.pilot, condition)

    async def checked(self) -> None:
        await self.until(lambda: self.screen.found is not None and not self.screen.busy)

    async def go(self, words: str) -> None:
        """To the first line that holds ``words``."""
        at = next(at for at, line in enumerate(self.screen.lines) if words in line.text)
        self.screen.query_one("#lines").highlighted = at  # type: ignore[attr-defined]
        await self.pilot.pause()

    def codes(self) -> set[str]:
        return {line.finding.code for line in self.screen.lines}


async def opened(pilot: Pilot[Any], app: KilnApp, folder: Path) -> Opened:
    app.workplace.open_dataset(folder)
    await until(pilot, lambda: app.workplace.catalog.state == "ready" and app.workbench.feed is not None)
    await pilot.press("1")
    await until(pilot, lambda: "number 0" in text_of(app) or "again.png" in text_of(app))
    await pilot.press("C")
    await until(pilot, lambda: isinstance(app.screen, FindingsScreen))
    found = Opened(app, pilot)
    await found.checked()
    return found


@pytest.mark.parametrize("size", [(160, 45), (80, 24)])
async def test_findings_are_mended_and_taken_back_by_keys(
    folder: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    place = Workplace(tmp_path)
    app = KilnApp(place, Traits())
    before = (folder / "again.txt").read_bytes()
    async with app.run_test(size=size) as pilot:
        at = await opened(pilot, app, folder)
        assert {"caption", "same-stem"} <= at.codes() and "\x1b" not in text_of(app)
        await at.go("again.txt")
        await pilot.press("f")
        await at.until(lambda: isinstance(app.screen, PickDialog))
        assert "ein Café" in text_of(app) and (folder / "again.txt").read_bytes() == before
        await pilot.press("enter")
        await at.until(lambda: (folder / "again.txt").read_bytes() == "ein Café".encode())
        await at.until(lambda: "caption" not in at.codes() and "copy" in at.codes() and not at.screen.busy)
        await at.go("Two pictures")
        await pilot.press("f")
        await at.until(lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("n")
        assert (folder / "two.png").is_file()
        await at.go("byte by byte")
        await pilot.press("x")
        await at.until(lambda: load_sidecar(folder).of("again.png").exclude is True)
        await at.until(lambda: "copy" not in at.codes() and not at.screen.busy)
        await pilot.press("u")
        await at.until(lambda: load_sidecar(folder).of("again.png").exclude is None and not at.screen.busy)
        await pilot.press("u")
        await at.until(lambda: (folder / "again.txt").read_bytes() == before and not at.screen.busy)
        await at.until(lambda: "caption" in at.codes())
        await at.go("Two pictures")
        at_line = next(y for y, text in enumerate(text_of(app).splitlines()) if "again.txt" in text)
        await pilot.click("#lines", offset=(8, at_line - 1))
        assert app.screen is at.screen and at.screen.line is not None and "again.txt" in at.screen.line.text
        await pilot.click("#lines", offset=(8, at_line - 1))
        await at.until(lambda: app.screen is app.workbench)
        chosen = app.workbench.query_one("#dataset").chosen  # type: ignore[attr-defined]
        assert chosen is not None and chosen.path.name == "again.png", "the picture of the caption"
    place.close()


async def test_mendings_are_taken_back_after_a_restart_in_their_dataset_only(folder: Path, tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    before = (folder / "again.txt").read_bytes()
    async with (app := KilnApp(place, Traits())).run_test(size=(160, 45)) as pilot:
        at = await opened(pilot, app, folder)
        await at.go("again.txt")
        await pilot.press("f")
        await at.until(lambda: isinstance(app.screen, PickDialog))
        await pilot.press("enter")
        await at.until(lambda: "copy" in at.codes() and not at.screen.busy)
        await at.go("byte by byte")
        await pilot.press("x")
        await at.until(lambda: load_sidecar(folder).of("again.png").exclude is True and not at.screen.busy)
    place.close()
    other = tmp_path / "other"
    other.mkdir()
    noise(other / "0.png", 0)
    place = Workplace(tmp_path)
    async with (app := KilnApp(place, Traits())).run_test(size=(160, 45)) as pilot:
        at = await opened(pilot, app, other)
        await pilot.press("u")
        await at.until(lambda: isinstance(app.screen, ErrorDialog))
        assert "another dataset" in text_of(app) and "again.png left out" in text_of(app)
    place.close()
    place = Workplace(tmp_path)
    async with (app := KilnApp(place, Traits())).run_test(size=(160, 45)) as pilot:
        at = await opened(pilot, app, folder)
        await pilot.press("ctrl+z")
        await at.until(lambda: load_sidecar(folder).of("again.png").exclude is None and not at.screen.busy)
        assert (folder / "again.txt").read_bytes() != before
        await pilot.press("u")
        await at.until(lambda: (folder / "again.txt").read_bytes() == before and not at.screen.busy)
        await at.until(lambda: "caption" in at.codes())
        assert not at.screen.mender.undoable
    place.close()


async def test_a_picture_is_gone_to_and_a_program_runs_on_a_copy(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", COPY, "{in}", "{out}"]
    place = Workplace(tmp_path, Settings.model_validate({"commands": {"upscale": command}}))
    app = KilnApp(place, Traits())
    (folder / "again.txt").write_text("a cup")
    async with app.run_test(size=(160, 45)) as pilot:
        at = await opened(pilot, app, folder)
        await at.go("byte by byte")
        await pilot.press("p")
        await at.until(lambda: isinstance(app.screen, ChoiceDialog))
        assert "64 x 64 became 64 x 64" in text_of(app) and not (folder / "again-upscaled.png").exists()
        await pilot.press("i")
        await at.until(lambda: (folder / "again-upscaled.png").is_file())
        await at.until(lambda: load_sidecar(folder).of("again.png").exclude is True and not at.screen.busy)
        assert (folder / "again-upscaled.txt").read_text() == "a cup"
        await pilot.press("b")
        await at.until(lambda: "[commands] background" in text_of(app))
        await at.go("byte by byte")
        await pilot.press("enter")
        await at.until(lambda: app.screen is app.workbench)
        chosen = app.workbench.query_one("#dataset").chosen  # type: ignore[attr-defined]
        assert chosen is not None and chosen.path.name.startswith("again")
        await pilot.press("b")
        await at.until(lambda: isinstance(app.screen, BalanceDialog))
        assert "set" in text_of(app) and "100%" in text_of(app)
    place.close()


def test_balance_suggests_repeats_that_are_even() -> None:
    """Concepts among each other; regularization as often as all of them."""
    pictures = [("3_anna", 3, False)] * 10 + [("hat", 1, False)] * 5 + [("woman", 1, True)] * 20
    anna, hat, woman = balance(pictures)
    assert (anna.views, hat.views, woman.views) == (30, 5, 20) and anna.share == pytest.approx(30 / 35)
    assert (anna.suggested, hat.suggested, woman.suggested) == (1, 2, 1) and woman.share == 1.0
    assert uneven((anna, hat)) and not uneven((woman,)) and balance([]) == ()
    mixed = balance([("a", 1, False), ("a", 2, False)])
    assert mixed[0].repeats == 0 and mixed[0].views == 3
    lines = balance_lines((anna, hat, woman))
    assert max(map(len, lines)) <= 69 and any("class" in line for line in lines)
    assert "\x1b" not in "".join(balance_lines(balance([(HOSTILE, 1, False)])))


def test_commands_need_their_places(tmp_path: Path) -> None:
    for words in (["prog"], ["prog", "{in}"], ["{in}", "{out}"]):
        with pytest.raises(ValueError, match="needs a program"):
            Settings.model_validate({"commands": {"upscale": words}})
    assert add(tmp_path, "a.png").is_file() and Settings().commands.background == ()

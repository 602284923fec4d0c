"""The caption pane as a user has it: typing, leaving, other programs, conflicts, drafts, undo, pastes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot
from textual.widget import Widget
from watching import until

import tui.widgets.caption
from engine.config import DatasetConfig
from engine.dataset.decoder import Decoder
from engine.dataset.tokens import Measured
from engine.errors import DatasetError
from tui.caption_desk import CaptionDesk
from tui.catalog import Catalog, Row
from tui.safe import install_backstop
from tui.screens.conflict import ConflictDialog
from tui.session import SessionState
from tui.terminal.traits import Traits
from tui.thumbnails import Thumbnails
from tui.widgets.caption import CaptionPane
from tui.widgets.caption_aids import CaptionAids, toggled_trigger
from tui.widgets.caption_editor import drawable, one_line

SCREENS = Path(tui.widgets.caption.__file__).parents[1] / "screens"


class PaintingDecoder(Decoder):
    """Grey pictures without a process."""

    def thumbnail(self, path: Path, max_side: int, background: str = "white") -> NDArray[np.uint8]:
        if path.name.startswith("bad"):
            raise DatasetError("Not a picture", f"{path}: \x1b]52;c;QQ==\x07", "Remove it.")
        return np.full((60, 90, 3), 128, np.uint8)


class WordCatalog(Catalog):
    """Rows given by the test; every word is a token."""

    t5_limit = 20  # type: ignore[assignment]
    rows: list[Row] = []  # type: ignore[assignment]  # noqa: RUF012 - set on the instance
    dataset: Any = None

    def measure(self, row: Row, text: str) -> Measured | None:
        starts = [found.start() for found in re.finditer(r"\S+", text)]
        cut = starts[self.t5_limit - 1] if len(starts) >= self.t5_limit else None
        return Measured(len(starts) + 2, len(starts) + 1, None, cut)

    def set_caption(self, row: Row, text: str) -> None:
        row.caption = text
        self.version += 1


class PaneApp(App[None]):
    """One caption pane over three pictures."""

    CSS_PATH: ClassVar = [SCREENS / "dialogs.tcss", SCREENS / "caption.tcss"]
    CSS = "CaptionPane { border: round white; }"

    def __init__(self, folder: Path, session: SessionState | None = None, desk: CaptionDesk | None = None) -> None:
        super().__init__()
        install_backstop()
        self.traits = Traits()
        self.said: list[str] = []
        self.messages: list[Any] = []
        self.session = session or SessionState()
        self.catalog = WordCatalog(PaintingDecoder())
        self.catalog.state = "ready"
        self.catalog.dataset = DatasetConfig.model_validate(
            {"folders": [{"path": folder}], "captions": {"trigger_word": "ohwx"}}
        )
        names = sorted(path.name for path in folder.glob("*.png"))
        self.catalog.rows = [Row(folder / name, name, (folder / name).with_suffix(".txt")) for name in names]
        self.thumbnails = Thumbnails(self.catalog._the_decoder(), folder / ".thumbs")
        self.pane = CaptionPane(self.catalog, self.session, self.thumbnails, desk, id="caption")

    def compose(self) -> ComposeResult:
        yield self.pane

    def on_caption_pane_step_wanted(self, event: CaptionPane.StepWanted) -> None:
        self.messages.append(event)
        at = self.catalog.rows.index(self.pane.row) + event.by if self.pane.row else 0
        self.pane.show_row(self.catalog.rows[at % len(self.catalog.rows)])

    def on_caption_pane_caption_saved(self, event: CaptionPane.CaptionSaved) -> None:
        self.messages.append(event)

    def on_caption_pane_back_wanted(self, event: CaptionPane.BackWanted) -> None:
        self.messages.append(event)

    def on_caption_aids_trigger_chosen(self, event: CaptionAids.TriggerChosen) -> None:
        self.messages.append(event)

    def notify(self, message: str, **options: Any) -> None:
        self.said.append(message)

    def on_unmount(self) -> None:
        self.thumbnails.close()
        self.catalog.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, caption in {"a": "a red cat\n", "b": "a dog\n", "c": None}.items():
        (tmp_path / f"{name}.png").write_bytes(b"stands for a picture")
        if caption is not None:
            (tmp_path / f"{name}.txt").write_text(caption)
    return tmp_path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same order of things in less time."""
    for name, value in {"AUTOSAVE_S": 0.1, "LOOK_S": 0.1, "IDLE_S": 0.2}.items():
        monkeypatch.setattr(tui.widgets.caption, name, value)
    monkeypatch.setattr("tui.screens.conflict.QUIET_S", 0.0)


@asynccontextmanager
async def opened(app: PaneApp, at: int = 0, size: tuple[int, int] = (56, 40)) -> AsyncIterator[Pilot[None]]:
    """The app with a row shown and the cursor in its text."""
    async with app.run_test(size=size) as pilot:
        app.pane.show_row(app.catalog.rows[at])
        app.pane.focus()
        await pilot.pause()
        yield pilot


def text_of(folder: Path, name: str) -> str:
    path = folder / f"{name}.txt"
    return path.read_text() if path.exists() else "-"


async def test_who_types_without_a_rest_is_saved_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tui.widgets.caption, "AUTOSAVE_S", 60)
    monkeypatch.setattr(tui.widgets.caption, "LONGEST_S", 0.2)
    app = PaneApp(folder)
    async with opened(app) as pilot:
        for _ in range(600):
            await pilot.press("x")
            if "x" in (folder / "a.txt").read_text():
                break
        assert "x" in (folder / "a.txt").read_text()


async def test_typing_saves_by_itself(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        await pilot.press(*"!!")
        await until(pilot, lambda: text_of(folder, "a") == "a red cat!!\n")
        await until(pilot, lambda: "saved" in str(app.pane.border_subtitle))
        assert app.session.draft.path == "" and app.catalog.rows[0].caption == "a red cat!!"
        await until(pilot, lambda: {type(message).__name__ for message in app.messages} == {"CaptionSaved"})


async def test_typing_and_saving_do_not_draw_the_picture_again(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        await until(pilot, lambda: app.pane.preview._drawn is not None)
        await until(pilot, lambda: app.pane.gauges.counted.t5)
        await pilot.pause(0.3)
        changed: list[Region] = []
        compositor = app.screen._compositor
        take = compositor.update_widgets

        def noted(widgets: set[Widget]) -> None:
            take(widgets)
            changed.extend(compositor._dirty_regions)

        compositor.update_widgets = noted  # type: ignore[method-assign]
        await pilot.press(*" sat")
        await until(pilot, lambda: text_of(folder, "a") == "a red cat sat\n")
        await until(pilot, lambda: "saved" in str(app.pane.border_subtitle))
        await pilot.pause(0.3)
        assert {region.y for region in changed} >= {0, 39}  # title and status
        assert not [region for region in changed if region.overlaps(app.pane.preview.region)]


async def test_what_is_not_written_yet_is_a_draft(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tui.widgets.caption, "AUTOSAVE_S", 60)
    monkeypatch.setattr(tui.widgets.caption, "LONGEST_S", 60)
    app = PaneApp(folder)
    async with opened(app) as pilot:
        await pilot.press(*"!!")
        await until(pilot, lambda: "editing" in str(app.pane.border_subtitle))
        assert app.session.draft.text == "a red cat!!" and text_of(folder, "a") == "a red cat\n"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: text_of(folder, "a") == "a red cat!!\n" and not app.session.draft.path)


async def test_a_picture_without_a_caption_gets_one(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app, 2) as pilot:
        assert "no caption" in str(app.pane.border_subtitle)
        await pilot.press("x")
        await until(pilot, lambda: text_of(folder, "c") == "x\n")


async def test_walking_saves_each_text_and_keeps_the_focus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tui.widgets.caption, "AUTOSAVE_S", 60)
    app = PaneApp(folder)
    async with opened(app) as pilot:
        await pilot.press("1", "alt+down", "2", "alt+down", "3", "alt+up", "4")
        assert app.focused is app.pane.editor and app.pane.editor.text == "a dog24"
        await until(pilot, lambda: text_of(folder, "a") == "a red cat1\n" and text_of(folder, "c") == "3\n")
        await pilot.press("escape")
        await until(pilot, lambda: text_of(folder, "b") == "a dog24\n")
        assert "BackWanted" in [type(message).__name__ for message in app.messages]


async def test_leaving_the_screen_at_once_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tui.widgets.caption, "AUTOSAVE_S", 60)
    async with opened(PaneApp(folder)) as pilot:
        await pilot.press(*" sat")
    assert text_of(folder, "a") == "a red cat sat\n"


async def test_the_next_screen_finds_text_undo_and_cursor(folder: Path) -> None:
    session = SessionState()
    desk = CaptionDesk(session)
    first = PaneApp(folder, session, desk)
    async with opened(first) as pilot:
        await pilot.press("home", *"so ")
    assert text_of(folder, "a") == "so a red cat\n"
    second = PaneApp(folder, session, desk)
    async with opened(second) as pilot:
        assert second.pane.editor.cursor_location == (0, 3)
        await pilot.press("ctrl+z")
        await until(pilot, lambda: text_of(folder, "a") == "a red cat\n")
        await pilot.press("ctrl+y")
        await until(pilot, lambda: text_of(folder, "a") == "so a red cat\n")
    desk.close()


async def test_undo_belongs_to_the_row(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        await pilot.press("1", "alt+down", "2", "alt+up", "ctrl+z", "ctrl+z", "ctrl+z")
        assert app.pane.editor.text == "a red cat"
        await pilot.press("ctrl+y", "alt+down", "ctrl+z", "ctrl+z")
        assert app.pane.editor.text == "a dog"
        await until(pilot, lambda: text_of(folder, "a") == "a red cat1\n" and text_of(folder, "b") == "a dog\n")


async def test_an_unedited_text_follows_the_file(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        (folder / "a.txt").write_text("theirs")
        await until(pilot, lambda: app.pane.editor.text == "theirs")
        (folder / "a.txt").unlink()
        await until(pilot, lambda: "no caption" in str(app.pane.border_subtitle))
        assert app.pane.editor.text == "" and not (folder / "a.txt").exists()


@pytest.mark.parametrize("answer", ["m", "t", "escape"])
async def test_a_conflict_is_the_users_to_decide(folder: Path, answer: str) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        app.pane.editor.insert(" mine")
        (folder / "a.txt").write_text("theirs")
        await until(pilot, lambda: isinstance(app.screen, ConflictDialog))
        assert text_of(folder, "a") == "theirs" and app.session.draft.text == "a red cat mine"
        shown = " ".join(str(widget.render()) for widget in app.screen.query("Static"))
        assert "theirs" in shown and "a red cat mine" in shown
        await pilot.press(answer)
        await until(pilot, lambda: app.screen is not None and not isinstance(app.screen, ConflictDialog))
        if answer == "m":
            await until(pilot, lambda: text_of(folder, "a") == "a red cat mine")
        elif answer == "t":
            assert app.pane.editor.text == "theirs" and text_of(folder, "a") == "theirs"
            await pilot.press("ctrl+z")
            await until(pilot, lambda: text_of(folder, "a") == "a red cat mine")
        else:
            assert "not saved: changed on disk" in str(app.pane.border_subtitle)
            await pilot.press("!", "ctrl+s")
            await until(pilot, lambda: isinstance(app.screen, ConflictDialog))
            assert text_of(folder, "a") == "theirs"


async def test_a_change_while_the_question_stands_asks_again(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        app.pane.editor.insert(" mine")
        (folder / "a.txt").write_text("theirs")
        await until(pilot, lambda: isinstance(app.screen, ConflictDialog))
        (folder / "a.txt").write_text("theirs again")
        sheet = app.pane.sheet
        await until(pilot, lambda: sheet and sheet.theirs and sheet.theirs.text == "theirs again")
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, ConflictDialog))
        assert text_of(folder, "a") == "theirs again"


async def test_keys_meant_for_the_text_answer_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.screens.conflict.QUIET_S", 60.0)
    app = PaneApp(folder)
    async with opened(app) as pilot:
        app.pane.editor.insert(" mine")
        (folder / "a.txt").write_text("theirs")
        await until(pilot, lambda: isinstance(app.screen, ConflictDialog))
        await pilot.press("m", "t", "enter")
        await pilot.pause()
        assert text_of(folder, "a") == "theirs" and app.pane.editor.text == "a red cat mine"


async def test_a_row_left_in_conflict_keeps_its_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tui.widgets.caption, "IDLE_S", 60)
    app = PaneApp(folder)
    async with opened(app) as pilot:
        app.pane.editor.insert(" mine")
        (folder / "a.txt").write_text("theirs")
        await until(pilot, lambda: "changed on disk" in str(app.pane.border_subtitle))
        await pilot.press("alt+down")
        await until(pilot, lambda: any("your text is kept" in said for said in app.said))
        assert app.session.drafts[str(folder / "a.png")].text == "a red cat mine"
        await pilot.press("alt+up")
        assert app.pane.editor.text == "a red cat mine" and text_of(folder, "a") == "theirs"


async def test_a_draft_of_a_dead_host_is_written(folder: Path) -> None:
    before = SessionState()
    desk = CaptionDesk(before)
    probe = PaneApp(folder)
    for at, text in ((0, "typed in a"), (1, "typed in b")):
        desk.current = desk.open(probe.catalog.rows[at])
        desk.edit(desk.current, text)
    probe.thumbnails.close()
    async with opened(PaneApp(folder, before), 2) as pilot:
        await until(pilot, lambda: text_of(folder, "a") == "typed in a\n" and text_of(folder, "b") == "typed in b\n")
        await until(pilot, lambda: not before.draft.path and not before.drafts)


async def test_a_caption_that_cannot_be_read_is_shown_as_such(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"caf\xe9")
    app = PaneApp(folder)
    async with opened(app) as pilot:
        assert app.pane.editor.read_only and "cannot be read" in str(app.pane.border_subtitle)
        assert "UTF-8" in str(app.pane.note.render())
        await pilot.press("x", "ctrl+t", "alt+down", "y")
        await until(pilot, lambda: text_of(folder, "b") == "a dogy\n")
    assert (folder / "a.txt").read_bytes() == b"caf\xe9"


async def test_a_paste_is_one_line_and_one_step_of_undo(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        app.copy_to_clipboard("one\r\n  two\u2028three\x1b[31m\n")
        await pilot.press("ctrl+v")
        assert app.pane.editor.text == "a red catone two three[31m"
        await pilot.press("ctrl+z")
        assert app.pane.editor.text == "a red cat"


async def test_the_trigger_word_goes_to_the_front_and_away(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        await pilot.press("ctrl+t")
        await until(pilot, lambda: text_of(folder, "a") == "ohwx, a red cat\n")
        await pilot.press("ctrl+t")
        await until(pilot, lambda: text_of(folder, "a") == "a red cat\n")


async def test_gauges_follow_the_text_and_say_where_it_is_cut(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        await until(pilot, lambda: app.pane.gauges.counted.t5 == 4)
        app.pane.editor.insert(" and then" * 10 + " end")
        await until(pilot, lambda: app.pane.gauges.counted.t5 == 25)
        lines = [strip.text for strip in app.pane.gauges.paint(52, 2)]
        assert lines[0].startswith("CLIP   26/77") and lines[1].startswith('T5  !  25/20  5 over, cut after "then"')
        assert app.pane.editor.marks.t5_cut == app.pane.gauges.counted.t5_cut


async def test_line_separators_are_told_of_and_left_alone(folder: Path) -> None:
    (folder / "a.txt").write_bytes("one\u2028two".encode())
    app = PaneApp(folder)
    async with opened(app) as pilot:
        assert "line separators" in str(app.pane.note.render())
        await pilot.press("alt+down", "alt+up")
        await pilot.press("ctrl+s")
    assert (folder / "a.txt").read_bytes() == "one\u2028two".encode()


async def test_hostile_text_is_drawn_harmless_and_kept(folder: Path) -> None:
    hostile = "a \u202ereversed\u202c [@click=app.quit]b[/] \u200bcat\ufeff"
    (folder / "a.txt").write_text(hostile)
    app = PaneApp(folder)
    async with opened(app) as pilot:
        drawn = "".join(app.pane.editor.render_line(y).text for y in range(3))
        assert "\u202e" not in drawn and "[@click=app.quit]b[/]" in drawn
        await pilot.press("end", "!")
        await until(pilot, lambda: text_of(folder, "a") == hostile + "!")


async def test_another_caption_file_is_taken_up(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app, 2) as pilot:
        (folder / "c.caption").write_text("elsewhere")
        app.catalog.rows[2].caption_path = folder / "c.caption"
        await until(pilot, lambda: app.pane.editor.text == "elsewhere")
        await pilot.press("!")
        await until(pilot, lambda: (folder / "c.caption").read_text() == "elsewhere!")
    assert not (folder / "c.txt").exists()


async def test_no_row_no_editing(folder: Path) -> None:
    app = PaneApp(folder)
    async with app.run_test(size=(80, 24)) as pilot:
        app.pane.focus()
        await pilot.press("x", "ctrl+s", "ctrl+t")
        assert app.pane.editor.text == "" and "Choose a picture" in str(app.pane.note.render())
        app.pane.show_row(app.catalog.rows[0])
        app.pane.show_row(None)
        await pilot.press("x")
        assert app.pane.editor.text == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb", "a b"),
        ("\n\na\n", "a"),
        ("a \r\n\t b", "a b"),
        ("tab\there", "tab\there"),
        ("x\x00\x9by\ud800", "xy"),
    ],
    ids=["two lines", "around", "spaces", "tab", "controls"],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(text, 100) == line


@pytest.mark.parametrize(
    ("text", "toggled"),
    [
        ("a cat", "ohwx, a cat"), ("", "ohwx"), ("ohwx, a cat", "a cat"), ("OHWX a cat", "a cat"), ("ohwx", ""),
        ("ohwxy cat", "ohwx, ohwxy cat"), ("a red Ohwx cat", None),
    ],
    ids=["without", "empty", "with", "capitals", "alone", "longer word", "inside"],
)  # fmt: skip
def test_toggled_trigger(text: str, toggled: str | None) -> None:
    assert toggled_trigger(text, "ohwx") == toggled


def test_what_is_drawn_takes_as_many_characters_and_cells() -> None:
    from rich.cells import cell_len

    line = "a\u202e\u200b\t猫\u2066x👩\u200d🚀\x1b"
    assert len(drawable(line)) == len(line) and cell_len(drawable(line)) == cell_len(line)

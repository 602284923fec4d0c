"""The dataset pane by keys and mouse: cursor, filter, order, stars, problems, and what it tells the workbench."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import Input
from tiny_pictures import add, opened
from watching import until

import tui.screens
from engine.dataset.decoder import Decoder
from engine.dataset.sidecar import SIDECAR_NAME, load_sidecar
from tui.catalog import Catalog, Row
from tui.glyphs import ASCII, UNICODE
from tui.keys.tables import ALL_KEYS
from tui.places import SHIPPED
from tui.session import SessionState
from tui.widgets.dataset import DatasetPane
from tui.widgets.dataset_columns import Limits, cell_of, columns_for, is_problem, label_of, shortened
from tui.widgets.dataset_filter import FilterFault, completed
from tui.widgets.dataset_table import DatasetHeader, DatasetNote, DatasetTable

DECODER = Decoder()
"""One process for all tests here."""

STYLES = Path(tui.screens.__file__).parent / "dataset.tcss"


class PaneApp(App[None]):
    """The pane alone, and what it said."""

    CSS_PATH = STYLES

    def __init__(self, catalog: Catalog, session: SessionState, ascii_terminal: bool = False) -> None:
        super().__init__()
        self.animation_level = "none"
        self.catalog, self.session = catalog, session
        self.ascii_terminal = ascii_terminal
        self.chosen: list[Row | None] = []
        self.edits = 0
        self.said: list[str] = []

    def compose(self) -> ComposeResult:
        yield DatasetPane(self.catalog, self.session)

    def on_mount(self) -> None:
        self.pane.focus()

    @property
    def pane(self) -> DatasetPane:
        return self.query_one(DatasetPane)

    def on_dataset_pane_row_chosen(self, event: DatasetPane.RowChosen) -> None:
        self.chosen.append(event.row)

    def on_edit_wanted(self, event: DatasetPane.EditWanted) -> None:
        self.edits += 1

    def say(self, text: str) -> None:
        self.said.append(text)

    @property
    def listed(self) -> list[str]:
        return [row.name for row in self.pane.listing.rows]

    @property
    def current(self) -> str:
        return self.pane.chosen.name if self.pane.chosen else ""


Opened = tuple[PaneApp, Pilot[None]]


@asynccontextmanager
async def pane(
    folder: Path | None,
    session: SessionState | None = None,
    size: tuple[int, int] = (80, 24),
    ascii_terminal: bool = False,
) -> AsyncIterator[Opened]:
    catalog = Catalog(DECODER)
    try:
        if folder is not None:
            await asyncio.to_thread(opened, catalog, folder)
        app = PaneApp(catalog, session or SessionState(), ascii_terminal)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            yield app, pilot
    finally:
        catalog.close()


@pytest.fixture(scope="session", autouse=True)
def _decoder() -> Iterator[None]:
    """Closed at the very end: tests of other modules may come between the tests here."""
    yield
    DECODER.close()


def lines(app: PaneApp) -> list[str]:
    """The table as text."""
    table = app.query_one(DatasetTable)
    return ["".join(piece.text for piece in table.render_line(y)) for y in range(table.size.height)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty pictures: every fifth without a caption, every third of a ball."""
    for number in range(30):
        caption = None if number % 5 == 4 else f"number {number}, a {'ball' if number % 3 == 0 else 'house'}"
        add(tmp_path, f"img{number}.png", caption, (8 + number, 8))
    return tmp_path


async def test_keys_move_the_cursor_and_tell_of_it(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        assert app.current == "img0.png" and [row.name for row in app.chosen if row] == ["img0.png"]
        await pilot.press("j", "down", "k")
        assert app.current == "img1.png"
        assert app.session.cursor == str(folder / "img1.png")
        await pilot.press("G")
        assert app.current == "img29.png" and any(line.startswith("> img29.png") for line in lines(app))
        await pilot.press("g", "pagedown")
        assert app.current == f"img{app.pane.table.size.height - 1}.png"
        await pilot.press("ctrl+u", "ctrl+d", "home", "k")
        assert app.current == "img0.png"
        await pilot.press("end", "j")
        assert app.current == "img29.png"
        app.pane.step(-2)
        await pilot.pause()
        assert app.chosen[-1] is app.pane.chosen and app.current == "img27.png"


async def test_words_filter_as_they_are_typed_and_esc_leads_out(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("G", "slash", "b", "a", "l")
        assert app.session.filter == "bal" and len(app.listed) == 8
        assert app.current == app.listed[0] == "img0.png"
        await pilot.press("l", "space", "2", "down")
        assert app.listed == ["img12.png", "img21.png", "img27.png"] and app.current == "img21.png"
        await pilot.press("enter", "j")
        assert app.current == "img27.png" and app.focused is app.pane.table
        assert "3/30" in str(app.pane.border_title)
        await pilot.press("escape")
        assert app.session.filter == "" and len(app.listed) == 30 and app.current == "img27.png"
        assert not app.query_one(Input).display
        await pilot.press("slash", "x", "y", "escape", "escape")
        assert app.focused is app.pane.table and len(app.listed) == 30


async def test_the_users_row_comes_back_when_the_filter_goes(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("j", "j", "slash", "b", "a", "l", "l")
        assert app.current == "img0.png"
        await pilot.press("escape")
        assert app.current == "img2.png"


async def test_what_is_listed_stays_while_its_caption_is_written(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("slash", "b", "a", "l", "l", "enter", "j", "enter")
        row = app.pane.chosen
        assert row is not None and row.name == "img3.png" and app.edits == 1
        row.caption_path.write_text("something else")
        app.catalog.set_caption(row, "something else")
        await until(pilot, lambda: "something" in row.haystack)
        app.pane.poll()
        assert app.current == "img3.png" and "img3.png" in app.listed
        app.catalog.refresh()
        await until(pilot, lambda: app.catalog.state == "ready")
        app.pane.poll()
        assert app.current == "img3.png" and "img3.png" in app.listed
        await pilot.press("R")
        assert "img3.png" not in app.listed


async def test_order_by_key_and_by_heading(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        app.pane.table.tokens = True
        await pilot.press("o", "O")
        assert (app.session.sort, app.session.descending) == ("size", True)
        assert app.listed[0] == "img29.png"
        header = app.query_one(DatasetHeader)
        await until(pilot, lambda: "size▼" in "".join(piece.text for piece in header.render_line(0)))
        at = {column.key: column.left for column in app.pane.table.columns}
        await pilot.click(header, offset=(at["name"] + 1, 0))
        assert (app.session.sort, app.session.descending) == ("name", False)
        await pilot.click(header, offset=(at["name"] + 1, 0))
        assert app.session.descending and app.listed[0] == "img29.png"
        await pilot.click(header, offset=(at["state"] + 1, 0))
        assert app.listed[0] == "img4.png"


async def test_stars_are_given_and_kept(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("plus", "plus", "j", "plus", "minus", "minus")
        assert [row.stars for row in app.pane.listing.rows[:2]] == [2, 0]
        assert "★★" in lines(app)[0]
        await until(pilot, lambda: load_sidecar(folder).stars("img0.png") == 2)


async def test_n_goes_from_problem_to_problem_round_the_end(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("n")
        assert app.current == "img4.png"
        assert "no caption" in lines(app)[4] and "✗" in lines(app)[4]
        note = app.query_one(DatasetNote)
        assert note.display and "no caption" in note.text and ".txt" in note.text
        await pilot.press("n", "N", "N")
        assert app.current == "img29.png"
        await pilot.press("n")
        assert app.current == "img4.png"


async def test_without_problems_n_says_so(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    async with pane(tmp_path) as (app, pilot):
        await pilot.press("n")
        assert app.said and not app.query_one(DatasetNote).display


async def test_the_path_is_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pane(folder) as (app, pilot):
        copied: list[str] = []
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        await pilot.press("y")
        assert copied == [str(folder / "img0.png")]


async def test_the_mouse_chooses_and_edits(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.click(app.pane.table, offset=(5, 3))
        assert app.current == "img3.png" and app.edits == 0
        await pilot.click(app.pane.table, offset=(5, 6), times=2)
        assert app.current == "img6.png" and app.edits == 1
        app.pane.table.scroll_to(y=5, animate=False)
        await pilot.pause()
        await pilot.click(app.pane.table, offset=(5, 0))
        assert app.current == "img5.png"


async def test_an_edit_during_a_run_is_told_in_the_row(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        app.session.edited[str(folder / "img1.png")] = 7
        await until(pilot, lambda: "from epoch 7" in lines(app)[1])
        app.session.edited.clear()
        await until(pilot, lambda: "enlarged" in lines(app)[1])


async def test_a_session_is_taken_up_where_it_was(folder: Path) -> None:
    session = SessionState(cursor=str(folder / "img21.png"), filter="ball", sort="size", descending=True)
    async with pane(folder, session, size=(60, 12)) as (app, _):
        assert app.current == "img21.png" and app.listed[0] == "img27.png"
        assert app.query_one(Input).value == "ball" and app.query_one(Input).display
        assert any(line.startswith("> img21.png") for line in lines(app))
    async with pane(folder, SessionState(sort="colour", cursor="/gone")) as (app, _):
        assert app.session.sort == "name" and app.current == "img0.png"


async def test_new_and_removed_pictures_leave_the_cursor_on_its_picture(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("j", "j")
        add(folder, "aaa.png")
        (folder / "img0.png").unlink()
        await pilot.press("R")
        await until(pilot, lambda: "aaa.png" in app.listed)
        assert app.current == "img2.png" and "img0.png" not in app.listed
        (folder / "img2.png").unlink()
        await pilot.press("R")
        await until(pilot, lambda: "img2.png" not in app.listed)
        assert app.current == "img3.png"
        await until(pilot, lambda: app.chosen[-1] is app.pane.chosen)


async def test_places_without_pictures_say_what_to_do(tmp_path: Path) -> None:
    async with pane(None) as (app, pilot):
        assert "No dataset" in " ".join(lines(app)) and app.chosen == []
        await pilot.press("j", "plus", "y", "enter", "G", "ctrl+d", "n")
        assert app.edits == 0
    async with pane(tmp_path) as (app, _):
        assert "No pictures" in " ".join(lines(app))
    async with pane(tmp_path / "gone") as (app, _):
        assert "does not exist" in " ".join(lines(app))
    add(tmp_path, "a.png")
    async with pane(tmp_path) as (app, pilot):
        await pilot.press("slash", "z", "z")
        assert "No picture holds these words" in " ".join(lines(app)) and app.chosen[-1] is None
        await pilot.press("enter", "enter", "j", "n", "plus", "y", "G", "pageup", "o")
        assert app.edits == 0 and app.pane.check_action("edit", ()) and app.session.filter == "zz"
        await pilot.press("escape")
        assert app.current == "a.png"


async def test_without_pictures_the_keys_are_free_for_others() -> None:
    async with pane(None) as (app, _):
        keys = {binding.binding.id for binding in app.screen.active_bindings.values()}
        assert not keys & {"dataset.problem", "dataset.edit", "dataset.filter"}


async def test_while_words_are_typed_only_the_cursor_keys_are_ours(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("slash")
        active = {binding.binding.id for binding in app.screen.active_bindings.values()}
        assert not active & {"dataset.more", "dataset.filter", "dataset.sort"}
        await pilot.press("down", "down")
        assert app.current == "img2.png"
        await pilot.press("plus", "slash")
        assert app.session.filter == "+/" and app.pane.listing.rows == []


async def test_pasted_words_are_safe(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("slash")
        app.query_one(Input).insert_text_at_cursor("a\x1b[31m\u202e")
        await pilot.pause()
        assert app.session.filter.isprintable()


@pytest.mark.parametrize("width", (20, 34, 46, 60, 80, 200))
@pytest.mark.parametrize("ascii_terminal", (False, True), ids=("unicode", "ascii"))
async def test_every_line_is_as_wide_as_the_table(folder: Path, width: int, ascii_terminal: bool) -> None:
    add(folder, "sub/日本語の写真ファイル名とても長い名前です.png", None)
    add(folder, "a very long name of a picture " * 6 + ".png")
    async with pane(folder, size=(width, 12), ascii_terminal=ascii_terminal) as (app, _):
        table = app.pane.table
        for y in range(table.size.height):
            strip = table.render_line(y)
            assert sum(piece.cell_length for piece in strip) == table.size.width - 1
            assert all(piece.style is not None for piece in strip)
            if ascii_terminal:
                assert all(char.isascii() or char > "\u2fff" for char in strip.text)


def test_columns_and_cells() -> None:
    row = Row(Path("a.png"), "a.png", Path("a.txt"), "x", 832, 1216, (832, 1216), 90, 600, 3, picture_mark=(1, 1))
    limits = Limits()
    told = {column.key: cell_of(row, column, limits, 0, UNICODE)[0].strip() for column in columns_for(90)}
    assert told == {
        "name": "a.png", "size": "832x1216", "bucket": "832x1216",
        "tokens": "90+/600!", "stars": "★★★", "state": "! caption cut",
    }  # fmt: skip
    row.t5 = 30
    assert cell_of(row, columns_for(90)[-1], limits, 0, UNICODE)[0].strip() == "✓ ok"
    row.width = row.height = 400
    assert cell_of(row, columns_for(90)[-1], limits, 0, UNICODE)[0].strip() == "! much enlarged"
    row.t5 = 600
    assert is_problem(row, limits) and not is_problem(row, Limits(t5=600))
    narrow = {column.key: cell_of(row, column, limits, 12, ASCII)[0].strip() for column in columns_for(46)}
    assert (narrow["stars"], narrow["state"], narrow["tokens"]) == ("3*", ">", "90/600!")
    assert cell_of(row, columns_for(46, longest=12)[-1], limits, 12, ASCII)[0].strip() == "> epoch 12"
    assert [column.key for column in columns_for(46, tokens=False)] == ["name", "size", "stars", "state"]
    stars = columns_for(46)[3]
    whole = columns_for(78)[4]
    assert whole.width == 5 and label_of(whole, "name", False, UNICODE) == "stars"
    assert label_of(whole, "stars", True, UNICODE) == "★▼   ", "no word that lost its end"
    assert label_of(stars, "name", False, ASCII) == "* " and label_of(stars, "stars", True, ASCII) == "*v"
    for width in range(1, 120):
        for column in columns_for(width):
            assert len(label_of(column, "name", False, UNICODE)) == column.width


@pytest.mark.parametrize(
    ("width", "longest", "keys"),
    [
        (78, 12, "name size bucket tokens stars state"),
        (60, 12, "name size tokens stars state"),
        (45, 12, "name size tokens stars state"),
        (41, 12, "name size tokens stars state"),
        (36, 12, "name tokens stars state"),
        (24, 12, "name stars state"),
        (10, 12, "name state"),
        (41, 60, "name size tokens stars state"),
    ],
)
def test_short_names_leave_room_for_the_figures(width: int, longest: int, keys: str) -> None:
    columns = columns_for(width, longest=longest)
    assert " ".join(column.key for column in columns) == keys
    assert columns[0].width == longest or width in (10, 41)
    assert columns[-1].left + columns[-1].width <= max(width, 5)


def test_a_class_picture_is_told_by_a_word_or_a_letter() -> None:
    row = Row(Path("a.png"), "a.png", Path("a.txt"), "x", picture_mark=(1, 1), regularization=True)
    told = [
        cell_of(row, columns_for(width, longest=12)[-1], Limits(), 0, UNICODE)[0].strip() for width in (80, 45, 41)
    ]
    assert told == ["✓ class picture", "✓ class", "c"]


async def test_headings_stand_over_their_columns(folder: Path) -> None:
    for width in (43, 50, 80):
        async with pane(folder, size=(width, 24)) as (app, _):
            header, table = app.query_one(DatasetHeader), app.pane.table
            heading = header.render_line(0).text
            size = next(column for column in table.columns if column.key == "size")
            assert heading[: size.left + size.width].endswith("size")
            assert lines(app)[0][: size.left + size.width].endswith(" 8x8")


async def test_the_programs_own_pictures_take_no_stars() -> None:
    train = SHIPPED / "models/pocket/demo/train"
    async with pane(train) as (app, pilot):
        await pilot.press("plus")
        await until(pilot, lambda: bool(app.said))
        assert "take no stars" in app.said[0] and app.pane.chosen is not None and app.pane.chosen.stars == 0
        await pilot.press("X", "right_square_bracket")
        assert "take no notes" in app.said[-1] and app.pane.chosen.seen == 1
        assert not (train / SIDECAR_NAME).exists()


def test_long_names_lose_folders_first_and_then_the_middle() -> None:
    assert shortened("short.png", 12, UNICODE) == "short.png"
    assert shortened("a/long/folder/img_0001.png", 14, UNICODE) == "…/img_0001.png"
    assert shortened("a/long/folder/img_0001.png", 18, UNICODE) == "a/lo…/img_0001.png"
    assert shortened("ComfyUI_temp_00001_.png", 16, UNICODE) == "Comfy…00001_.png"
    assert shortened("ComfyUI_temp_00001_.png", 16, ASCII) == "Comf...0001_.png"


def test_the_keys_are_in_the_tables() -> None:
    ids = {key.id for key in ALL_KEYS}
    assert {"dataset.filter", "dataset.more", "filter.clear"} <= ids


async def test_a_note_without_room_keeps_the_remedy() -> None:
    app = PaneApp(Catalog(), SessionState())
    async with app.run_test(size=(40, 20)) as pilot:
        await pilot.pause()
        note = app.query_one(DatasetNote)
        note.tell("It cannot be read: " + "with many details " * 9, "error", "It cannot be read. Mend it.")
        assert "Mend it." in "".join(strip.text for strip in note.paint(38, 2))
        assert "many details" in "".join(strip.text for strip in note.paint(200, 2))


async def test_marks_by_keys_and_mouse_are_counted_in_the_title(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("m", "m", "j", "M")
        assert "4 marked" in str(app.pane.border_title) and app.current == "img3.png"
        assert [line[1] for line in lines(app)[:5]] == ["●", "●", "●", "●", " "]
        await pilot.press("slash", "h", "o", "u", "s", "e", "enter", "ctrl+a")
        assert "18 marked" in str(app.pane.border_title) and app.pane.listing.scope()[1] == "marked"
        await pilot.press("escape", "U")
        assert "marked" not in str(app.pane.border_title)
        await pilot.click(app.pane.table, offset=(0, 2))
        await pilot.click(app.pane.table, offset=(9, 4), shift=True)
        assert [row.name for row in app.pane.listing.scope()[0]] == ["img2.png", "img3.png", "img4.png"]
        await pilot.click(app.pane.table, offset=(9, 3), control=True)
        assert app.pane.listing.marked == 2 and app.current == "img3.png"


async def test_a_mistake_in_the_filter_is_told_under_it_and_the_last_good_one_holds(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("slash", *"ball")
        assert len(app.listed) == 8
        await pilot.press("space", "(")
        fault = app.query_one(FilterFault)
        assert len(app.listed) == 8 and fault.display
        told = [strip.text.rstrip() for strip in fault.paint(40, 2)]
        assert told == ["     ^", "✗ column 6: ( wants something after it"]
        assert len(fault.paint(20, 2)) == 2 and "^" not in fault.paint(20, 2)[0].text
        await pilot.press(*"number OR empty:)")
        assert not fault.display and len(app.listed) == 8
        await pilot.press("f5", "escape", "escape")
        assert len(app.listed) == 30 and app.pane.listing.fault is None


async def test_the_name_of_a_field_is_completed(folder: Path) -> None:
    async with pane(folder) as (app, pilot):
        await pilot.press("slash", *"ball (st")
        await until(pilot, lambda: app.query_one(Input)._suggestion == "ball (stars:")
        await pilot.press("right", *">=1)")
        assert app.session.filter == "ball (stars:>=1)" and app.listed == []
    assert completed("-ED") == "-edited:" and completed("t") is None and completed("stars:") is None


def test_signs_of_what_is_excluded_repeated_or_edited() -> None:
    row = Row(Path("a.png"), "a.png", Path("a.txt"), "x", 832, 1216, (832, 1216), picture_mark=(1, 1), loss=0.123456)
    state, narrow = columns_for(90)[-1], columns_for(24, longest=12)[-1]
    row.own_repeats, row.edited = 3, True
    assert cell_of(row, state, Limits(), 0, UNICODE)[0].strip() == "✓ ok ×3 ~"
    assert cell_of(row, state, Limits(), 0, ASCII)[0].strip() == "+ ok x3 ~"
    assert cell_of(row, state, Limits(), 7, UNICODE)[0].strip() == "▸ epoch 7 ×3"
    row.severity, row.excluded = "error", True
    assert cell_of(row, state, Limits(), 0, UNICODE)[0].strip() == "× excluded ×3 ~"
    assert cell_of(row, narrow, Limits(), 0, UNICODE) == ("×", "dim") and not is_problem(row, Limits())
    loss = next(column for column in columns_for(90, extra="loss") if column.key == "loss")
    assert cell_of(row, loss, Limits(), 0, UNICODE)[0].strip() == "0.12"


async def test_measured_values_are_sorted_by_and_shown_only_then(folder: Path) -> None:
    async with pane(folder, size=(100, 24)) as (app, pilot):
        for number, row in enumerate(app.catalog.rows[:20]):
            row.sharp = number * 5
        app.session.sort = "state"
        await pilot.press("o", "O")
        assert app.session.sort == "sharp" and app.listed[0] == "img19.png"
        assert " 95 %" in lines(app)[0] and "sharp" in app.query_one(DatasetHeader).render_line(0).text
        await pilot.press("o")
        assert app.session.sort == "name" and "%" not in lines(app)[0], "no losses were measured"

"""The preview: cells, Kitty's and Sixel's pixels over them, and nothing left behind; gauges and facts beside it."""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widgets import Static
from watching import until

from engine.config import BucketConfig, DatasetConfig
from engine.dataset.tokens import measure
from tui.catalog import Row
from tui.safe import install_backstop
from tui.settings import Settings
from tui.terminal.traits import Traits
from tui.thumbnails import Thumbnail, Thumbnails
from tui.widgets.gauges import Counted
from tui.widgets.graphics import kitty_picture, placed, sixel_picture
from tui.widgets.overlays import darkened
from tui.widgets.picture import picture_cells
from tui.widgets.picture_info import crop_of, facts_of, placement_of
from tui.widgets.preview import (
    KITTY_NUMBER,
    MOST_PIXELS,
    USUAL_CELL,
    Drawings,
    Drawn,
    Preview,
    Wanted,
    draw,
    how_to_draw,
    with_pixels,
)  # fmt: skip


def noise(width: int = 90, height: int = 60, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def decoded_sixel(sequence: str) -> NDArray[np.uint8]:
    """What a terminal makes of a Sixel sequence."""
    head = re.match(r'\x1bP0;1;0q"1;1;(\d+);(\d+)', sequence)
    assert head and sequence.endswith("\x1b\\")
    width, height = int(head[1]), int(head[2])
    pixels = np.zeros((height, width, 3), np.uint8)
    palette: dict[int, tuple[int, ...]] = {}
    x = top = 0
    colour: tuple[int, ...] = (0, 0, 0)
    token = re.compile(r"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)([?-~])|([?-~])|([$-])")
    for match in token.finditer(sequence[head.end() : -2]):
        number, *rgb = match.group(1, 2, 3, 4)
        if number is not None:
            if rgb[0] is not None:
                palette[int(number)] = tuple(round(int(part) * 2.55) for part in rgb)
            colour = palette[int(number)]
        elif match[8]:
            x, top = 0, top + 6 * (match[8] == "-")
        else:
            count, char = int(match[5] or 1), match[6] or match[7]
            for bit in range(6):
                if ord(char) - 63 >> bit & 1:
                    assert top + bit < height and x + count <= width
                    pixels[top + bit, x : x + count] = colour
            x += count
    return pixels


def test_sixel_shows_the_picture() -> None:
    flat = np.zeros((20, 33, 3), np.uint8)
    flat[3:9, 5:20] = (200, 40, 10)
    flat[10:, 20:] = (10, 90, 250)
    shown = decoded_sixel(sixel_picture(flat))
    assert np.abs(shown.astype(int) - flat).max() <= 4
    photo = np.asarray(Image.effect_noise((100, 70), 60).convert("RGB"))
    assert np.abs(decoded_sixel(sixel_picture(photo)).astype(int) - photo).mean() < 8


def test_kitty_gets_the_picture_in_pieces_and_is_asked_nothing() -> None:
    pixels = noise()
    sequence = kitty_picture(pixels, 7)
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sequence)
    assert "".join(f"\x1b_G{head};{data}\x1b\\" for head, data in parts) == sequence
    assert all("q=2" in head and len(data) <= 4096 for head, data in parts)
    assert [head[-1] for head, _ in parts] == ["1"] * (len(parts) - 1) + ["0"]
    with Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in parts)))) as picture:
        assert np.array_equal(np.asarray(picture), pixels)


def test_the_cursor_comes_back() -> None:
    assert placed("X", 4, 2) == "\x1b7\x1b[3;5HX\x1b8"


@pytest.mark.parametrize(("manner", "signs"), [("quadrants", None), ("halves", {"▀"}), ("ascii", None)])
def test_cells_fill_the_box_as_far_as_they_fit(manner: Any, signs: set[str] | None) -> None:
    cells = picture_cells(noise(), 30, 20, manner)
    assert (cells.columns, cells.rows) == (30, 10)
    lines = ["".join(text for text, _, _ in line) for line in cells.lines]
    assert {len(line) for line in lines} == {30} and len(lines) == 10
    assert signs is None or {char for line in lines for char in line} == signs
    assert manner != "ascii" or all(line.isascii() for line in lines)


def test_what_the_crop_cuts_off_is_dark() -> None:
    pixels = np.full((10, 20, 3), 200, np.uint8)
    dark = darkened(pixels, (0.25, 0.0, 0.75, 1.0))
    assert dark[5, 4, 0] < 100 and dark[5, 5, 0] == 200 and dark[5, 14, 0] == 200 and dark[5, 15, 0] < 100
    assert darkened(pixels, (0.0, 0.0, 1.0, 1.0)) is pixels is darkened(pixels, None)


class PaintedThumbnails(Thumbnails):
    """Pictures of noise; a name that begins with "slow" waits, one with "bad" is a problem."""

    def __init__(self) -> None:
        super().__init__(None, Path("/nowhere"))  # type: ignore[arg-type]
        self.asked: list[str] = []
        self.go_on = threading.Event()

    def load(self, path: Path) -> Thumbnail:
        self.asked.append(path.name)
        if path.name.startswith("slow"):
            self.go_on.wait(30)
        if path.name.startswith("bad"):
            return Thumbnail(None, "Not a picture: \\x1b]52", "Remove it.")
        return Thumbnail(noise(seed=len(path.name)))


class Place:
    """As much of a workplace as the preview asks for."""

    def __init__(self, images: str) -> None:
        self.settings = Settings.model_validate({"images": images})


class PreviewApp(App[None]):
    """One preview; what is written to the terminal besides frames is in ``written``."""

    CSS_PATH: ClassVar = [Path(__file__).parents[2] / "tui/screens/caption.tcss"]
    CSS = "Preview { height: 12; width: 30; }"

    def __init__(self, images: str = "auto", traits: Traits | None = None, ascii_terminal: bool = False) -> None:
        super().__init__()
        install_backstop()
        self.workplace = Place(images)
        self.traits = traits or Traits()
        self.ascii_terminal = ascii_terminal
        self.written: list[str] = []
        self.thumbnails = PaintedThumbnails()
        self.preview = Preview(self.thumbnails)

    def compose(self) -> ComposeResult:
        yield self.preview

    def on_mount(self) -> None:
        assert self._driver is not None
        self._driver.write = self.take  # type: ignore[method-assign]

    def take(self, data: str) -> None:
        if "\x1b_G" in data or "\x1bP" in data:
            self.written.append(data)

    def on_unmount(self) -> None:
        self.thumbnails.go_on.set()
        self.thumbnails.close()


def pixels_sent(protocol: str, columns: int, rows: int, cell: tuple[int, int]) -> tuple[Drawn, int, int]:
    """A picture of 90 x 60 pixels drawn in a box, with the size of what is sent."""
    thumbnails = PaintedThumbnails()
    wanted = Wanted(Path("a.png"), 0, None, columns, rows, "quadrants", protocol, cell)
    drawn = with_pixels(thumbnails, wanted, draw(thumbnails, wanted))
    thumbnails.close()
    if protocol == "sixel":
        height, width = decoded_sixel(drawn.graphic).shape[:2]
        return drawn, width, height
    data = "".join(re.findall(r";([^\x1b]*)\x1b", drawn.graphic))
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return drawn, *picture.size


def test_what_the_terminal_can_enlarge_is_not_sent_enlarged() -> None:
    assert pixels_sent("kitty", 200, 100, (40, 80))[1:] == (90, 60)
    assert pixels_sent("kitty", 4, 2, (10, 20))[1:] == (40, 20)


def test_a_sixel_picture_is_bounded_and_fills_its_cells() -> None:
    drawn, width, height = pixels_sent("sixel", 200, 100, (40, 80))
    assert (width, height) == (drawn.cells.columns * 40, drawn.cells.rows * 80)
    assert MOST_PIXELS / 2 < width * height <= MOST_PIXELS
    drawn, width, height = pixels_sent("sixel", 30, 12, (10, 20))
    assert (drawn.cells.columns, drawn.cells.rows) == (30, 10) and (width, height) == (300, 200)


@pytest.mark.parametrize("cell", [(0, 0), (10, 0), (200, 40), (12, 4000), (-1, 20)])
def test_odd_sizes_of_cells_are_not_believed(cell: tuple[int, int]) -> None:
    app = PreviewApp(traits=Traits(images="sixel", cell_width=cell[0], cell_height=cell[1]))
    assert how_to_draw(app) == ("quadrants", "sixel", USUAL_CELL)
    app.thumbnails.close()


def test_drawings_are_kept_as_far_as_there_is_room() -> None:
    wanted = [Wanted(Path(str(number)), 0, None, 1, 1, "quadrants") for number in range(4)]
    drawn = Drawn(picture_cells(noise(), 1, 1, "quadrants"), graphic="x" * 10_000)
    kept = Drawings(3 * drawn.bytes)
    for one in wanted[:3]:
        kept.put(one, drawn)
    kept.put(wanted[1], drawn)
    assert kept.get(wanted[0]) is drawn
    kept.put(wanted[3], drawn)
    assert [one in kept for one in wanted] == [True, True, False, True]
    kept.put(wanted[2], Drawn(drawn.cells, graphic="x" * 100_000))  # larger than all room: it alone
    assert [one in kept for one in wanted] == [False, False, True, False]


@asynccontextmanager
async def opened(app: PreviewApp) -> AsyncIterator[Pilot[None]]:
    async with app.run_test(size=(80, 24)) as pilot:
        yield pilot


def lines_of(app: PreviewApp) -> list[str]:
    preview = app.preview
    return [strip.text for strip in preview.paint(preview.size.width, preview.size.height)]


async def test_cells_by_default_and_no_protocol() -> None:
    app = PreviewApp()
    async with opened(app) as pilot:
        app.preview.show_picture(Path("a.png"))
        await until(pilot, lambda: any("▚" in line or "▌" in line for line in lines_of(app)))
        assert all(len(line) == 30 for line in lines_of(app)) and not app.written


@pytest.mark.parametrize(("images", "sign"), [("half", "▀"), ("off", "")])
async def test_as_the_settings_say(images: str, sign: str) -> None:
    app = PreviewApp(images, Traits(images="kitty"))
    async with opened(app) as pilot:
        app.preview.show_picture(Path("a.png"))
        if sign:
            await until(pilot, lambda: sign in "".join(lines_of(app)))
        assert set("".join(lines_of(app))) <= {" ", sign} and (not app.written or images == "half")
        assert images != "off" or not app.thumbnails.asked


async def test_an_ascii_terminal_gets_ascii() -> None:
    app = PreviewApp(traits=Traits(images="kitty"), ascii_terminal=True)
    async with opened(app) as pilot:
        app.preview.show_picture(Path("a.png"))
        await until(pilot, lambda: "".join(lines_of(app)).strip())
        assert "".join(lines_of(app)).isascii() and not app.written


async def test_a_bad_picture_says_so() -> None:
    app = PreviewApp(traits=Traits(images="kitty"))
    async with opened(app) as pilot:
        app.preview.show_picture(Path("bad.png"))
        await until(pilot, lambda: "Not a picture" in "".join(lines_of(app)))
        assert "Remove it." in " ".join(lines_of(app)) and not app.written


async def test_of_a_fast_walk_only_the_last_picture_is_decoded() -> None:
    app = PreviewApp()
    async with opened(app) as pilot:
        for name in ("slow1", "slow2"):  # both threads are busy
            app.preview.show_picture(Path(name))
            await until(pilot, lambda name=name: name in app.thumbnails.asked)
        for number in range(50):
            app.preview.show_picture(Path(f"{number}.png"))
            await pilot.pause()
        await until(pilot, lambda: "░" in "".join(lines_of(app)))
        app.thumbnails.go_on.set()
        await until(pilot, lambda: "49.png" in app.thumbnails.asked)
        assert app.thumbnails.asked == ["slow1", "slow2", "49.png"]


class Cover(ModalScreen[None]):
    """Something over the picture."""

    def compose(self) -> ComposeResult:
        yield Static("over it")


def frame(app: PreviewApp) -> str:
    """All that a whole new frame writes."""
    update = app.screen._compositor.render_full_update()
    return "".join(str(strip.render(app.console)) for line in update.strips for strip in line)


async def test_kitty_pixels_come_and_go_with_the_picture() -> None:
    app = PreviewApp(traits=Traits(images="kitty", cell_width=10, cell_height=20))
    show, forget = f"\x1b_Ga=p,i={KITTY_NUMBER}", f"\x1b_Ga=d,d=I,i={KITTY_NUMBER},q=2\x1b\\"
    async with opened(app) as pilot:
        app.preview.show_picture(Path("a.png"))
        await until(pilot, lambda: show in frame(app))
        assert len(app.written) == 1 and "a=t,t=d,f=100" in app.written[0]
        app.preview.show_picture(Path("another.png"))
        await until(pilot, lambda: len(app.written) == 2 and app.written[1].startswith(forget))
        app.written.clear()
        await app.push_screen(Cover())
        await until(pilot, lambda: app.written == [forget])
        assert show not in frame(app)
        await app.pop_screen()
        await until(pilot, lambda: len(app.written) == 2 and show in frame(app))
        app.preview.display = False
        await until(pilot, lambda: app.written[-1] == forget)
        app.preview.display = True
        await until(pilot, lambda: "a=t,t=d,f=100" in app.written[-1] and show in frame(app))
        app.written.clear()
    assert app.written == [forget]


async def test_a_toast_over_the_picture_hides_the_pixels() -> None:
    app = PreviewApp(traits=Traits(images="kitty"))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        app.preview.styles.width = app.preview.styles.height = "1fr"
        app.preview.show_picture(Path("a.png"))
        await until(pilot, lambda: "a=p" in frame(app))
        app.notify("over it", timeout=60)
        await until(pilot, lambda: "a=d" in app.written[-1] and "a=p" not in frame(app))
        app.clear_notifications()
        await until(pilot, lambda: "a=p" in frame(app))


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
async def test_sixel_pixels_lie_where_the_cells_are(beside: bool) -> None:
    app = PreviewApp(traits=Traits(images="sixel", cell_width=10, cell_height=20))
    async with opened(app) as pilot:
        if beside:
            app.screen.styles.layout = "horizontal"
            await app.mount(Static("beside it"))
        app.preview.show_picture(Path("a.png"))
        await until(pilot, lambda: "\x1bP0;1" in frame(app))
        (place,) = re.findall(r'\x1b7\x1b\[(\d+);(\d+)H\x1bP0;1;0q"1;1;(\d+);(\d+)', frame(app))
        assert [int(part) for part in place] == [2, 1, 300, 200]
        assert "\x1b\\\x1b8" in frame(app) and all(strip.cell_length == 30 for strip in app.preview.render_lines(
            app.preview.size.region
        ))  # fmt: skip


async def test_the_pixels_are_written_with_the_pictures_last_line_alone() -> None:
    app = PreviewApp(traits=Traits(images="sixel"))
    async with opened(app) as pilot:
        app.preview.show_picture(Path("a.png"))
        await until(pilot, lambda: "\x1bP0;1" in frame(app))
        strips = app.preview.render_lines(app.preview.size.region)
        assert [y for y, strip in enumerate(strips) if "\x1bP" in strip.render(app.console)] == [10]


def row(**values: Any) -> Row:
    made = Row(Path("a.png"), "a.png", Path("a.txt"))
    for name, value in values.items():
        setattr(made, name, value)
    return made


def dataset(**buckets: Any) -> DatasetConfig:
    return DatasetConfig.model_validate({"folders": [{"path": "x"}], "resolution": 512, "buckets": buckets})


def test_facts_of_a_picture() -> None:
    wide = row(width=2000, height=1000, format="JPEG")
    placement = placement_of(wide, dataset())
    assert placement is not None
    facts = facts_of(wide, placement, "->")
    bucket = f"{placement.bucket_w}x{placement.bucket_h}"
    assert facts.parts[0] == f"2000x1000 -> bucket {bucket}" and "JPEG" in facts.parts
    crop = crop_of(wide, placement)
    assert crop is not None and 0 <= crop[0] < crop[2] <= 1
    small = row(width=100, height=100)
    assert "enlarged 5.1 times" in facts_of(small, placement_of(small, dataset()), "->").parts
    assert placement_of(row(), dataset()) is None and placement_of(wide, None) is None
    assert placement_of(row(width=8, height=8), dataset(no_upscale=True)) is None
    assert isinstance(dataset().buckets, BucketConfig)


def test_a_problem_is_told_in_words() -> None:
    bad = row(problem="broken \x1b[31m", severity="error", hint="Remove it.")
    facts = facts_of(bad, None, "->")
    assert facts.problem == "error: broken \\x1b[31m" and facts.bad


class WordTokenizer:
    """Every word is a token."""

    def count(self, text: str) -> int:
        return len(text.split())

    def cut(self, text: str, length: int) -> int | None:
        starts = [found.start() for found in re.finditer(r"\S+", text)]
        return starts[length] if len(starts) > length else None

    def pieces(self, word: str) -> list[str]:
        return [word]


@pytest.mark.parametrize(("words", "cut"), [(5, None), (8, None), (9, 8), (40, 8)])
def test_where_a_text_is_cut(words: int, cut: int | None) -> None:
    text = " ".join(f"w{number}" for number in range(words))
    word = WordTokenizer()
    counted = measure(text, text, word, word, (8, 1000))
    assert counted.clip == words and counted.t5_cut is None
    assert counted.clip_cut == (None if cut is None else len(" ".join(text.split()[:cut]) + " "))


def test_without_tokenizers_nothing_is_counted() -> None:
    assert Counted.of("text", None) == Counted(text="text")

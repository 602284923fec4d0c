"""The parts of a report: markup, paths, charts, which pictures, how large, and the contact sheet."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from made_run import Shape, made_run, picture
from outline import Outline
from PIL import Image

from engine.dataset.decoder import Decoder
from tui.judged import Judged
from tui.reporting import sheet
from tui.reporting.chart import Line, Marks, Point, chart, ticks
from tui.reporting.facts import own_pictures, read_facts
from tui.reporting.markup import Markup, element, escaped, joined, table
from tui.reporting.pictures import Pictures, encoded, make_pictures
from tui.reporting.plan import by_weight, evenly, sample_key, wanted
from tui.reporting.privacy import Shortener
from tui.reporting.settings_table import defaults, flat

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "]]>", "</style>",
    "-->", "&lt;script&gt;", "data:text/html;base64,PHNjcmlwdD4=", "a\u202eb", "\x1b]52;c;x\x07", "\ud800", "a\0b",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text_wherever_it_is_put(text: str) -> None:
    made = element("p", text, title=text, data_x=text)
    read = Outline(made)
    assert [name for name, _ in read.elements] == ["p"]
    assert sorted(read.elements[0][1]) == ["data-x", "title"]
    shown = read.text()
    assert shown == read.elements[0][1]["title"]
    assert "\u202e" not in shown and "\x1b" not in shown and "\0" not in shown


def test_what_is_markup_is_not_escaped_twice() -> None:
    inner = element("b", "a & b")
    assert inner == "<b>a &amp; b</b>"
    assert element("p", inner, hidden=True, id=None) == "<p hidden><b>a &amp; b</b></p>"
    assert joined([inner, "<"], Markup("<br/>")) == "<b>a &amp; b</b><br/>&lt;"
    assert escaped(escaped("<")) == "&lt;"


def test_a_table_has_headings_of_rows_and_columns() -> None:
    read = Outline(table(("a", "b"), [("1", "<2>")], "both"))
    assert [one["scope"] for one in read.all("th")] == ["col", "col", "row"]
    assert "<2>" in read.text() and read.all("div")[0]["tabindex"] == "0"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("writing /home/joe/work/x.bin failed", "writing x.bin failed"),
        ("in '/srv/data/cats'", "in 'cats'"),
        ("/home/joe", "~"),
        ("~/pictures/cat.png: gone", "cat.png: gone"),
        ("/root/a.png and /root", "a.png and ~"),
        ("a cat and/or a dog, 3/4 view, 1 / 2", "a cat and/or a dog, 3/4 view, 1 / 2"),
        ("/secret place/my pictures/a b.png", "my pictures/a b.png"),
        ("https://host.example/a/b", "https://host.example/a/b"),
    ],
)
def test_paths_are_told_by_their_last_names(text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    assert Shortener([Path("/secret place/my pictures")]).text(text) == told


def test_settings_are_told_without_folders_and_against_what_they_come_as(tmp_path: Path) -> None:
    with Decoder() as decoder:
        facts = read_facts(made_run(tmp_path / "runs"), decoder)
    assert facts.config is not None
    every = flat(facts.config, facts.shorten)
    assert every["dataset.folders[1].path"] == "data" and every["model.t5"] == "t5.safetensors"
    assert every["dataset.captions.trigger_word"] == "zorple"
    assert not [value for value in every.values() if "/" in value]
    plain = defaults()
    assert plain["lora.rank"] == "16" and plain["dataset.folders[*].repeats"] == "0"
    assert plain["dataset.resolution"] == "1024" and "dataset.folders[*].path" not in plain


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.31, 0.56, [0.35, 0.4, 0.45, 0.5, 0.55]), (0, 300, [0, 100, 200, 300])],
)
def test_ticks_are_round_and_inside(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(found)
    assert ticks(3, 3, 5) == [3] and ticks(0, float("inf"), 5) == [0]


def test_a_chart_tells_every_point_and_leaves_out_what_is_no_number() -> None:
    nan = float("nan")
    line = Line("held out", (Point(0, 2.0, 0.1), Point(2, nan), Point(4, 1.0), Point(6, float("inf"))))
    marks = Marks(3, 5, "recommended", ((4, "chosen"),), ((4, "cat.safetensors"), (99, "not shown")))
    read = Outline(chart("Loss <x>", [line, Line("nothing", ())], marks=marks))
    titles = [text for tag, text in read.texts if tag == "title"]
    assert titles[:4] == ["Loss <x>", "recommended", "cat.safetensors", "chosen"]
    assert titles[4].startswith("held out: 2.0") and "±" in titles[4] and titles[5].endswith("at epoch 4")
    assert len(read.all("circle")) == 2
    assert "lowest 1" in str(read.all("svg")[0]["aria-label"])
    assert not [value for _, attributes in read.elements for value in attributes.values() if "nan" in str(value)]


def test_one_point_and_one_value_make_a_chart_and_no_points_none() -> None:
    assert "<circle" in chart("x", [Line("a", (Point(3, 0.0),))])
    assert chart("x", [Line("a", ())]) == ""


def test_any_number_of_epochs_lies_evenly_over_the_run() -> None:
    order = list(dict.fromkeys(evenly(range(300))))
    assert sorted(order) == list(range(300))
    for count in (2, 5, 20, 90):
        some = sorted(order[:count])
        apart = [b - a for a, b in pairwise(some)]
        assert max(apart) <= 4 * 300 / count, (count, some)


def test_what_has_to_be_decided_between_comes_first(tmp_path: Path) -> None:
    judged = Judged(chosen=3).with_opinion(9, stars=2)
    with Decoder() as decoder:
        facts = read_facts(made_run(tmp_path / "runs", judged=judged), decoder)
    assert facts.epochs == [0, 3, 6, 9, 12] and facts.is_advised(6)
    assert by_weight(facts) == [0, 3, 6, 12, 9], "base, chosen, advised, last, judged"


def test_the_picture_of_a_prompt_that_is_a_caption_stands_beside_it(tmp_path: Path) -> None:
    with Decoder() as decoder:
        facts = read_facts(made_run(tmp_path / "runs"), decoder)
    own = own_pictures(facts)
    assert own[0].path.name == "own4.png", "its caption with the trigger is the prompt"
    assert len({one.path for one in own.values()}) == 3


def test_a_link_out_of_the_folder_and_a_loop_are_not_followed(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "runs")
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(64, 9))
    for name, target in (("e0-0-1.png", secret), ("e0-1-1.png", folder / "samples" / "e0-1-1.png")):
        (folder / "samples" / name).unlink()
        (folder / "samples" / name).symlink_to(target)
    with Decoder() as decoder:
        facts = read_facts(folder, decoder)
    files, refused = wanted([facts])
    assert "link" in refused[sample_key(0, 0, 0, 1.0)] and sample_key(0, 0, 0, 1.0) not in files
    made = make_pictures(files, 10**6)
    assert sample_key(0, 0, 1, 1.0) in made.failed and len(made.made) == len(files) - 1


def noise(side: int, seed: int = 0) -> np.ndarray:
    """The hardest picture there is."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("most", [4_000, 40_000, 400_000])
def test_a_picture_is_made_poorer_then_smaller_until_it_fits(most: int) -> None:
    made = encoded(noise(512), most)
    assert len(made.data) <= most
    with Image.open(io.BytesIO(made.data)) as read:
        assert read.size == (made.width, made.height) and read.format == "WEBP"


def test_a_tiny_picture_keeps_its_pixels() -> None:
    pixels = noise(32)
    made = encoded(pixels, 100_000)
    assert made.is_tiny
    with Image.open(io.BytesIO(made.data)) as read:
        assert np.array_equal(np.asarray(read.convert("RGB")), pixels)


def test_pictures_share_their_budget_and_the_last_are_left_out(tmp_path: Path) -> None:
    files = {}
    for number in range(30):
        path = tmp_path / f"{number}.png"
        Image.fromarray(noise(256, number)).save(path)
        files[("sample", number)] = path
    roomy, tight, none = (make_pictures(files, budget) for budget in (10**7, 60_000, 100))
    assert len(roomy.made) == 30 and not roomy.left_out and roomy.side == 1024
    assert tight.size <= 60_000 and tight.side == 96
    kept = [key[1] for key in tight.made]
    assert 0 < len(kept) < 30 and kept == list(range(len(kept))), "the most important are kept"
    assert tight.left_out == set(files) - set(tight.made)
    assert not none.made and len(none.left_out) == 30


def test_nothing_of_a_file_but_its_pixels_comes_into_a_page(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    said.add_text("Comment", "<script>alert(1)</script> taken at home")
    path = tmp_path / "a.png"
    Image.fromarray(noise(64)).save(path, pnginfo=said)
    with path.open("ab") as file:
        file.write(b"<html><script>alert(1)</script>")
    made = make_pictures({("a",): path, ("b",): tmp_path / "gone.png"}, 10**6)
    assert b"script" not in made.made[("a",)].data and b"home" not in made.made[("a",)].data
    assert made.made[("a",)].uri.startswith("data:image/webp;base64,")
    assert made.failed[("b",)]


def drawn(folder: Path) -> tuple[Image.Image | None, Pictures]:
    """The sheet of a run's folder."""
    with Decoder() as decoder:
        facts = read_facts(folder, decoder)
    pictures = make_pictures(wanted([facts])[0], 10**7)
    return sheet.draw_sheet(facts, pictures), pictures


def test_the_sheet_has_a_column_for_each_epoch_and_marks_the_range(tmp_path: Path) -> None:
    made, _ = drawn(made_run(tmp_path / "runs", judged=Judged(chosen=6)))
    assert made is not None
    columns, cell = 6, sheet.CELL + sheet.GAP
    assert made.size == (sheet.LABEL + columns * cell, 2 * sheet.HEAD + 3 * cell)
    bar = [made.getpixel((sheet.LABEL + column * cell + 100, sheet.HEAD + 4)) for column in range(columns)]
    accent = tuple(bytes.fromhex(sheet.ACCENT[1:]))
    assert bar.count(accent) == 1 and bar.index(accent) == 3, "dataset, base, 3, then the advised 6"


def test_a_sheet_of_very_many_epochs_and_prompts_stays_within_its_size(tmp_path: Path) -> None:
    shape = Shape(epochs=120, every=1, prompts=[f"prompt {number} " + "words " * 40 for number in range(3)], side=16)
    made, pictures = drawn(made_run(tmp_path / "runs", shape=shape))
    assert made is not None and max(made.size) <= sheet.MOST
    assert len(pictures.made) == 3 * 121 + 3


def test_a_run_without_pictures_has_no_sheet(tmp_path: Path) -> None:
    made, _ = drawn(made_run(tmp_path / "runs", shape=Shape(prompts=())))
    assert made is None

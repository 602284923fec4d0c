"""The report in a real browser: it renders, enlarges by click and key, complains of nothing and asks for nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from made_run import PROMPTS, Shape, made_run

from tui.judged import Judged
from tui.reporting.writing import Wish, write_report

PROGRAM = browser.found()
pytestmark = pytest.mark.skipif(
    PROGRAM is None and os.environ.get("CI") != "true", reason="no chromium on this machine"
)

READY = "Promise.all([...document.images].filter(i => i.src).map(i => { i.loading = 'eager'; return i.decode(); }))"
ARROWS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("report") / "runs"
    judged = Judged(chosen=6).with_opinion(6, stars=4, note="<b>best</b>", wins=2, shown=3, recognisable="yes")
    made_run(runs, "owl", Shape(strengths=(0.6, 0.8)), judged)
    made_run(runs, "cat", Shape(bottom=9), lora={"rank": 32})
    write_report([runs / "owl"])
    write_report([runs / "owl", runs / "cat"], Wish(out=runs / "both.html"))
    return runs / "owl" / "report.html"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    assert PROGRAM is not None, "CI has no chromium: the gate installs it"
    with browser.Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as one:
        yield one


def quiet(one: browser.Browser, page: Path) -> None:
    """Nothing was complained of, and nothing asked for but the file."""
    assert one.complaints == []
    assert [url[:200] for url in one.requests if not url.startswith("data:")] == [page.absolute().as_uri()]


def test_a_page_renders_with_all_its_pictures(opened: browser.Browser, page: Path) -> None:
    opened.open(page)
    opened.ask(READY)
    assert opened.ask("document.title") == "owl: lorakiln report"
    assert opened.ask("document.querySelector('h1').textContent") == "owl"
    shots = "[...document.querySelectorAll('button.shot img')]"
    # base and four epochs, the dataset's column; three strengths of four epochs below
    assert opened.ask(f"{shots}.length") == 3 * (5 + 1) + 3 * 3 * 4
    assert opened.ask(f"{shots}.every(i => i.naturalWidth === 64)")
    assert opened.ask("document.querySelectorAll('.chart > svg').length") == 5
    assert opened.ask("[...document.querySelectorAll('h2')].map(h => h.textContent)")[:3] == [
        "Pictures", "Epochs", "Curves",
    ]  # fmt: skip
    quiet(opened, page)


def test_a_picture_is_enlarged_by_click_and_the_keys_walk(opened: browser.Browser, page: Path) -> None:
    opened.open(page)
    opened.click("tbody tr td:nth-child(3) button.shot")
    words = "document.getElementById('zoom-words').textContent"
    assert opened.ask("document.getElementById('zoom').open")
    assert opened.ask(words) == f"base model: {PROMPTS[0]}"
    assert opened.ask("document.getElementById('zoom-picture').getBoundingClientRect().width") > 400
    walked = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
        opened.press(key, ARROWS[key])
        walked.append(opened.ask(words))
    first, second, third = PROMPTS
    assert walked == [
        f"epoch 3: {first}", f"epoch 6: {first}", f"epoch 3: {first}",
        f"epoch 3: {second}", f"epoch 3: {third}", f"epoch 3: {third}", f"epoch 3: {second}",
    ]  # fmt: skip
    opened.press("Escape", ARROWS["Escape"])
    assert not opened.ask("document.getElementById('zoom').open")
    assert opened.ask("document.activeElement.querySelector('img').alt").startswith("epoch 3: ")
    opened.press("Enter", 13)
    quiet(opened, page)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_a_phone_and_follows_the_readers_colours(
    opened: browser.Browser, page: Path, width: int, dark: bool
) -> None:
    opened.open(page, width=width, dark=dark)
    assert opened.ask("document.documentElement.scrollWidth") <= width
    ground = opened.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(22, 21, 19)" if dark else "rgb(251, 250, 248)")
    # Text against its ground: at least 4.5 to 1, as WCAG has it, also the muted one.
    for selector in ("body", ".hint", ".badge", ".verdict"):
        assert opened.ask(CONTRAST % selector) >= 4.5, selector


CONTRAST = """(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let ground = document.querySelector("%s");
  const ink = light(getComputedStyle(ground).color);
  while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  const paper = light(getComputedStyle(ground).backgroundColor);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
})()"""


def test_a_link_leads_to_the_recommended_epoch(opened: browser.Browser, page: Path) -> None:
    opened.open(page, width=390)
    opened.click("nav a")
    assert opened.ask("document.querySelector('nav a').hash") == "#epoch-6"
    assert opened.ask("document.querySelector('.scroll').scrollLeft") > 0
    quiet(opened, page)


def test_several_runs_are_one_page(opened: browser.Browser, page: Path) -> None:
    both = page.parent.parent / "both.html"
    opened.open(both)
    opened.ask(READY)
    shots = "[...document.querySelectorAll('button.shot img')]"
    assert opened.ask(f"{shots}.length") == 2 * 3 * 5 and opened.ask(f"{shots}.every(i => i.naturalWidth > 0)")
    assert opened.ask("document.querySelector('#settings tbody th').textContent") == "lora.rank"
    opened.click("tbody tr:nth-child(2) button.shot")
    opened.press("ArrowRight", ARROWS["ArrowRight"])
    assert opened.ask("document.getElementById('zoom-picture').alt") == f"owl, epoch 3: {PROMPTS[0]}"
    quiet(opened, both)


def test_the_pages_policy_would_stop_what_got_past_the_escaping(
    opened: browser.Browser, page: Path, tmp_path: Path
) -> None:
    spoiled = tmp_path / "spoiled.html"
    smuggled = '<script>window.ran = 1</script><img id="out" src="http://127.0.0.1:9/x.png" onerror="window.ran = 2">'
    spoiled.write_text(page.read_text().replace("<main>", f"<main>{smuggled}", 1))
    opened.open(spoiled)
    assert opened.ask("window.ran === undefined")
    assert len([words for words in opened.complaints if "Content Security Policy" in words]) >= 2

"""Themes: every text on every ground of ours can be read, blue goes with orange, and a user's file is checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from habit_app import SmallApp
from rich.color import Color as RichColor
from rich.color import ColorSystem
from textual.color import Color
from textual.theme import Theme

from tui.settings import Settings, load_settings
from tui.terminal.traits import Traits
from tui.themes import DARK, SIXTEEN, THEMES, contrast, few_colours, first_theme, user_themes

TEXTS = (
    "foreground", "foreground-muted", "text-accent", "text-warning", "text-error", "text-success", "text-primary",
    "footer-key-foreground",
)  # fmt: skip
GROUNDS = ("background", "surface", "panel")
PAIRS = (
    ("block-cursor-foreground", "block-cursor-background"),
    ("input-cursor-foreground", "input-cursor-background"),
    ("background", "accent"),
)
"""Text and ground that belong together; the last is a jump letter's."""


def colours(theme: Theme) -> dict[str, str]:
    return theme.to_color_system().generate()


def over(text: str, ground: str) -> tuple[Color, Color]:
    """Both as they are seen: see-through text mixed with its ground."""
    back, front = Color.parse(ground), Color.parse(text)
    if front.auto:
        front = back.get_contrast_text(front.a)
    return back.blend(front, front.a, alpha=1.0), back


def rounded(colour: Color) -> Color:
    """The colour that a console with sixteen of them shows."""
    assert colour.rich_color.triplet is not None
    number = RichColor.from_triplet(colour.rich_color.triplet).downgrade(ColorSystem.STANDARD).number
    assert number is not None
    from rich._palettes import STANDARD_PALETTE

    return Color(*STANDARD_PALETTE[number])


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_every_text_can_be_read_on_every_ground(theme: Theme) -> None:
    table = colours(theme)
    least = 7.0 if theme.name == "high-contrast" else 4.5
    for text in TEXTS:
        for ground in GROUNDS:
            assert contrast(*over(table[text], table[ground])) >= least, (text, ground)
    for text, ground in PAIRS:
        assert contrast(*over(table[text], table[ground])) >= 4.5, (text, ground)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_marks_stand_out_from_every_ground(theme: Theme) -> None:
    table = colours(theme)
    for mark in ("accent", "primary", "error", "border-blurred"):
        least = 1.8 if mark == "border-blurred" else 3.0
        for ground in GROUNDS[:2]:
            assert contrast(*over(table[mark], table[ground])) >= least, (mark, ground)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_good_and_bad_are_blue_and_orange(theme: Theme) -> None:
    table = colours(theme)
    good, bad = Color.parse(table["success"]), Color.parse(table["error"])
    assert good.b > good.r and good.b >= good.g
    assert bad.r > bad.b and bad.r > bad.g


def test_sixteen_colours_stay_readable_when_rounded() -> None:
    table = colours(SIXTEEN)
    for text in TEXTS:
        for ground in GROUNDS:
            front, back = over(table[text], table[ground])
            assert contrast(rounded(front), rounded(back)) >= 4.0, (text, ground)
            assert rounded(back) == back


@pytest.mark.parametrize(
    ("term", "colorterm", "few"),
    [
        ("xterm-256color", "", False), ("linux", "", True), ("xterm", "", True), ("xterm", "truecolor", False),
        ("tmux-256color", "", False), ("xterm-16color", "", True), ("xterm-kitty", "", False), ("", "", True),
    ],
)  # fmt: skip
def test_few_colours_take_the_theme_made_for_them(term: str, colorterm: str, few: bool) -> None:
    traits = Traits(term=term, colorterm=colorterm)
    assert few_colours(traits) is few
    assert first_theme("auto", traits) == (SIXTEEN.name if few else DARK.name)
    assert first_theme("light", traits) == "light"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user's themes lie."""
    monkeypatch.setenv("LORAKILN_SETTINGS", str(tmp_path / "settings.toml"))
    folder = tmp_path / "themes"
    folder.mkdir()
    return folder


def test_a_users_theme_takes_the_rest_from_its_base(folder: Path) -> None:
    (folder / "sea.toml").write_text('base = "dark"\naccent = "#00ffcc"\nbackground = "#001018"\n')
    themes, errors = user_themes(folder)
    assert not errors and [theme.name for theme in themes] == ["sea"]
    assert themes[0].accent == "#00FFCC" and themes[0].foreground == DARK.foreground


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a", 'acent = "#ffffff"', "line 1: acent is not a known key; did you mean accent"),
        ("a", '\naccent = "oranje"', 'line 2: accent is "oranje", which is no colour'),
        ("a", 'background = "ansi_red"', "line 1: background is a colour of the terminal"),
        ("a", 'background = "#e0e0e0"', "line 1: background text in .* cannot be read"),
        ("a", "accent = [", "not valid TOML"),
        ("dark", 'accent = "#ffffff"', "no usable name"),
        ("[red]x", 'accent = "#ffffff"', "no usable name"),
        ("a\x1b]0;x\x07", 'accent = "#ffffff"', "no usable name"),
    ],
    ids=range(8),
)
def test_a_bad_theme_is_told_with_its_line(folder: Path, name: str, text: str, told: str) -> None:
    (folder / f"{name}.toml").write_text(text + "\n")
    themes, errors = user_themes(folder)
    assert not themes and len(errors) == 1
    assert re.search(told, str(errors[0])), str(errors[0])
    assert "\x1b" not in str(errors[0])


async def test_the_screen_comes_up_with_a_bad_or_missing_theme_and_says_so(folder: Path) -> None:
    (folder / "bad.toml").write_text('accent = "oranje"\n')
    app = SmallApp(settings=Settings(theme="bad"))
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await pilot.pause()
        assert app.theme == "dark"
        told = [note.message for note in app._notifications]
        assert any("bad.toml" in words and "oranje" in words for words in told)
        assert any("No theme bad" in words for words in told)
        assert all(words.startswith("Warning: ") for words in told)


async def test_a_chosen_theme_is_used_and_kept(folder: Path) -> None:
    (folder / "sea.toml").write_text('accent = "#00ffcc"\n')
    app = SmallApp()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("ctrl+p")
        await pilot.press(*"sea")
        while not any("Theme sea" in line for line in app.text.splitlines()):
            await pilot.pause(0.05)
        await pilot.press("enter")
        await pilot.pause()
        assert app.theme == "sea" and load_settings().theme == "sea"
    again = SmallApp(settings=load_settings())
    async with again.run_test():
        assert again.theme == "sea"


async def test_a_theme_for_few_colours_is_not_kept_for_other_terminals(folder: Path) -> None:
    app = SmallApp(Traits(term="linux"))
    async with app.run_test(size=(100, 30)) as pilot:
        before = app.theme
        await pilot.press("f8")
        await pilot.pause()
        assert app.theme != before and "this terminal only" in app.text
    assert load_settings().theme == "auto"


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
async def test_what_is_chosen_in_lists_can_be_read(theme: Theme, folder: Path) -> None:
    """The drawn cells of the palette, not the table of colours: help of the chosen line was once lost on it."""
    app = SmallApp(settings=Settings(theme=theme.name))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("ctrl+p")
        while "Pause or resume" not in app.text:
            await pilot.pause(0.05)
        for strip in app.screen._compositor.render_strips():
            for segment in strip:
                style = segment.style
                if "Pause or" in segment.text and style is not None and style.color is not None:
                    assert style.bgcolor is not None
                    front, back = Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor)
                    assert contrast(front, back) >= 4.5

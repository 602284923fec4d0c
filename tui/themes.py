"""Colours of the screen: four themes of our own and the user's files.

States are told by sign and word; where colour helps it pairs blue with orange, never red with green. Our themes are
measured by the tests: text on every ground it stands on keeps its contrast. ``16-colours`` is for consoles that
would round other colours to something unreadable.

A user's theme is a small TOML file in the folder ``themes`` beside the settings; its name is the file's::

    base = "dark"            # what is not given comes from there
    accent = "#ff8800"
    background = "#202428"
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator
from textual.color import Color, ColorParseError
from textual.theme import Theme

from engine.config import Part
from engine.config_file import check_table, parse_toml, read_text
from engine.errors import ConfigError
from engine.text import safe_text
from tui.terminal.traits import Traits

MAX_FILES = 64
LEAST_CONTRAST = 3.0
"""Between the text and the grounds of a user's theme; WCAG's least for large text."""

_CURSOR = {"block-cursor-text-style": "bold", "input-cursor-text-style": "none"}

DARK = Theme(
    name="dark",
    primary="#3d8fd1", secondary="#6aa9d8", accent="#ffa62b", warning="#f2c14e", error="#ff7a52", success="#63b8f0",
    foreground="#e4e6e8", background="#111417", surface="#1a1e22", panel="#22292f", dark=True,
    variables=_CURSOR | {
        "block-cursor-background": "#1d5f96", "block-cursor-foreground": "#ffffff",
        "foreground-muted": "#a3abb2", "foreground-disabled": "#8a9299", "text-muted": "auto 70%",
        "text-disabled": "auto 55%",
        "footer-key-foreground": "#ffa62b", "border-blurred": "#4a545c",
    },
)  # fmt: skip

LIGHT = Theme(
    name="light",
    primary="#0b6bb5", secondary="#3c6e96", accent="#b45309", warning="#8a5a00", error="#b3390b", success="#0b5fa5",
    foreground="#1b1f23", background="#f6f7f8", surface="#ffffff", panel="#e3e8ec", dark=False,
    variables=_CURSOR | {
        "block-cursor-background": "#0b5fa5", "block-cursor-foreground": "#ffffff",
        "foreground-muted": "#535c64", "foreground-disabled": "#636c74", "text-muted": "auto 70%",
        "text-disabled": "auto 60%",
        "footer-key-foreground": "#9a4600", "border-blurred": "#9aa4ac",
    },
)  # fmt: skip

HIGH_CONTRAST = Theme(
    name="high-contrast",
    primary="#6cc4ff", secondary="#a8dcff", accent="#ffb84d", warning="#ffe08a", error="#ff9e6b", success="#6cc4ff",
    foreground="#ffffff", background="#000000", surface="#000000", panel="#14181c", dark=True,
    variables=_CURSOR | {
        "block-cursor-background": "#ffffff", "block-cursor-foreground": "#000000",
        "block-cursor-blurred-background": "#333c44", "block-cursor-blurred-foreground": "#ffffff",
        "foreground-muted": "#d3d8dc", "foreground-disabled": "#b4bac0", "text-muted": "#d3d8dc",
        "text-disabled": "#b4bac0", "footer-key-foreground": "#ffb84d", "border-blurred": "#d3d8dc",
        "input-selection-background": "#6cc4ff", "input-selection-foreground": "#000000",
    },
)  # fmt: skip

SIXTEEN = Theme(
    name="16-colours",
    primary="#55ffff", secondary="#00aaaa", accent="#ffff55", warning="#ffff55", error="#ff5555", success="#55ffff",
    foreground="#ffffff", background="#000000", surface="#000000", panel="#0000aa", dark=True,
    variables=_CURSOR | {
        "block-cursor-background": "#aaaaaa", "block-cursor-foreground": "#000000",
        "block-cursor-blurred-background": "#0000aa", "block-cursor-blurred-foreground": "#ffffff",
        "foreground-muted": "#aaaaaa", "foreground-disabled": "#aaaaaa", "text": "#ffffff", "text-muted": "#aaaaaa",
        "text-disabled": "#aaaaaa", "footer-key-foreground": "#ffff55", "border-blurred": "#aaaaaa",
        "input-selection-background": "#00aaaa", "input-selection-foreground": "#000000",
        "scrollbar": "#aaaaaa", "scrollbar-hover": "#ffffff", "scrollbar-active": "#ffffff",
    },
)  # fmt: skip
"""Made of the sixteen colours of a text console, so that rounding to these changes nothing."""

THEMES = (DARK, LIGHT, HIGH_CONTRAST, SIXTEEN)


def first_theme(wanted: str, traits: Traits) -> str:
    """The name of the theme to start with: ``auto`` is dark, or 16 colours where there are no more."""
    if wanted != "auto":
        return wanted
    return SIXTEEN.name if few_colours(traits) else DARK.name


def few_colours(traits: Traits) -> bool:
    """Whether colours will be rounded to sixteen; by the rule of the library that rounds them."""
    many = traits.colorterm.strip().lower() in ("truecolor", "24bit")
    return not many and traits.term.lower().rpartition("-")[2] not in ("256color", "kitty")


def _colour(text: str) -> str:
    try:
        colour = Color.parse(text)
    except ColorParseError as err:
        raise ValueError(f'is "{safe_text(text, 40)}", which is no colour; colours are like "#ff8800"') from err
    if colour.ansi is not None or colour.a < 1:
        raise ValueError("is a colour of the terminal or see-through; give it as #rrggbb")
    return colour.hex


_Colour = Annotated[str, AfterValidator(_colour)]


class ThemeFile(Part):
    """A user's theme: what differs from one of ours."""

    base: Literal["dark", "light", "high-contrast"] = "dark"
    primary: _Colour | None = None
    secondary: _Colour | None = None
    accent: _Colour | None = None
    warning: _Colour | None = None
    error: _Colour | None = None
    success: _Colour | None = None
    foreground: _Colour | None = None
    background: _Colour | None = None
    surface: _Colour | None = None
    panel: _Colour | None = None

    @model_validator(mode="after")
    def _readable(self) -> ThemeFile:
        colours = self.colours()
        text = Color.parse(colours["foreground"])
        for ground in ("background", "surface", "panel"):
            if contrast(text, Color.parse(colours[ground])) < LEAST_CONTRAST:
                raise ValueError(f"{ground}: text in {colours['foreground']} cannot be read on {colours[ground]}")
        return self

    def colours(self) -> dict[str, str]:
        """All colours by name, those of the base where none is given."""
        base = next(theme for theme in THEMES if theme.name == self.base)
        names = [name for name in ThemeFile.model_fields if name != "base"]
        return {name: getattr(self, name) or getattr(base, name) for name in names}

    def theme(self, name: str) -> Theme:
        """The theme for Textual."""
        base = next(theme for theme in THEMES if theme.name == self.base)
        colours = self.colours()
        own = {"foreground", "background", "primary", "accent"} & self.model_fields_set
        # What the base gives by hand fits the base's colours only.
        variables = _CURSOR if own else base.variables
        return Theme(name=name, dark=base.dark, variables=dict(variables), **colours)  # type: ignore[arg-type]


def contrast(one: Color, other: Color) -> float:
    """WCAG's ratio of two colours' luminances, from 1 to 21."""
    first, second = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def _luminance(colour: Color) -> float:
    parts = [part / 255 for part in (colour.r, colour.g, colour.b)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def user_themes(folder: Path) -> tuple[list[Theme], list[ConfigError]]:
    """The themes in ``folder``, by name, and what is wrong with the files that could not be used."""
    themes: list[Theme] = []
    errors: list[ConfigError] = []
    try:
        files = sorted(path for path in folder.glob("*.toml"))[:MAX_FILES]
    except OSError:
        return [], []
    for path in files:
        try:
            themes.append(_read(path))
        except ConfigError as error:
            errors.append(error)
    return themes, errors


def _read(path: Path) -> Theme:
    taken = {theme.name for theme in THEMES} | {"auto"}
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", path.stem) or path.stem in taken:
        raise ConfigError(
            "A theme's file has no usable name",
            f"{safe_text(path)}: letters, digits, - and _, and none of ours",
            "Rename the file.",
        )
    text = read_text(path)
    return check_table(parse_toml(text, path), text, ThemeFile, path).theme(path.stem)

"""The gate for text from outside, over all of Unicode: nothing a terminal obeys, nothing unseen, nothing endless."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reliability import figure

from engine.text import MAX_COMBINING, safe_text
from tui.safe import neutral, safe

ORDERS = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff\ud800-\udfff]"
)
"""Controls, marks of direction, what draws nothing, halves of pairs."""
MARKS = ("Mn", "Me")
KEPT = "\u200d\ufe0e\ufe0f"

# Few of Unicode's characters are dangerous: drawn evenly, hardly any would be tried.
NASTY = st.text(
    st.sampled_from("\x00\x07\x1b\x7f\x9b\r\n\t\u200d\u0301\ufe0f\u202e\ud83d\udc69\U000e0041a👩é[]\\")
) | (st.text(st.characters(), max_size=80))


def longest_pile(text: str) -> int:
    """Most marks and joiners in a row."""
    longest = pile = 0
    for char in text:
        pile = pile + 1 if unicodedata.category(char) in MARKS or char in KEPT else 0
        longest = max(longest, pile)
    return longest


def test_every_character_of_unicode_is_shown_harmlessly() -> None:
    """One by one, alone and between others; a line feed only where lines are wanted."""
    for code in range(sys.maxunicode + 1):
        shown = safe_text(f"a{chr(code)}b")
        assert not ORDERS.search(shown) and shown[0] == "a" and shown[-1] == "b", hex(code)
        kind = unicodedata.category(chr(code))
        assert kind not in ("Cc", "Cf", "Cs", "Zl", "Zp") or chr(code) in KEPT or chr(code) not in shown, hex(code)
    assert safe_text("a\nb", newlines=True) == "a\nb" and safe_text("a\nb") == "a\\x0ab"
    figure("text", "characters of Unicode shown without an order to the terminal", f"{sys.maxunicode + 1:,} of all")


@settings(max_examples=400, deadline=None)
@given(NASTY, st.integers(1, 60), st.booleans())
def test_the_gate_holds_for_every_text(text: str, limit: int, newlines: bool) -> None:
    """No orders, no longer than asked for, marks capped, and shown twice it stays what it is."""
    once = safe_text(text, limit, newlines)
    assert not ORDERS.search(once.replace("\n", "") if newlines else once)
    assert len(once) <= limit
    assert longest_pile(once) <= MAX_COMBINING
    assert safe_text(once, limit, newlines) == once
    once.encode()


@settings(max_examples=200, deadline=None)
@given(NASTY)
def test_what_widgets_show_is_the_gates_text_without_markup(text: str) -> None:
    content = safe(text)
    assert content.plain == safe_text(text, 2000) and content.spans == []
    assert neutral(content.plain) == content.plain


@pytest.mark.parametrize("char", ["\u0301", "\u200d", "\x1b", "x"], ids=["mark", "joiner", "escape", "letter"])
def test_an_endless_text_is_cut(char: str) -> None:
    """Ten million characters cost no more than the few that are shown."""
    shown = safe_text(char * 10**7, 100)
    assert len(shown) <= 100 and shown.endswith("…")
    assert safe_text(shown, 100) == shown


@pytest.mark.parametrize(
    "text", ["👩‍👩‍👧‍👦", "❤️", "é", "é", "日本語 キャプション", "naïve café", "[edit] (1)", "✓ – „“"]
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    """Emoji of several parts, accents in either spelling, other scripts."""
    assert safe_text(text) == text

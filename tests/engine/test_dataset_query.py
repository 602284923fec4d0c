"""Finding pictures by words: all of them, in any order and case, phrases and exclusions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dataset.query import Query, haystack, matcher, needles

NAME, CAPTION = "portraits/Anna-02.PNG", "a photo of Anna, smiling\nred coat, Stra\u00dfe, cafe\u0301"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", True),
        ("   ", True),
        ("anna", True),
        ("RED anna", True),
        ("red blue", False),
        ("portraits photo", True),
        ('"red coat"', True),
        ('"coat red"', False),
        ('"red co', True),
        ('"photo of', True),
        ("-blue", True),
        ("-red", False),
        ("anna -red", False),
        ('anna -"red hat"', True),
        ('-"red coat"', False),
        ("-", True),
        ('"', True),
        ('""', True),
        ('-"', True),
        ("anna-02", True),
        ('"-02"', True),
        ("strasse", True),
        ("STRA\u00dfE", True),
        ("caf\u00e9", True),
        ("smiling red", True),
        (".png", True),
    ],
)
def test_words(text: str, found: bool) -> None:
    assert matcher(text)(NAME, CAPTION) is found
    assert needles(text).matches(haystack(NAME, CAPTION)) is found


def test_a_word_does_not_reach_from_the_name_into_the_caption() -> None:
    assert not matcher('"pngcat"')("a.png", "cat")


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_query(text: str, caption: str) -> None:
    query = needles(text)
    assert isinstance(query, Query) and isinstance(query.matches(haystack("a.png", caption)), bool)


@given(st.lists(st.text("abc xyz", min_size=1, max_size=5), min_size=1, max_size=4))
def test_more_words_find_less(words: list[str]) -> None:
    caption = "abc xyz cab"
    if matcher(" ".join(words))("n", caption):
        assert matcher(words[0])("n", caption)

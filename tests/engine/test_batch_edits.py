"""Operations on captions: what each makes of a text, what it leaves alone, and expressions that cannot be used."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dataset.batch_edits import KINDS, WHERE, Operation, edit_of, tags_of
from engine.dataset.text_diff import MOST_WORDS, differences
from engine.errors import DatasetError

TEXTS = st.text(st.sampled_from("aAbé ,,.\n_\u2028zß1("), max_size=30)


def edited(text: str, /, **settings: object) -> str:
    return edit_of(Operation(**settings))(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "new", "settings"),
    [
        ("a Cat, catalog", "a dog, dogalog", {"find": "cat", "text": "dog"}),
        ("a Cat, cat", "a Cat, dog", {"find": "cat", "text": "dog", "case": True}),
        ("a cat, catalog, cat.", "a dog, catalog, dog.", {"find": "cat", "text": "dog", "where": "words"}),
        ("Cat,a cat,  sky", "dog, a cat, sky", {"find": "cat", "text": "dog", "where": "tags"}),
        ("a cat,  sky", "a cat,  sky", {"find": "cat", "text": "dog", "where": "tags"}),
        ("cat, sky", "sky", {"find": "cat", "where": "tags"}),
        ("a.b axb", "a-b axb", {"find": "a.b", "text": "a-b"}),
        ("cat 12", r"cat \1", {"find": "12", "text": r"\1"}),
        ("cat 12, 7", "cat <12>, <7>", {"find": r"(\d+)", "text": r"<\1>", "regex": True}),
        ("cats cat", "cats dog", {"find": "c.t", "text": "dog", "regex": True, "where": "words"}),
        ("1girl, cat ears", "cat ears", {"find": r"\d\w+", "regex": True, "where": "tags"}),
        ("a red cat, red", "a cat", {"kind": "remove", "find": "red"}),
        ("A red , big cat.", "A, big cat.", {"kind": "remove", "find": "red"}),
        ("red.", "", {"kind": "remove", "find": "RED"}),
        ("red, 😀", "😀", {"kind": "remove", "find": "red"}),
        ("reddish,  sky", "reddish,  sky", {"kind": "remove", "find": "red"}),
        ("girl, sky", "woman, sky", {"kind": "rename", "find": "Girl", "text": "woman"}),
        ("woman, girl, sky", "woman, sky", {"kind": "rename", "find": "girl", "text": "woman"}),
        ("girls,  sky", "girls,  sky", {"kind": "rename", "find": "girl", "text": "woman"}),
        ("cat", "a photo of cat", {"kind": "prefix", "text": "a photo of"}),
        ("a photo of cat", "a photo of cat", {"kind": "prefix", "text": "a photo of "}),
        ("", "zrp", {"kind": "prefix", "text": "zrp "}),
        ("cat", "cat, film grain", {"kind": "suffix", "text": ", film grain"}),
        ("cat", "cat on film", {"kind": "suffix", "text": "on film"}),
        ("cat, film", "cat, film", {"kind": "suffix", "text": ", film"}),
        ("cat", "zrp, cat", {"kind": "trigger", "trigger": "zrp"}),
        ("a ZRP cat", "a ZRP cat", {"kind": "trigger", "text": "zrp"}),
        ("a, B,b,  a, c", "a, B, c", {"kind": "dedupe"}),
        ("a,  b", "a,  b", {"kind": "dedupe"}),
        ("zrp, b, A", "zrp, A, b", {"kind": "sort", "trigger": "zrp"}),
        ("d, c, b, a", "d, c, a, b", {"kind": "sort", "keep": 2}),
        ("b; a", "a; b", {"kind": "sort", "separator": ";"}),
        ("b, a\nd, c", "a, b\nc, d", {"kind": "sort"}),
        ("red_hair, sitting", "Red hair, sitting.", {"kind": "sentence"}),
        ("my_trg, red_hair", "my_trg, red hair.", {"kind": "sentence", "trigger": "my_trg"}),
        ("It is a cat.", "It is a cat.", {"kind": "sentence"}),
        ("Red hair, sitting. It is dark.", "red hair, sitting, it is dark", {"kind": "tags"}),
        ("NASA logo, sky.", "NASA logo, sky", {"kind": "tags"}),
        ("red hair, v1.5", "red hair, v1.5", {"kind": "tags"}),
    ],
)
def test_what_an_operation_makes(text: str, new: str, settings: dict[str, object]) -> None:
    assert edited(text, **settings) == new
    if settings.get("kind") not in (None, "tags"):
        assert edited(new, **settings) == new, "done twice it does no more"


@pytest.mark.parametrize(
    ("told", "settings"),
    [
        ("column 3", {"find": "(a", "regex": True}),
        ("column 3", {"find": "a**", "regex": True, "where": "words"}),
        ("group", {"find": "a", "text": r"\9", "regex": True}),
        ("column", {"find": "a", "text": r"\g<", "regex": True}),
        ("cannot be read", {"find": "(" * 5000, "regex": True}),
        ("Nothing to look for", {"find": ""}),
        ("Nothing to add", {"kind": "suffix", "text": "  "}),
        ("No trigger word", {"kind": "trigger"}),
    ],
)
def test_what_cannot_be_used_is_told_before_any_caption(told: str, settings: dict[str, object]) -> None:
    with pytest.raises(DatasetError) as found:
        edit_of(Operation(**settings))  # type: ignore[arg-type]
    assert told in str(found.value)


def test_an_expression_without_end_is_given_up() -> None:
    edit = edit_of(Operation(find="(a|aa)+$", regex=True))
    assert edit("aaa") == ""
    began = time.monotonic()
    with pytest.raises(DatasetError, match="takes too long"):
        edit("a" * 60 + "b")
    assert time.monotonic() - began < 30
    with pytest.raises(DatasetError, match="too long"):
        edit_of(Operation(find="a", text="b" * 1000))("a" * 1000)


@given(
    TEXTS, st.sampled_from(KINDS), st.sampled_from(WHERE), st.sampled_from(["a", "b, a", "é", "A b"]),
    st.sampled_from(["x", "", "a", "b,"]), st.booleans(),
)  # fmt: skip
def test_no_text_is_too_strange(text: str, kind: str, where: str, find: str, new: str, case: bool) -> None:
    operation = Operation(kind, find, new or "t" * (kind in ("prefix", "suffix")), False, where, case, trigger="zß")
    result = edit_of(operation)(text)
    if kind in ("dedupe", "sort"):
        assert {tag.casefold() for tag in tags_of(result)} == {tag.casefold() for tag in tags_of(text)}
    if kind == "rename" and new not in ("", find):
        assert find.casefold() not in [tag.casefold() for tag in tags_of(result)] or "," in find or new == "b,"
    if kind == "trigger":
        assert (new or "zß").strip().casefold() in result.casefold()
    assert str(operation)


@given(TEXTS, TEXTS)
def test_differences_hold_both_texts(old: str, new: str) -> None:
    spans = differences(old, new)
    assert "".join(span.text for span in spans if span.sign != "+") == old
    assert "".join(span.text for span in spans if span.sign != "-") == new
    assert all(span.text for span in spans)


def test_differences_are_words_and_of_long_texts_a_whole() -> None:
    found = [(span.sign, span.text) for span in differences("a red cat, now", "a blue cat, now")]
    assert found == [("=", "a "), ("-", "red"), ("+", "blue"), ("=", " cat, now")]
    long = "x y " * MOST_WORDS
    assert [span.sign for span in differences(f"a {long}b", f"a {long.replace('x', 'z')}b")] == ["=", "-", "+", "="]

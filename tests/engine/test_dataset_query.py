"""Finding pictures: words, wildcards, fields, operators, against a slow evaluator; and mistakes, by their column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dataset import query_parse as tree
from engine.dataset.query import folded, haystack, query_of
from engine.dataset.query_fields import FIELDS, Kind
from engine.dataset.query_parse import QueryError, Wild, parse, written

NAME, CAPTION = "portraits/Anna-02.PNG", "a photo of Anna, smiling\nred coat, Stra\u00dfe, cafe\u0301"


@dataclass
class Picture:
    """As much of a row as a filter asks for."""

    name: str = NAME
    caption: str | None = CAPTION
    width: int = 1600
    height: int = 900
    bucket: tuple[int, int] | None = (832, 1216)
    clip: int | None = 90
    t5: int | None = 100
    stars: int = 3
    excluded: bool = False
    repeats: int = 2
    own_repeats: int | None = None
    sharp: int | None = 40
    twin: int = 2
    edited: bool = True
    loss: float | None = 0.25
    marked: bool = False
    regularization: bool = False

    @property
    def path(self) -> Path:
        return Path("/data/set") / self.name

    @property
    def haystack(self) -> str:
        return haystack(self.name, self.caption or "")


def found(text: str, picture: Picture | None = None, trigger: str = "") -> bool:
    return query_of(text, trigger).matches(picture or Picture())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True), ("   ", True), ("anna", True), ("RED anna", True), ("red blue", False),
        ("portraits photo", True), ('"red coat"', True), ('"coat red"', False), ('"red co', True),
        ('"photo of', True), ("-blue", True), ("-red", False), ("anna -red", False), ('anna -"red hat"', True),
        ('-"red coat"', False), ("-", True), ('"', True), ('""', True), ('-"', True), ("anna-02", True),
        ('"-02"', True), ("strasse", True), ("STRA\u00dfE", True), ("caf\u00e9", True), ("smiling red", True),
        (".png", True), ("--02", False), ("--x", True), ("- anna", True), ("12:30", False), ("http://x", False),
    ],
)  # fmt: skip
def test_bare_words(text: str, expected: bool) -> None:
    assert found(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sm*ing", True), ("sm?ling", True), ("?", True), ("a*nna*coat", True), ("png*coat", False),
        ("an??-02.p*", True), ("red?coat", True), (r"\*", False), (r'"\?"', False), ("*", True),
        ("tag:smiling", False), ('tag:"a photo of anna"', True), ("tag:stra\u00dfe", True), ("tag:*anna", True),
        ("tag:*smiling*coat", True), ("tag:stra", False), ("tag:stra*", True), ("tag:s?*e", True),
        ("caption:anna", True), ("caption:portraits", False), ("name:portraits", False), ("name:anna-*", True),
        ("path:/data/set/port", True), ("path:coat", False),
        ("tags:4", True), ("tags:>4", False), ("chars:<1000", True), ("tokens:>77", True), ("t5:<=99.5", False),
        ("stars:2..3", True), ("stars:4..9", False), ("stars:!=3", False), ("stars:==3", True),
        ("res:1200", True), ("res:<1024", False), ("res:1600x900", True), ("res:900x1600", False),
        ("res:<900x1600", False), ("ar:16:9", True), ("ar:16/9", True), ("ar:>1.5", True), ("ar:>1.78", False),
        ("ar:4:3..2:1", True), ("ar:1:1", False), ("bucket:832x1216", True), ("bucket:<1024", True),
        ("sharp:<50", True), ("loss:0.1..0.3", True), ("repeats:2", True), ("dup:", True), ("dup:2", True),
        ("dup:>2", False), ("dup:no", False), ("empty:", False), ("edited:yes", True), ("excluded:no", True),
        ("-marked:", True), ("missing:caption", False), ("Tag:STRA*", True), ("loss:0.25", True),
    ],
)  # fmt: skip
def test_wildcards_and_fields(text: str, expected: bool) -> None:
    assert found(text) is expected
    assert found(f"NOT {text}") is not expected and found(f"-({text})") is not expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("anna AND red", True), ("blue OR red", True), ("blue OR anna green", False), ("(blue OR anna) red", True),
        ("NOT blue", True), ("NOT (blue OR red)", False), ("NOT NOT red", True), ("anna NOT red", False),
        ("and", False), ('"AND"', False), ("-AND", True), ("((red))", True), ("-(blue red)", True),
        ("(red)(anna)", True),
    ],
)  # fmt: skip
def test_operators(text: str, expected: bool) -> None:
    assert found(text) is expected


def test_parentheses_inside_a_word_belong_to_it() -> None:
    picture = Picture(name="img(1).png", caption=r"saber \(fate\), a")
    assert found("img(1)", picture) and found("(img(1) OR x)", picture) and found(r"tag:saber*\(fate\)", picture)


def test_what_is_not_known_is_not_compared() -> None:
    picture = Picture(width=0, height=0, bucket=None, clip=None, sharp=None, loss=None, twin=0, caption=None)
    for name in ("tokens", "sharp", "loss", "res", "bucket", "ar", "dup"):
        assert not found(f"{name}:>=0.001", picture) and not found(f"{name}:<99999", picture), name
    assert found("empty: missing:caption -dup: tags:0", picture)


def test_the_trigger_is_missed_as_a_whole_word_where_it_belongs() -> None:
    assert found("missing:trigger", trigger="ohwx") and not found("missing:trigger", trigger="anna")
    assert found("missing:trigger", trigger="ann")
    assert not found("missing:trigger", Picture(regularization=True), trigger="ohwx")
    with pytest.raises(QueryError, match="column 5: no trigger word is set"):
        query_of("red missing:trigger")


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("red AND", 5, "AND wants something after it"), ("OR red", 1, "nothing before OR"), ("a OR OR b", 6, "nothi"),
        ("NOT", 1, "NOT wants"), ("(red", 1, "( without )"), ("red)", 4, ") without ("), ("()", 2, "nothing before"),
        ("tag:", 1, "tag: wants words, as in tag:"), ("a tokens:many", 10, "tokens: wants a number"),
        ("tokens:", 1, "wants a number"), ("tokens:>1..3", 8, "a number"), ("ar:1:0", 4, "a ratio"),
        ("res:1x2x3", 5, "a side or a size"), ("empty:maybe", 7, "nothing, yes or no"), ("dup:x", 5, "a number"),
        ("missing:hat", 9, "trigger or caption"), ("tga:cat", 1, "no tga: but tag:"), ("x token:>7", 3, "tokens:"),
        ("(" * 100, 62, "too many"), ("NOT " * 100 + "a", 245, "too many"), ("stars:1..x", 7, "a number"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_column(text: str, column: int, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        query_of(text)
    assert caught.value.column == column and said in caught.value.said


def test_a_word_does_not_reach_from_the_name_into_the_caption() -> None:
    assert not found('"pngcat"', Picture("a.png", "cat")) and not found("png*cat", Picture("a.png", "cat"))


def test_the_examples_of_the_help_are_filters() -> None:
    for name, field in FIELDS.items():
        assert field.example.startswith(f"{name}:")
        query_of(field.example, trigger="x")


def test_hostile_patterns_take_no_longer_than_others() -> None:
    picture = Picture(caption="a" * 200_000)
    assert not found("*a" * 60 + "*b", picture) and not found("tag:" + "*a" * 60 + "*b", picture)


TEXTS = st.text('ab*? "\\-():é\u0301ANDORT', max_size=12)
PARTS = st.lists(st.sampled_from(Wild) | st.text('ab"\\*?(:)- é', min_size=1, max_size=4), min_size=1, max_size=4)


def joined(parts: list[str | Wild]) -> tuple[str | Wild, ...]:
    """Neighbouring texts as one, as they are parsed."""
    made: list[str | Wild] = []
    for part in parts:
        if made and isinstance(part, str) and isinstance(made[-1], str):
            made[-1] += part
        else:
            made.append(part)
    return tuple(made)


NUMBERS = st.integers(0, 120).map(str)
BY_KIND = {Kind.NUMBER: NUMBERS, Kind.SIZE: NUMBERS | st.just("832x1216"), Kind.RATIO: st.sampled_from(["1", "16:9"])}
TEXT_FIELDS = ["", *(name for name, field in FIELDS.items() if field.kind is Kind.TEXT)]
LEAVES = st.one_of(
    st.builds(tree.Text, st.sampled_from(TEXT_FIELDS), PARTS.map(joined)),
    st.builds(tree.Flag, st.sampled_from([name for name, field in FIELDS.items() if field.flag]), st.booleans()),
    st.builds(tree.Missing, st.sampled_from(["trigger", "caption"])),
    st.sampled_from([name for name, field in FIELDS.items() if field.kind in BY_KIND]).flatmap(
        lambda name: st.builds(
            tree.Compare,
            st.just(name),
            st.sampled_from(["<", "<=", "=", "!=", ">=", ">"]),
            BY_KIND[FIELDS[name].kind],
        )
    ),
)
NODES = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(tree.Not, inner)
        | st.lists(inner, min_size=2, max_size=3)
        .map(tuple)
        .flatmap(lambda parts: st.sampled_from([tree.All(parts), tree.Any(parts)]))
    ),
    max_leaves=6,
)
PICTURES = st.builds(
    Picture, name=st.text("ab/é.", min_size=1, max_size=8), caption=st.none() | st.text("ab, é\n", max_size=20),
    width=st.sampled_from([0, 16, 1600]), height=st.sampled_from([9, 900]), clip=st.none() | st.integers(0, 120),
    stars=st.integers(0, 5), twin=st.integers(0, 2), excluded=st.booleans(), sharp=st.none() | st.integers(0, 100),
    own_repeats=st.none() | st.integers(1, 3), bucket=st.none() | st.just((832, 1216)), loss=st.none() | st.just(0.5),
)  # fmt: skip


def slowly(node: tree.Node, picture: Picture) -> bool:
    """What ``node`` says of a picture, in the plainest way."""
    match node:
        case tree.Not(part):
            return not slowly(part, picture)
        case tree.All(parts):
            return all([slowly(part, picture) for part in parts])
        case tree.Any(parts):
            return any([slowly(part, picture) for part in parts])
        case tree.Flag(name, wanted):
            value = {"dup": picture.twin, "empty": not (picture.caption or "").strip()}.get(name)
            return bool(getattr(picture, name) if value is None else value) == wanted
        case tree.Missing(what):
            return picture.caption is None if what == "caption" else "zok" not in (picture.caption or "")
        case tree.Text(name, pattern):
            expression = "".join(
                re.escape(folded(part)) if isinstance(part, str) else {"*": ".*", "?": "."}[part.value]
                for part in pattern
            )
            caption, whole_name = folded(picture.caption or ""), folded(picture.name)
            if name == "tag":
                tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
                return any(re.fullmatch(expression, tag, re.DOTALL) for tag in tags)
            texts = {
                "": [whole_name, caption], "caption": [caption], "name": [whole_name.split("/")[-1]],
                "path": [folded(str(picture.path))],
            }[name]  # fmt: skip
            return any(re.search(expression, text, re.DOTALL) for text in texts)
        case tree.Compare(name, operator, low):
            return compared(name, operator, low, picture)


def compared(name: str, operator: str, low: str, picture: Picture) -> bool:
    """A comparison in the plainest way."""
    known = picture.width > 0
    if name == "ar":
        limit = 16 / 9 if ":" in low else 1.0
        value: float | None = picture.width / picture.height if known else None
        value = limit if value is not None and abs(value / limit - 1) <= 0.01 else value
    elif name in ("res", "bucket"):
        size = (picture.width, picture.height) if name == "res" else picture.bucket
        if size is None or not size[0]:
            return False
        if "x" in low:
            value, limit = float(size[0] * size[1]), 832.0 * 1216
            return {"=": size == (832, 1216), "!=": size != (832, 1216)}.get(
                operator, holds(operator, value + (value == limit and size != (832, 1216)), limit)
            )
        value, limit = round((size[0] * size[1]) ** 0.5), float(low)
    else:
        values: dict[str, float | None] = {
            "tags": len([tag for tag in (picture.caption or "").split(",") if tag.strip()]),
            "chars": len(picture.caption or ""), "tokens": picture.clip, "t5": picture.t5, "stars": picture.stars,
            "sharp": picture.sharp, "loss": picture.loss, "repeats": picture.own_repeats or picture.repeats,
            "dup": picture.twin or None,
        }  # fmt: skip
        value, limit = values[name], float(low)
    return value is not None and holds(operator, value, limit)


def holds(operator: str, value: float, limit: float) -> bool:
    return {
        "<": value < limit, "<=": value <= limit, "=": value == limit,
        "!=": value != limit, ">=": value >= limit, ">": value > limit,
    }[operator]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(NODES, PICTURES)
def test_what_is_written_reads_back_and_finds_what_a_slow_evaluator_finds(node: tree.Node, picture: Picture) -> None:
    again = parse(written(node))
    assert parse(written(again)) == again
    expected = slowly(node, picture)
    assert found(written(node), picture, "zok") is expected


@given(TEXTS | st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_filter_or_a_mistake_in_it(text: str, caption: str) -> None:
    try:
        node = parse(text)
    except QueryError as err:
        assert 1 <= err.column <= len(text)
    else:
        assert parse(written(node)) == node
        assert isinstance(found(text, Picture("a.png", caption), "zok"), bool)

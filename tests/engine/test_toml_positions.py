"""The position finder names the right line for every way TOML can write a key."""

from __future__ import annotations

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.toml_positions import find_positions

TEXT = '''# a comment = [
a = 1
b.c = "x # ] }"
"d e".'f.g' = """
multi ]
""""
after = [1, 2,
  # c ]
  [3, {x = 1, y = [
   5]}],
]
[t]
z = { a = { b = 'q' }, c = 1979-05-27 07:32:00 }
[[arr]]
n = 1
[[arr.sub]]
m = 1
[[arr.sub]]
m = 2
[[arr]]
n = 2
[arr.tab]
k = 1.5 # c
[ x . "y" ]
empty = ""
e2 = \'\'\'\'\'\'
e3 = """"""
q = """a\\""""
last = 1'''


def test_every_way_to_write_a_key_has_its_line() -> None:
    tomllib.loads(TEXT)
    lines = find_positions(TEXT)
    expected = {
        ("a",): 2,
        ("b", "c"): 3,
        ("d e", "f.g"): 4,
        ("after",): 7,
        ("after", 2): 9,
        ("after", 2, 1, "y"): 9,
        ("after", 2, 1, "y", 0): 10,
        ("t",): 12,
        ("t", "z", "a", "b"): 13,
        ("arr", 0): 14,
        ("arr", 0, "sub", 0, "m"): 17,
        ("arr", 0, "sub", 1, "m"): 19,
        ("arr", 1): 20,
        ("arr", 1, "tab", "k"): 23,
        ("x", "y", "empty"): 25,
        ("x", "y", "last"): 29,
    }
    assert {keys: lines[keys] for keys in expected} == expected


def test_an_empty_text_has_no_positions() -> None:
    assert find_positions("") == {}
    assert find_positions("\n# nothing\n") == {}


def _paths(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: set[tuple[str | int, ...]] = set()
    for key, item in items:
        found |= {(*path, key)} | _paths(item, (*path, key))
    return found


VALUES = st.recursive(
    st.integers(-5, 5) | st.booleans() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), VALUES, max_size=4))
def test_finds_exactly_the_keys_that_the_parser_finds(table: dict[str, object]) -> None:
    import tomlkit

    text = tomlkit.dumps(table)
    assert set(find_positions(text)) == _paths(tomllib.loads(text))

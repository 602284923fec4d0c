"""How often words and tags are in captions: counted by caption, kept up to date, and said as what it means."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from engine.dataset.frequencies import Frequencies, meaning, parts_of

WORDS = st.lists(st.sampled_from(["red", "cat", "the", "a", "Mat,", "on", "é.", "\u202e"]), max_size=8).map(" ".join)


def counted(texts: dict[Hashable, str], tags: bool = False) -> dict[str, int]:
    frequencies = Frequencies(tags)
    frequencies.take(texts)
    return {each.words: each.count for each in frequencies.most()}


def test_rows_of_words_stay_within_a_clause_and_neither_begin_nor_end_with_small_words() -> None:
    assert parts_of("A cat on the mat, the Red cat's fur") == {
        "cat", "mat", "red", "cat's", "fur", "red cat's", "cat's fur", "red cat's fur",
    }  # fmt: skip
    assert parts_of("Red hair,  sitting ,\nsky", tags=True) == {"red hair", "sitting", "sky"}
    assert parts_of("a; b", ";", tags=True) == {"a", "b"} and parts_of(" \n") == frozenset()


def test_a_caption_counts_once_however_often_it_repeats_a_word() -> None:
    assert counted({1: "cat, cat cat", 2: "a cat", 3: " "}) == {"cat": 2, "cat cat": 1}
    assert counted({1: "Cat, cat", 2: "dog"}, tags=True) == {"cat": 1, "dog": 1}


@given(st.dictionaries(st.integers(0, 3), WORDS), st.dictionaries(st.integers(0, 3), WORDS), st.booleans())
def test_what_changed_is_counted_as_if_from_the_start(
    first: dict[Hashable, str], then: dict[Hashable, str], tags: bool
) -> None:
    kept = Frequencies(tags)
    kept.take(first)
    kept.take(then)
    assert {each.words: each.count for each in kept.most()} == counted(then, tags)
    assert kept.captions == sum(bool(text.strip()) for text in then.values())


def test_they_can_be_narrowed_and_come_in_order() -> None:
    frequencies = Frequencies()
    frequencies.take({1: "red cat", 2: "red cat, sky", 3: "red"})
    assert [each.words for each in frequencies.most()] == ["red", "red cat", "cat", "sky"]
    assert [each.words for each in frequencies.most("CAT", fewest=2)] == ["red cat", "cat"]
    assert [each.words for each in frequencies.most(fewest=1, most=1)] == ["sky"]


def test_what_a_count_means_is_said() -> None:
    assert meaning("cat", 5, 5).startswith("In every caption")
    assert meaning("cat", 1, 5).startswith("In only one caption")
    assert meaning("cat", 9, 10).startswith("In nearly every caption")
    assert "3 of 10" in meaning("cat", 3, 10)
    assert "as it should be" in meaning("zrp", 5, 5, "ZRP") and "missing in 2" in meaning("zrp", 3, 5, "zrp")

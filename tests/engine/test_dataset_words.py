"""Words while captions are typed: the dataset's own vocabulary, spelling, trigger words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.dataset.captions import final_caption
from engine.dataset.spelling import Speller, add_word, read_words
from engine.dataset.tokens import Measured, load_tokenizers, measure
from engine.dataset.trigger import fault_of, faults_of, suggested, trigger_problem
from engine.dataset.vocabulary import vocabulary_of
from engine.errors import DatasetError

PROSE = [
    "A woman in a brocade jacket stands by the window.",
    "The woman wears her brocade jacket. It rains.",
    "a broad street, seen from above",
]
TAGS = ["1girl, silver hair, red dress", "1girl, silver hair, smile", "silver hair, solo, smile"]


def test_a_word_is_completed_by_what_most_captions_have() -> None:
    known = vocabulary_of(PROSE)
    assert known.completion("A man in a bro", "") == "cade"
    assert known.completion("bro", " jacket") == "cade"
    assert known.completion("Wom", "") == "an"
    assert known.words["jacket"] == 2 and not known.tags


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("br", ""),
        ("bro", "cade"),
        ("brocade", ""),
        ("street", ""),
        ("xyz", ""),
        ("", ""),
        ("[bro", ""),
        ("broad", ""),
    ],
)
def test_nothing_is_offered_where_it_would_be_in_the_way(before: str, after: str) -> None:
    assert vocabulary_of(PROSE).completion(before, after) == ""


def test_tags_are_completed_as_a_whole() -> None:
    known = vocabulary_of(TAGS)
    assert known.tags["silver hair"] == 3
    assert known.completion("1girl, sil", "") == "ver hair"
    assert known.completion("1girl, silver h", ", smile") == "air"


def test_what_a_terminal_acts_on_is_not_offered() -> None:
    known = vocabulary_of(["silver\x1b]52;c;Q\x07, b, c", "silver\x1b]52;c;Q\x07, b, d", "gold\u202ee, b, c"] * 2)
    assert set(known.tags) == {"b", "c", "d"} and known.completion("b, silv", "") == "er"


@given(st.lists(st.text(max_size=30), max_size=6), st.text(max_size=12))
def test_what_is_offered_is_in_the_captions(captions: list[str], before: str) -> None:
    offered = vocabulary_of(captions).completion(before, "")
    assert not offered or any(offered.lower() in caption.lower() for caption in captions)


SPELLER = Speller(frozenset({"a", "photo", "of", "the", "dog", "dog's", "well", "lit"}), {"ohwx"}, {"brocade"})


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a foto of the dog", ["foto"]),
        ("The Dog’s brocade, ohwx", []),
        ("McDonald NASA iPhone", []),
        ("[framing] dgo_2 /fotoo/ {fto|x}", []),
        ("well-lit wel-lit", ["wel"]),
        ("собака 犬 ka", []),
        ("Dogg's", ["Dogg's"]),
    ],
)
def test_words_that_no_list_knows_are_found(text: str, wrong: list[str]) -> None:
    assert [text[start:end] for start, end in SPELLER.misspelt(text)] == wrong


def test_without_a_list_nothing_is_misspelt() -> None:
    assert Speller().misspelt("qqqq wwww") == []


def test_word_lists_are_read_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "config" / "words.txt"
    add_word(path, "Zorple")
    path.write_bytes(path.read_bytes() + b"hello/MS\r\ntwo words\n\xff\nnoend")
    add_word(path, "x’s")
    assert {"zorple", "hello", "noend", "x's"} <= read_words(path) and "two words" not in read_words(path)
    with pytest.raises(DatasetError):
        read_words(tmp_path)


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        ("ohwx, a cat", None),
        ("a cat", "missing"),
        ("", "missing"),
        ("ohwx cat and ohwx dog", "twice"),
        ("Ohwx, a cat", "written otherwise"),
        ("ohxw, a cat", "written otherwise"),
        ("oh-wx, a cat", "written otherwise"),
        ("ohw, a cat", "written otherwise"),
        ("ohwxy, a cat", "written otherwise"),
        ("photo of ohwx", "not first"),
        ("ohwxes everywhere", "missing"),
    ],
)
def test_faults_of_a_trigger_word(caption: str, fault: str | None) -> None:
    assert fault_of(caption, "ohwx") == fault
    assert (trigger_problem(Path("a.txt"), caption, "ohwx") is not None) == (fault in ("twice", "written otherwise"))


def test_faults_are_counted_and_no_trigger_has_none() -> None:
    assert faults_of(["a", "b ohwx", "ohwx"], "ohwx") == {"missing": 1, "not first": 1}
    assert not faults_of(["a", "b"], "  ")


def model(folder: Path, tokenizers: Path) -> ModelConfig:
    names = ("transformer", "autoencoder", "clip_l", "t5")
    files = {name: folder / f"{name}.safetensors" for name in names}
    return ModelConfig(**files, clip_tokenizer=tokenizers / "clip", t5_tokenizer=tokenizers / "t5")


def test_suggestions_are_many_pieces_and_no_words(tokenizer_files: Path, tmp_path: Path) -> None:
    both = load_tokenizers(model(tmp_path, tokenizer_files))
    words = suggested(3, 8, known={"zor"}, tokenizers=both)
    assert len(words) == 8 and words == suggested(3, 8, known={"zor"}, tokenizers=both)
    for each in words:
        assert "".join(each.clip) == "".join(each.t5) == each.word
        assert len(each.clip) > 1 and len(each.t5) > 1 and max(map(len, each.clip + each.t5)) <= 3
    taken = words[0].word
    fresh = suggested(3, 8, tokenizers=both, captions=[f"a {taken.upper()}ed cat"])
    assert taken not in [each.word for each in fresh]
    assert suggested(4, 8, tokenizers=both) != words
    assert suggested(3, 2)[0].clip == ()


def test_the_place_of_the_cut_is_a_token_of_the_caption(tokenizer_files: Path, tmp_path: Path) -> None:
    """Counted in the text that is trained on, told in the caption as written."""
    config = model(tmp_path, tokenizer_files)
    clip, t5 = load_tokenizers(config)
    caption = "  a photo of a cat\nand a dog "

    def measured(limits: tuple[int, int], **options: str) -> Measured:
        from engine.config import CaptionConfig

        text = final_caption(caption, CaptionConfig(**options), 0, 0, 0)
        return measure(caption, text, clip, t5, limits)

    fits = measured((10, 40))
    assert (fits.clip, fits.clip_cut, fits.t5_cut) == (10, None, None)
    # Six of the eight words: CLIP reads "a photo of a cat and", with its two marks.
    assert measured((8, 40)).clip_cut == caption.index("a dog")
    with_trigger = measured((8, 40), trigger_word="cat")
    assert with_trigger == measured((8, 40))  # it is there already
    cut = measured((8, 40), trigger_word="man")
    assert cut.clip == 12 and cut.clip_cut == caption.index("cat")
    assert measured((8, 40), suffix="in the rain").clip_cut == caption.index("a dog")
    assert measured((10, 40), suffix="in the rain").clip_cut == len(caption.rstrip()) + 1
    assert measured((3, 40), prefix="one two three").clip_cut == 0
    # T5 writes "a" as two pieces, of which the first, the space, still fits.
    assert measured((77, 6)).t5_cut == caption.index("a cat")

"""Captions: read as they are or refused with reason; the text of a step is a function of seed, epoch and slot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import OSC_52

from engine.config import CaptionConfig
from engine.dataset.captions import MAX_CAPTION_BYTES, final_caption, is_fixed, read_caption, with_trigger
from engine.errors import DatasetError

E_ACUTE = "caf\u00e9"

READ = {
    "plain": (b"a cat", "a cat"),
    "empty": (b" \n", ""),
    "bom": (b"\xef\xbb\xbfa cat", "a cat"),
    "utf-16le": (b"\xff\xfe" + E_ACUTE.encode("utf-16-le"), E_ACUTE),
    "utf-16be": (b"\xfe\xff" + E_ACUTE.encode("utf-16-be"), E_ACUTE),
    "whole text": (b"first line\nsecond line\n", "first line\nsecond line"),
    "crlf": (b"one\r\ntwo\rthree\nfour", "one\ntwo\nthree\nfour"),
    "line separators": ("a\u2028b\u0085c".encode(), "a\u2028b\u0085c"),
    "combining": ("e" + "\u0301" * 1000).encode(),
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467".encode(),
    "many tags": ", ".join(f"tag {i}" for i in range(400)).encode(),
    "markup": b"[/nope] [@click=app.quit] <b>",
}

REFUSED = {
    "latin-1": (b"caf\xe9 au lait", "not UTF-8.*e9 20 61"),
    "shift-jis": ("猫の写真".encode("shift-jis"), "not UTF-8"),
    "odd utf-16": (b"\xff\xfea", "not UTF-16"),
    "utf-16 without mark": ("a cat".encode("utf-16-le"), "U\\+0000 at character 2"),
    "nul": (b"a\0cat", "U\\+0000"),
    "escape": (f"a cat {OSC_52}".encode(), "U\\+001B at character 7"),
    "csi": ("\x9b2Ja".encode(), "U\\+009B"),
    "vertical tab": (b"a\x0bcat", "U\\+000B"),
    "file separator": (b"a\x1ccat", "U\\+001C"),
    "huge": (b"x" * 10_000_000, "larger than 64 kB"),
}


@pytest.mark.parametrize("name", READ)
def test_captions_that_are_read(tmp_path: Path, name: str) -> None:
    """Whole text, stripped, line ends made one kind, mark removed; nothing else is changed."""
    case = READ[name]
    data, text = case if isinstance(case, tuple) else (case, case.decode())
    (tmp_path / "a.txt").write_bytes(data)
    assert read_caption(tmp_path / "a.txt") == text


@pytest.mark.parametrize("name", REFUSED)
def test_captions_that_are_refused(tmp_path: Path, name: str) -> None:
    """Never re-encoded by guess; the error names the file, the place and what to do, and is safe to show."""
    data, reason = REFUSED[name]
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DatasetError, match=f"(?s){reason}") as caught:
        read_caption(tmp_path / "a.txt")
    assert "a.txt" in caught.value.detail and caught.value.hint
    assert "\x1b" not in str(caught.value) and "\x9b" not in str(caught.value)


def test_longest_caption_is_read(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    (tmp_path / "a.txt").write_bytes(b"x" * MAX_CAPTION_BYTES)
    assert len(read_caption(tmp_path / "a.txt")) == MAX_CAPTION_BYTES


def test_unreadable_captions(tmp_path: Path) -> None:
    """A file that is gone, and a folder of that name."""
    (tmp_path / "d.txt").mkdir()
    for name in ("gone.txt", "d.txt"):
        with pytest.raises(DatasetError, match=name):
            read_caption(tmp_path / name)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_reason(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Nothing but a DatasetError leaves the reader, and what is read is the text."""
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = read_caption(path)
    except DatasetError as err:
        assert err.hint
    else:
        assert found == text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip()


def test_prefix_suffix_and_lines() -> None:
    """Prefix and suffix around the whole text, lines joined."""
    config = CaptionConfig(prefix="photo of", suffix="on a table")
    assert final_caption("a cup\nof tea", config, 1, 1, 0) == "photo of a cup of tea on a table"
    assert final_caption("", config, 1, 1, 0) == "photo of on a table"


def test_trigger_word_goes_in_front_where_missing() -> None:
    """As a whole word, in any case; never on regularization pictures; alone where there is no caption."""
    config = CaptionConfig(trigger_word="zok")
    assert final_caption("a cup", config, 1, 1, 0) == "zok, a cup"
    assert final_caption("a cup, Zok style", config, 1, 1, 0) == "a cup, Zok style"
    assert final_caption("a zokel", config, 1, 1, 0) == "zok, a zokel"
    assert final_caption("", config, 1, 1, 0) == "zok"
    assert final_caption("a cup", config, 1, 1, 0, regularization=True) == "a cup"
    assert with_trigger("a (c++) cup", "c++") == "a (c++) cup"


def test_dropout_gives_the_empty_text_at_its_rate() -> None:
    """Even the trigger word goes, and the draws follow the rate."""
    config = CaptionConfig(trigger_word="zok", dropout=0.3)
    texts = [final_caption("a cup", config, 7, epoch, slot) for epoch in range(20) for slot in range(50)]
    assert set(texts) == {"", "zok, a cup"}
    assert 230 < texts.count("") < 370
    assert final_caption("a cup", CaptionConfig(dropout=1.0), 7, 0, 0) == ""


def test_wildcards_choose_and_escape() -> None:
    """One of the choices each time, every choice at some time; doubled braces are braces."""
    config = CaptionConfig(wildcards=True)
    texts = {final_caption("a {red|blue|} cup {{raw}}", config, 3, epoch, 0) for epoch in range(40)}
    assert texts == {"a red cup {raw}", "a blue cup {raw}", "a  cup {raw}"}
    assert final_caption("a {red|blue} cup", CaptionConfig(), 3, 0, 0) == "a {red|blue} cup"


def test_several_lines_are_choices_with_wildcards_only() -> None:
    """Each line comes at some time, with prefix and suffix around it."""
    config = CaptionConfig(wildcards=True, prefix="the", suffix="!")
    texts = {final_caption("cup\n\nglass\n", config, 3, epoch, 0) for epoch in range(40)}
    assert texts == {"the cup !", "the glass !"}


def test_shuffle_keeps_the_first_tags() -> None:
    """Tags are permuted anew each epoch, none lost, the kept ones in place."""
    config = CaptionConfig(shuffle=True, keep_tokens=2)
    texts = [final_caption("a,b,c,d,e", config, 3, epoch, 0) for epoch in range(30)]
    assert all(text.startswith("a, b, ") and sorted(text.split(", ")) == list("abcde") for text in texts)
    assert len(set(texts)) > 4


def test_tag_dropout_spares_the_kept_and_the_trigger() -> None:
    """Everything else goes at its rate."""
    config = CaptionConfig(tag_dropout=1.0, keep_tokens=1, trigger_word="zok")
    assert final_caption("a, zok, b", config, 3, 0, 0) == "zok, a"
    some = [final_caption("a, b", CaptionConfig(tag_dropout=0.5), 3, epoch, 0) for epoch in range(60)]
    assert set(some) == {"a, b", "a", "b", ""}


def test_other_separators() -> None:
    """Tags may be parted by another sign; an empty one means that there are no tags."""
    assert final_caption("a; b", CaptionConfig(separator=";", tag_dropout=1e-9), 1, 0, 0) == "a, b"
    assert final_caption("a, b", CaptionConfig(separator="", shuffle=True), 1, 0, 0) == "a, b"


@given(st.text(max_size=60), st.integers(0, 2**62), st.integers(0, 50), st.integers(0, 50))
def test_the_text_is_a_function_of_its_place(caption: str, seed: int, epoch: int, slot: int) -> None:
    """No history, no newline, and options that draw do not shift each other's draws."""
    config = CaptionConfig(shuffle=True, tag_dropout=0.3, wildcards=True, dropout=0.2, trigger_word="zok")
    text = final_caption(caption, config, seed, epoch, slot)
    assert text == final_caption(caption, config, seed, epoch, slot)
    assert "\n" not in text


def test_fixed_captions_are_recognised() -> None:
    """Only settings that draw change the text between epochs."""
    assert is_fixed(CaptionConfig(prefix="a", trigger_word="b"))
    assert not any(
        is_fixed(CaptionConfig(**{name: value}))
        for name, value in {"shuffle": True, "dropout": 0.1, "tag_dropout": 0.1, "wildcards": True}.items()
    )

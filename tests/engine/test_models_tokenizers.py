"""Tokenizers: ids equal transformers', files found in the promised order, clear words where there are none."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from engine.errors import ModelFileError
from engine.models import tokenizer_files
from engine.models.tokenizers import load_clip_tokenizer, load_t5_tokenizer

TEXTS = [
    "", "a photo of a cat", "  Hello   World\n\tfoo ", "naïve café ﬁ Ⅷ 日本語 🙂", "it's 1234 don't I'LL",
    "</s> <pad> <|endoftext|> x", "a" * 300 + " b", "x " * 700, "“smart” — quotes…", "hello <extra_id_5>world",
    "\u200b\ufeff zero", "e\u0301 combining", "ß ſ İ", "a<|startoftext|>b </s>c", "\x00\x07 ctrl", " leading",
    "trailing ", "don't  stop", "sks-man_v2.1 (best quality:1.2), [x]", "\u2028 line", "𝕱𝖗𝖆𝖐𝖙𝖚𝖗 ½ ①",
]  # fmt: skip
POCKET = Path(__file__).resolve().parents[2] / "engine" / "models" / "pocket" / "files"


def test_clip_ids_equal_transformers(tokenizer_files: Path) -> None:
    from transformers import CLIPTokenizer

    folder = tokenizer_files / "clip"
    theirs = CLIPTokenizer.from_pretrained(str(folder))
    ours = load_clip_tokenizer(folder / "clip_l.safetensors")
    whole = load_clip_tokenizer(folder / "clip_l.safetensors", given=folder / "tokenizer.json")
    for length in (77, 20):
        wanted = theirs(TEXTS, padding="max_length", max_length=length, truncation=True)
        ids, masks = ours.encode(TEXTS, length)
        assert ids == wanted["input_ids"]
        assert [[int(real) for real in mask] for mask in masks] == wanted["attention_mask"]
        assert whole.encode(TEXTS, length) == (ids, masks)
    assert (ours.start, ours.end, ours.vocab_size) == (49406, 49407, 49408)
    assert ours.count("a photo of a cat") == 7


def test_t5_ids_equal_transformers(tokenizer_files: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = tokenizer_files / "t5"
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>", eos_token="</s>"
    )
    ours = load_t5_tokenizer(folder / "t5xxl.safetensors")
    spiece = load_t5_tokenizer(folder / "t5xxl.safetensors", given=folder / "spiece.model")
    for length in (512, 16):
        wanted = theirs(TEXTS, padding="max_length", max_length=length, truncation=True)
        ids, masks = ours.encode(TEXTS, length)
        assert ids == wanted["input_ids"]
        assert [[int(real) for real in mask] for mask in masks] == wanted["attention_mask"]
        assert spiece.encode(TEXTS, length) == (ids, masks)
    assert ours.vocab_size == spiece.vocab_size == 32100
    assert ours.count("a photo of a cat") == spiece.count("a photo of a cat") == 8
    assert ours.fingerprint != spiece.fingerprint


def test_undecodable_bytes_become_a_mark(tokenizer_files: Path) -> None:
    t5 = load_t5_tokenizer(tokenizer_files / "t5" / "x")
    assert t5.encode(["cat \udcff"], 8)[0] == t5.encode(["cat ?"], 8)[0]


def test_the_pocket_tokenizers() -> None:
    clip = load_clip_tokenizer(POCKET / "clip-pocket.safetensors")
    t5 = load_t5_tokenizer(POCKET / "t5-pocket.safetensors")
    ids, masks = clip.encode(["a red circle", ""], 10)
    assert [row[0] for row in ids] == [clip.start] * 2
    assert ids[1][1:] == [clip.end] * 9
    assert [sum(mask) for mask in masks] == [clip.count("a red circle"), 2]
    assert t5.encode([""], 4) == ([[1, 0, 0, 0]], [[True, False, False, False]])


CLIP_FILES = ("vocab.json", "merges.txt")


def put(folder: Path, kind: str) -> Path:
    """Copy the pocket's tokenizer of this kind into a folder."""
    source, names = (
        (POCKET / "tokenizer", CLIP_FILES) if kind == "clip" else (POCKET / "tokenizer_2", ("tokenizer.json",))
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(source / name, folder / name)
    return folder


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_the_order_of_the_search(kind: str, tmp_path: Path, empty_home: Path) -> None:
    """Each place is emptied in turn, and the next one answers."""
    weights = tmp_path / "ComfyUI" / "models" / "text_encoders" / "file.safetensors"
    weights.parent.mkdir(parents=True)
    own = "tokenizer" if kind == "clip" else "tokenizer_2"
    comfy = "comfy/sd1_tokenizer" if kind == "clip" else "comfy/text_encoders/t5_tokenizer"
    repo = "models--openai--clip-vit-large-patch14" if kind == "clip" else "models--google--t5-v1_1-xxl"
    hub = empty_home / ".cache" / "huggingface" / "hub"
    places = [
        tmp_path / "named",
        weights.parent,
        weights.parent / own,
        weights.parent.parent / own,
        tmp_path / "ComfyUI" / comfy,
        tmp_path / "ComfyUI" / "backend/huggingface/black-forest-labs/FLUX.1-dev" / own,
        hub / repo / "snapshots" / "abc",
        hub / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / "abc" / own,
    ]
    for place in places:
        put(place, kind)
    find = tokenizer_files.find_clip_files if kind == "clip" else tokenizer_files.find_t5_files
    assert find(weights, places[0], False)[0].parent == places[0]
    for place in places[1:]:
        assert find(weights, None, False)[0].parent == place
        for name in (*CLIP_FILES, "tokenizer.json"):
            (place / name).unlink(missing_ok=True)
    with pytest.raises(ModelFileError) as caught:
        find(weights, None, False)
    assert str(weights.parent / own) in caught.value.hint
    assert ("vocab.json" if kind == "clip" else "spiece.model") in caught.value.hint


def test_a_linked_file_is_searched_where_it_really_lies(tmp_path: Path, empty_home: Path) -> None:
    real = tmp_path / "store" / "clip.safetensors"
    put(real.parent, "clip")
    real.touch()
    link = tmp_path / "elsewhere" / "clip.safetensors"
    link.parent.mkdir()
    link.symlink_to(real)
    assert tokenizer_files.find_clip_files(link, None, False)[0].parent == real.parent


def test_the_other_models_tokenizer_is_passed_over(tmp_path: Path, empty_home: Path) -> None:
    put(tmp_path, "t5")
    with pytest.raises(ModelFileError, match="No CLIP tokenizer found"):
        load_clip_tokenizer(tmp_path / "clip.safetensors")
    with pytest.raises(ModelFileError, match="No CLIP tokenizer there"):
        load_clip_tokenizer(tmp_path / "clip.safetensors", given=tmp_path / "tokenizer.json")
    assert load_t5_tokenizer(tmp_path / "t5.safetensors").vocab_size > 3


def test_a_failed_download_says_what_to_put_where(
    tmp_path: Path, empty_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ModelFileError) as caught:
        load_t5_tokenizer(tmp_path / "t5.safetensors", download=True)
    assert "spiece.model" in caplog.text
    assert "google/t5-v1_1-xxl" in caplog.text
    assert "download" in caught.value.detail
    assert str(tmp_path / "tokenizer_2") in caught.value.hint


def test_a_download_must_be_the_published_file(
    tmp_path: Path, empty_home: Path, tokenizer_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    served: list[tuple[str, str]] = []
    source = tokenizer_files / "clip"

    def fake(repo: str, name: str) -> str:
        served.append((repo, name))
        return str(source / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    assert load_clip_tokenizer(tmp_path / "c.safetensors", download=True).vocab_size == 49408
    assert served == [("openai/clip-vit-large-patch14", name) for name in CLIP_FILES]
    source = put(tmp_path / "false", "clip")
    with pytest.raises(ModelFileError, match="not the published one"):
        load_clip_tokenizer(tmp_path / "c.safetensors", download=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", b"{"),
        ("vocab.json", b"[1]"),
        ("vocab.json", b'{"a": "b"}'),
        ("merges.txt", b"#version: 0.2\nno-pair\n"),
        ("merges.txt", b"zzz yyy\n"),
        ("merges.txt", b"\xff\xfe\n"),
    ],
)
def test_damaged_clip_files(name: str, content: bytes, tmp_path: Path) -> None:
    put(tmp_path, "clip")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged"):
        load_clip_tokenizer(tmp_path / "c.safetensors")


def test_swapped_marks_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "clip")
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    vocab["<|endoftext|>"], vocab["!"] = vocab["!"], vocab["<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(ModelFileError, match="has the id"):
        load_clip_tokenizer(tmp_path / "c.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x0a\xff\xff\xff\xff\x0f", b"\xff" * 40, b"{}", bytes(100)])
def test_damaged_spiece_models(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged"):
        load_t5_tokenizer(tmp_path / "t5.safetensors", given=tmp_path)


def test_truncated_spiece_models(tmp_path: Path, tokenizer_files: Path) -> None:
    whole = (tokenizer_files / "t5" / "spiece.model").read_bytes()
    for size in (10, 1000, 400_000, len(whole) - 3):
        (tmp_path / "spiece.model").write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match="damaged"):
            load_t5_tokenizer(tmp_path / "t5.safetensors", given=tmp_path)


def test_damaged_tokenizer_json(tmp_path: Path) -> None:
    path = put(tmp_path, "t5") / "tokenizer.json"
    found = json.loads(path.read_text())
    for change in ({"normalizer": {"type": "None such"}}, {"model": {**found["model"], "unk_id": 10**6}}):
        path.write_text(json.dumps({**found, **change}))
        with pytest.raises(ModelFileError, match="damaged"):
            load_t5_tokenizer(tmp_path / "t5.safetensors")

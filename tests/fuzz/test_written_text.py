"""What is written into files for others, LoRA metadata and sample pictures, holds no order to a terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.config import RunConfig
from engine.lora.metadata import LoraFacts, build_metadata
from engine.training.png import save_png
from tests.pocket import pocket_config

ORDERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
EVIL = "\x1b]52;c;QQ==\x1b\\\x9b2J\u202egpj\ud83d"
TEXT = st.text(st.sampled_from('\x1b\x07\x9b\u202e\ud83d\n"\\é🔥a,:')) | st.text(st.characters(), max_size=40)


def facts(config: RunConfig, text: str) -> LoraFacts:
    """A run with ``text`` wherever a text comes from outside."""
    return LoraFacts(
        config, "flux-1-dev/lora", "flux1", text, "1", 0.0, 0.0, 1, 1, 1, 1, 1, 0, 1,
        tag_counts={text: {text[:90]: 2}, "b": {"plain": 1}}, folders={text: (1, 2)},
    )  # fmt: skip


def hostile(tmp_path: Path, text: str) -> RunConfig:
    """A configuration that asks for everything to be written; its own rules are set aside."""
    config = pocket_config(tmp_path, dataset={"folders": [{"path": tmp_path}]})
    saving = {"title": text, "author": text, "comment": text, "include_folder_names": True}
    saving |= {"include_tag_counts": True, "include_prompts": True}
    prompts = tuple(config.sampling.prompts) or ()
    return config.model_copy(
        update={
            "saving": config.saving.model_copy(update=saving),
            "sampling": config.sampling.model_copy(update={"prompts": prompts}),
            "model": config.model.model_copy(update={"transformer": Path(f"/x/{text.replace('/', '_')}")}),
        }
    )


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_metadata_holds_no_orders(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Every value can be shown and encoded, those that are JSON still are, and tags keep their counts."""
    text = text.replace("\0", "")
    keys = build_metadata(facts(hostile(tmp_path_factory.getbasetemp(), text), text))
    for key, value in keys.items():
        assert not ORDERS.search(key + value), key
        value.encode()
    tags = json.loads(keys["ss_tag_frequency"])
    assert sorted(count for counts in tags.values() for count in counts.values())[-1] >= 1
    assert json.loads(keys["ss_dataset_dirs"])


def test_ordinary_metadata_stays_as_it_is(tmp_path: Path) -> None:
    comment = "Trained on 20 pictures\nof a café — 日本"
    keys = build_metadata(facts(hostile(tmp_path, comment), "10_café"))
    assert keys["ss_training_comment"] == keys["modelspec.description"] == comment
    assert json.loads(keys["ss_tag_frequency"])["10_café"] == {"10_café": 2}


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_a_samples_text_holds_no_orders(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """The text for people is gated; the JSON for programs gives the prompt back exactly, and is ASCII in the file."""
    path = tmp_path_factory.getbasetemp() / "sample.png"
    parameters = {"prompt": text, "negative": text, "lora": text, "steps": 4, "seed": 1}
    save_png(path, np.zeros((8, 8, 3), np.uint8), parameters)
    with Image.open(path, formats=["PNG"]) as picture:
        info = dict(picture.info)
    assert not ORDERS.search(info["parameters"]) and info["parameters"].encode()
    assert info["lorakiln"].isascii() and not ORDERS.search(info["lorakiln"])
    assert json.loads(info["lorakiln"])["prompt"] == text


def test_no_escape_byte_stands_in_the_file(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8), {"prompt": EVIL, "model": EVIL})
    chunks = (tmp_path / "a.png").read_bytes().split(b"IDAT")[0]
    assert b"]52;c" in chunks and b"\x1b" not in chunks.replace(b"\x89PNG\r\n\x1a\n", b"")

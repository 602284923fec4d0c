"""Captioning models of every class, tiny and random, as folders on disk; taggers; and folders that are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx_bytes import tagger_graph
from tiny_captioners import MAKERS

from engine.captioners.found import recognise, search
from engine.captioners.load import load_captioner
from engine.captioners.request import CaptioningStopped, CaptionRequest, Tagging
from engine.captioners.tags import TagList, chosen_tags, read_tags, written
from engine.errors import ModelFileError

DARK, LIGHT = (np.full((40, 60, 3), value, np.uint8) for value in (0, 200))
TAGS = "tag_id,name,category,count\n1,general,9,1\n2,explicit,9,1\n3,red_hair,0,5\n4,^_^,0,5\n5,miku_(v),4,5\n"


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for kind, make in MAKERS.items():
        make(root / kind)
    return root


@pytest.mark.parametrize("kind", MAKERS)
def test_every_class_answers_each_picture_of_a_batch(models: Path, kind: str) -> None:
    found = recognise(models / kind)
    captioner = load_captioner(found, CaptionRequest(models / kind, max_tokens=5))
    both = captioner.caption([DARK, LIGHT], never)
    assert len(both) == 2 and all(isinstance(answer, str) for answer in both)
    assert captioner.caption([LIGHT], never) == both[1:], "an answer hangs on its own picture alone"
    assert "<" not in "".join(both)
    with pytest.raises(CaptioningStopped):
        captioner.caption([DARK], lambda: True)


@pytest.mark.parametrize("kind", ["blip", "blip-2"])
def test_the_beginning_of_an_answer_is_a_part_of_it(models: Path, kind: str) -> None:
    captioner = load_captioner(recognise(models / kind), CaptionRequest(models / kind, prompt="a cat", max_tokens=3))
    assert all(answer.startswith("a cat") for answer in captioner.caption([DARK, LIGHT], never))


def test_what_is_asked_is_no_part_of_a_chats_answer(models: Path) -> None:
    request = CaptionRequest(models / "llava", prompt="the dog the mat the dog", max_tokens=3)
    answers = load_captioner(recognise(models / "llava"), request).caption([DARK, LIGHT], never)
    assert all("the dog the mat" not in answer for answer in answers)


def test_florence_refuses_a_task_that_it_does_not_have(models: Path) -> None:
    request = CaptionRequest(models / "florence2", prompt="<CAPTION> of a cat")
    with pytest.raises(ModelFileError, match="no such task"):
        load_captioner(recognise(models / "florence2"), request)


def test_a_model_without_some_weights_is_refused(models: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = MAKERS["blip"](tmp_path / "blip")
    weights = load_file(folder / "model.safetensors")
    save_file(dict(list(weights.items())[5:]), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFileError) as caught:
        load_captioner(recognise(folder), CaptionRequest(folder))
    assert "weights are missing" in caught.value.detail


def test_folders_are_found_by_what_they_hold(models: Path) -> None:
    assert [one.kind for one in search([models])] == ["blip", "blip-2", "florence2", "chat", "chat"]
    assert recognise(models / "llava").name == "llava (LLaVA)"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"model_type": "bert"}', "sees no pictures"),
        ('{"model_type": 3}', "names no model_type"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no table"),
        ('{"model_type": "llava", "text_config": {"attn_implementation": "who/ever"}}', "text|attn_implementation"),
        ('{"model_type": "llava"}', "no weights in .safetensors"),
    ],
)
def test_folders_that_are_no_captioners_are_refused(tmp_path: Path, config: str, said: str) -> None:
    (tmp_path / "config.json").write_text(config)
    if "bert" in config:
        (tmp_path / "model.safetensors").write_bytes(b"1234")
    with pytest.raises(ModelFileError) as caught:
        recognise(tmp_path)
    assert any(word in caught.value.detail for word in said.split("|"))
    assert search([tmp_path]) == []


def test_tags_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "selected_tags.csv"
    path.write_text(TAGS)
    assert read_tags(path) == TagList(("general", "explicit", "red hair", "^_^", "miku (v)"), (9, 9, 0, 0, 4))
    for text, line in [
        ("name\na\n", 1), (TAGS + "6,a\n", 7), (TAGS + "6,b,general,1\n", 7), (TAGS + "6,\x1b[31m,0,1\n", 7),
        (TAGS + '6,"a"b,0,1\n', 7), ("name,category\n", 2),
    ]:  # fmt: skip
        path.write_text(text)
        with pytest.raises(ModelFileError) as caught:
            read_tags(path)
        assert f"line {line}" in caught.value.detail


def test_scores_become_tags_by_their_thresholds() -> None:
    tags = TagList(("general", "explicit", "red hair", "^_^", "miku (v)"), (9, 9, 0, 0, 4))
    scores = [0.9, 0.1, 0.4, 0.5, 0.86]
    assert chosen_tags(tags, scores, Tagging()) == "miku (v), ^_^, red hair"
    assert chosen_tags(tags, scores, Tagging(rating=True, characters=False)) == "rating: general, ^_^, red hair"
    assert chosen_tags(tags, scores, Tagging(general=0.45, character=0.9)) == "^_^"
    assert chosen_tags(tags, scores, Tagging(blacklist=("Red_Hair",))) == "miku (v), ^_^"
    assert chosen_tags(tags, [float("nan")] * 5, Tagging(rating=True)) == ""
    assert [written(tag) for tag in ("long_hair", "0_0", ">_<")] == ["long hair", "0_0", ">_<"]


def make_tagger(folder: Path, weights: list[list[float]], tags: str = TAGS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(tagger_graph(weights))
    (folder / "selected_tags.csv").write_text(tags)
    return folder


def test_a_tagger_sees_blue_first_and_white_around(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    red = [[0, 0, 0], [0, 0, 0], [-9, -9, 6], [9, 9, -20], [0, 0, 0]]
    folder = make_tagger(tmp_path / "wd", red)
    found = recognise(folder)
    assert found.kind == "tagger"
    captioner = load_captioner(found, CaptionRequest(folder))
    picture = np.zeros((30, 30, 3), np.uint8)
    picture[:, :, 0] = 255
    blue = picture[:, :, ::-1].copy()
    assert captioner.caption([picture, blue], never) == ["red hair", "^_^"]


def test_a_tagger_whose_files_do_not_belong_together_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = make_tagger(tmp_path / "wd", [[0, 0, 0]] * 4)
    with pytest.raises(ModelFileError) as caught:
        load_captioner(recognise(folder), CaptionRequest(folder))
    assert "scores 4 tags" in caught.value.detail and "lists 5" in caught.value.detail
    for damaged in (b"", b"no graph", tagger_graph([[0, 0, 0]] * 5)[:-40]):
        (folder / "model.onnx").write_bytes(damaged)
        with pytest.raises(ModelFileError, match="tagger cannot be used"):
            load_captioner(recognise(folder), CaptionRequest(folder))


def test_without_onnxruntime_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    folder = make_tagger(tmp_path / "wd", [[0, 0, 0]] * 5)
    with pytest.raises(ModelFileError) as caught:
        load_captioner(recognise(folder), CaptionRequest(folder))
    assert "lorakiln[tagger]" in caught.value.hint


def test_code_from_a_folder_is_never_run(tmp_path: Path) -> None:
    folder = MAKERS["blip"](tmp_path / "blip")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "evil.Model", "AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    captioner = load_captioner(recognise(folder), CaptionRequest(folder, max_tokens=2))
    assert len(captioner.caption([DARK], never)) == 1
    assert not (tmp_path / "ran").exists()

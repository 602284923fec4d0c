"""Scoring models: the same vectors as transformers gives, strict about their files, and no trace of random state."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scorers import clip_folder, dino_folder
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer, Dinov2Model

from engine.config import SamplingConfig
from engine.errors import ModelFileError
from engine.models.scorer_files import check_scorers, clip_files, dino_files
from engine.models.scorers import ClipScorer, DinoScorer, prepared

CPU = torch.device("cpu")
TEXTS = ["a zorple at the left on a white background", "a red circle", ""]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return dino_folder(tmp_path_factory.mktemp("dino"))


def pictures():
    draw = np.random.default_rng(3)
    return [draw.integers(0, 255, shape, dtype=np.uint8) for shape in ((64, 64, 3), (90, 40, 3), (300, 301, 3))]


def test_clips_vectors_are_those_of_transformers(clip):
    theirs = CLIPModel.from_pretrained(clip, local_files_only=True).eval()
    given = prepared(pictures(), clip_files(clip).look)
    tokens = CLIPTokenizer.from_pretrained(clip, local_files_only=True)
    ids = tokens(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        image = theirs.visual_projection(theirs.vision_model(pixel_values=given).pooler_output)
        text = theirs.text_projection(theirs.text_model(input_ids=ids).pooler_output)
    ours = ClipScorer(clip, CPU)
    assert torch.allclose(ours.pictures(pictures()), F.normalize(image, dim=-1), atol=1e-6)
    assert torch.allclose(ours.texts(TEXTS), F.normalize(text, dim=-1), atol=1e-6)


def test_dinos_vectors_are_those_of_transformers(dino):
    theirs = Dinov2Model.from_pretrained(dino, local_files_only=True).eval()
    with torch.no_grad():
        given = prepared(pictures(), dino_files(dino).look)
        found = theirs(pixel_values=given).pooler_output
    assert given.shape == (3, 3, 224, 224)
    assert torch.allclose(DinoScorer(dino, CPU).pictures(pictures()), F.normalize(found, dim=-1), atol=1e-6)


def test_pictures_are_prepared_as_clip_was_trained():
    from transformers import CLIPImageProcessor

    try:
        theirs = CLIPImageProcessor()
        given = [Image.fromarray(picture) for picture in pictures()]
        wanted = torch.from_numpy(np.stack(theirs(given, return_tensors="np")["pixel_values"]))
    except ImportError as err:  # transformers may want torchvision for it
        pytest.skip(str(err))
    look = clip_files_look()
    assert torch.allclose(prepared(pictures(), look), wanted, atol=0.05)


def clip_files_look():
    from engine.models.scorer_files import Look

    return Look(224, 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def test_files_may_say_how_a_picture_is_prepared(clip, tmp_path):
    import shutil

    folder = shutil.copytree(clip, tmp_path / "clip")
    table = {"size": {"shortest_edge": 40}, "crop_size": 32, "image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}
    (folder / "preprocessor_config.json").write_text(json.dumps(table))
    look = clip_files(folder).look
    assert (look.shortest, look.crop, look.mean, look.std) == (40, 32, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    assert ClipScorer(folder, CPU).pictures(pictures()).shape == (3, 8)


def test_no_random_state_is_touched_and_nothing_is_written(clip, dino):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    names = sorted(path.name for folder in (clip, dino) for path in folder.iterdir())
    ClipScorer(clip, CPU).pictures(pictures())
    DinoScorer(dino, CPU).pictures(pictures())
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
    assert torch.get_default_dtype() == torch.float32
    assert sorted(path.name for folder in (clip, dino) for path in folder.iterdir()) == names


def broken(folder, source, change):
    import shutil

    copy = shutil.copytree(source, folder / "copy")
    change(copy)
    return copy


def rewrite(name, **changes):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def drop_a_tensor(folder):
    state = load_file(folder / "model.safetensors")
    state.pop("visual_projection.weight")
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("[1"), "no JSON"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "no table"),
        (rewrite("config.json", model_type="vit"), "model_type is vit"),
        (rewrite("config.json", projection_dim=0), "projection_dim"),
        (rewrite("config.json", vision_config={"num_attention_heads": 7}), "heads do not divide"),
        (rewrite("config.json", vision_config={"hidden_act": "exec"}), "hidden_act"),
        (lambda folder: (folder / "model.safetensors").unlink(), "pickled weights are not read"),
        (drop_a_tensor, "missing: visual_projection.weight"),
        (lambda folder: (folder / "vocab.json").unlink(), "tokenizer"),
        (lambda folder: (folder / "preprocessor_config.json").write_text('{"crop_size": 300}'), "cannot be cut out"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(clip, tmp_path, change, words):
    with pytest.raises(ModelFileError, match=words):
        ClipScorer(broken(tmp_path, clip, change), CPU)


def test_what_is_configured_is_looked_at_before_anything_is_loaded(clip, dino, tmp_path):
    check_scorers(SamplingConfig(score_clip=clip, score_dino=dino))
    check_scorers(SamplingConfig())
    for wrong in (
        SamplingConfig(score_clip=dino),
        SamplingConfig(score_dino=clip),
        SamplingConfig(score_clip=tmp_path),
    ):
        with pytest.raises(ModelFileError, match="scores samples"):
            check_scorers(wrong)


def test_both_ways_of_naming_are_read(dino, tmp_path):
    """Published files call attention's layers otherwise than newer ones do."""
    from engine.models.scorers import _published

    state = load_file(dino / "model.safetensors")
    new = {name.replace(".attention.attention.query.", ".attention.q_proj."): value for name, value in state.items()}
    copy = broken(tmp_path, dino, lambda folder: save_file(new, folder / "model.safetensors"))
    given = pictures()
    assert torch.equal(DinoScorer(copy, CPU).pictures(given), DinoScorer(dino, CPU).pictures(given))
    assert _published("encoder.layer.0.attention.o_proj.bias") == "encoder.layer.0.attention.output.dense.bias"

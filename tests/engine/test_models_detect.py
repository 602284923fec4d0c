"""Recognising files by their headers: every kind, at full size, misnamed, half, and what a wrong one is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import TINY, random_tensors, raw_file, sparse_file, tiny_flux, write

from engine.errors import ModelFileError
from engine.models.detect import detect, expect
from engine.models.flux import FluxParams
from engine.models.flux_layout import flux_layout

Golden = Callable[[str], list[Path]]
ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "engine" / "models" / "pocket" / "files"


@pytest.mark.parametrize(
    ("layout", "kind", "family", "variant", "parameters"),
    [
        ("flux1-dev", "transformer", "flux1", "dev", 11_901_408_320),
        ("flux1-schnell", "transformer", "flux1", "schnell", 11_891_178_560),
        ("ae", "autoencoder", "flux1", "", 83_819_683),
        ("t5xxl", "t5", "flux1", "", 4_762_310_656),
        ("clip_l", "clip_l", "flux1", "", 123_060_480),
        ("sdxl", "checkpoint", "sdxl", "", None),
    ],
)
def test_golden_layouts_are_recognised_at_full_size(
    layout: str, kind: str, family: str, variant: str, parameters: int | None, golden: Golden, tmp_path: Path
) -> None:
    shapes = json.loads(golden("checkpoint_layouts.json")[0].read_text())["layouts"][layout]
    path = sparse_file(tmp_path / "misnamed-lora.safetensors", shapes)
    info = detect(path)
    assert (info.kind, info.family, info.variant, info.dtype) == (kind, family, variant, "bf16")
    assert info.complete
    assert info.missing == info.unexpected == ()
    assert parameters in (None, info.parameters)
    assert info.size_bytes == path.stat().st_size
    json.dumps(info.to_dict())


@pytest.mark.parametrize("name", ["flux_default_rank16", "flux_train_blocks_single_rank4"])
def test_golden_loras_are_recognised_and_refused_as_a_base(name: str, golden: Golden, tmp_path: Path) -> None:
    shapes = json.loads(golden("lora_layouts.json")[0].read_text())["layouts"][name]
    path = sparse_file(tmp_path / "flux1-dev.safetensors", shapes)
    info = detect(path)
    assert (info.kind, info.family, info.variant) == ("lora", "flux1", "kohya")
    for kind in ("transformer", "autoencoder", "clip_l", "t5"):
        with pytest.raises(ModelFileError, match=r"(?s)is a LoRA.*Wanted is"):
            expect(path, kind)


def test_detection_is_free_of_torch() -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import engine.models.find\n"
        "from engine.models.detect import detect\n"
        f"assert detect(Path({str(POCKET / 'flux-pocket.safetensors')!r})).complete\n"
        "import engine.models.tokenizers\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'accelerate', 'numpy', 'sentencepiece'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def shapes_of(**changes: Any) -> dict[str, tuple[int, ...]]:
    return flux_layout(FluxParams(**changes).to_dict())


@pytest.mark.parametrize(
    ("changes", "variant", "note"),
    [
        ({"in_channels": 384}, "fill", "384 input channels"),
        ({"in_channels": 128}, "canny/depth", "128 input channels"),
        ({"in_channels": 96, "guidance_embed": False}, "schnell", "96 input channels"),
        ({"depth": 8, "depth_single_blocks": 30}, "dev", "8 double and 30 single blocks"),
    ],
)
def test_variants(changes: dict[str, Any], variant: str, note: str, tmp_path: Path) -> None:
    info = detect(sparse_file(tmp_path / "m.safetensors", shapes_of(**changes)))
    assert (info.variant, info.note, info.complete) == (variant, note, True)


def test_half_of_a_model_names_what_is_missing(tmp_path: Path) -> None:
    shapes = shapes_of()
    half = {name: shape for number, (name, shape) in enumerate(shapes.items()) if number % 2}
    info = detect(sparse_file(tmp_path / "m.safetensors", half))
    assert (info.kind, info.complete) == ("transformer", False)
    assert set(info.missing) == set(shapes) - set(half)
    # The first part of a split model: its depth is not known, its own blocks are whole.
    start = {name: shape for name, shape in shapes.items() if not name.startswith(("single_blocks", "final"))}
    info = detect(sparse_file(tmp_path / "n.safetensors", start))
    assert set(info.missing) == {name for name in shapes if name.startswith("final")}


def checkpoint(prefixed: dict[str, dict[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    return {prefix + name: shape for prefix, shapes in prefixed.items() for name, shape in shapes.items()}


def test_an_all_in_one_flux_checkpoint(golden: Golden, tmp_path: Path) -> None:
    layouts = json.loads(golden("checkpoint_layouts.json")[0].read_text())["layouts"]
    shapes = checkpoint(
        {
            "model.diffusion_model.": layouts["flux1-dev"],
            "vae.": layouts["ae"],
            "text_encoders.t5xxl.transformer.": layouts["t5xxl"],
            "text_encoders.clip_l.transformer.": layouts["clip_l"],
        }
    )
    path = sparse_file(tmp_path / "m.safetensors", shapes, "F8_E4M3", 1)
    info = detect(path)
    assert (info.kind, info.family, info.variant, info.complete) == ("checkpoint", "flux1", "dev", True)
    assert info.dtype == "fp8_e4m3fn"
    for kind in ("transformer", "autoencoder", "clip_l", "t5"):
        assert expect(path, kind).kind == kind


OTHERS: dict[str, tuple[dict[str, tuple[int, ...]], str, str]] = {
    "chroma": (
        {"distilled_guidance_layer.in_proj.weight": (5120, 64), "double_blocks.0.img_attn.qkv.weight": (9216, 3072)},
        "transformer", "chroma",
    ),
    "clip_g, transformers": (
        {"text_model.embeddings.token_embedding.weight": (49408, 1280), "text_model.encoder.layers.0.x": (1,)},
        "clip_g", "sdxl",
    ),
    "clip_g, openclip": (
        {"transformer.resblocks.0.ln_1.weight": (1280,), "ln_final.weight": (1280,)}, "clip_g", "sdxl",
    ),
    "sd 1.5": (
        {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "first_stage_model.decoder.x": (1,),
         "cond_stage_model.transformer.text_model.final_layer_norm.bias": (768,)},
        "checkpoint", "sd",
    ),
    "diffusers transformer": ({"transformer_blocks.0.attn.to_q.weight": (3072, 3072)}, "unknown", "flux1"),
    "diffusers autoencoder": ({"encoder.down_blocks.0.resnets.0.conv1.weight": (128, 128, 3, 3)}, "unknown", ""),
    "diffusers u-net": ({"down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3)}, "unknown", ""),
    "nf4": (
        {"double_blocks.0.img_attn.qkv.weight": (100, 1), "double_blocks.0.img_attn.qkv.weight.absmax": (10,)},
        "unknown", "",
    ),
    "lora, sdxl kohya": (
        {"lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight": (4, 640),
         "lora_unet_down_blocks_1_attentions_0_proj_in.lora_up.weight": (640, 4)},
        "lora", "sdxl",
    ),
    "lora, flux diffusers": (
        {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072),
         "transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight": (3072, 4)},
        "lora", "flux1",
    ),
    "lokr": ({"lycoris_double_blocks_0_img_attn_proj.lokr_w1": (4, 4)}, "lora", "flux1"),
    "nothing known": ({"some.layer.weight": (3, 3)}, "unknown", ""),
    "no tensors": ({}, "unknown", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_files(name: str, tmp_path: Path) -> None:
    shapes, kind, family = OTHERS[name]
    info = detect(sparse_file(tmp_path / "m.safetensors", shapes))
    assert (info.kind, info.family) == (kind, family)
    assert info.note or info.kind != "unknown"
    with pytest.raises(ModelFileError) as caught:
        expect(tmp_path / "m.safetensors", "autoencoder")
    assert "ae.safetensors" in str(caught.value)


def test_a_diffusers_file_is_told_the_single_file(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "diffusion_pytorch_model.safetensors", OTHERS["diffusers transformer"][0])
    with pytest.raises(ModelFileError, match=r"(?s)Diffusers' layout.*flux1-dev\.safetensors"):
        expect(path, "transformer")


@pytest.mark.parametrize("marker", ["model_index.json", "config.json", None])
def test_a_folder_is_told_the_single_file(marker: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "FLUX.1-dev"
    (folder / "transformer").mkdir(parents=True)
    if marker:
        (folder / marker).write_text("{}")
    for place in (folder, folder / "transformer"):
        with pytest.raises(ModelFileError, match=r"(?s)folder.*flux1-dev\.safetensors or flux1-schnell\.safetensors"):
            expect(place, "transformer")
    with pytest.raises(ModelFileError, match=r"Diffusers' layout"):
        expect(folder, "transformer")
    with pytest.raises(ModelFileError, match=r"t5xxl_fp16\.safetensors"):
        expect(folder, "t5")


def test_dtypes(tmp_path: Path) -> None:
    shapes = shapes_of(depth=1, depth_single_blocks=1)
    for dtype, width, name in (("F16", 2, "fp16"), ("F32", 4, "fp32"), ("F8_E5M2", 1, "fp8_e5m2")):
        assert detect(sparse_file(tmp_path / "m.safetensors", shapes, dtype, width)).dtype == name
    tensors = random_tensors(flux_layout(TINY.to_dict()))
    mixed = {n: t.to(torch.bfloat16) if t.ndim > 1 else t for n, t in tensors.items()}
    assert detect(write(tmp_path / "n.safetensors", mixed, TINY.to_dict())).dtype == "bf16"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("block", ["999999999", "1001"])
def test_impossible_depths_do_not_make_work(block: str, tmp_path: Path) -> None:
    names = {f"double_blocks.{block}.img_attn.qkv.weight": (3, 3), "encoder.block.0.layer.0.x": (1,)}
    info = detect(sparse_file(tmp_path / "m.safetensors", names))
    assert not info.complete
    for name in (
        f"encoder.block.{block}.layer.0.SelfAttention.q.weight",
        f"encoder.down.{block}.block.0.conv1.weight",
    ):
        assert not detect(sparse_file(tmp_path / "n.safetensors", {name: (3, 3)})).complete


@pytest.mark.parametrize("shape", [(), (0,), (0, 0), (2**40, 0), (1, 1, 1, 1)])
def test_odd_shapes_are_no_crash(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Every tensor of every kind with a shape that no model has."""
    for layout in (
        list(flux_layout(TINY.to_dict())),
        ["encoder.conv_in.weight", "encoder.down.0.block.0.conv2.weight", "encoder.down.x.y"],
        ["text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.0.mlp.fc1.weight"],
        ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight",
         "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"],
    ):  # fmt: skip
        info = detect(sparse_file(tmp_path / "m.safetensors", dict.fromkeys(layout, shape)))
        assert not info.complete


def test_a_truncated_model_says_so(tmp_path: Path) -> None:
    path = tiny_flux(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    for size in (9, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match="truncated"):
            expect(path, "transformer")


def test_names_from_a_file_cannot_reach_the_terminal(tmp_path: Path) -> None:
    path = raw_file(
        tmp_path / "m.safetensors",
        {"__metadata__": {"params": '{"theta": "\\u001b[2J"}', "\x1b]0;x\x07": "y"},
         "double_blocks.0.img_attn.proj.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}},
        bytes(4),
    )  # fmt: skip
    with pytest.raises(ModelFileError) as caught:
        expect(path, "transformer")
    assert "\x1b" not in str(caught.value)
    assert "\x1b" not in detect(path).note


@pytest.mark.parametrize("kind", ["flux", "ae", "clip", "t5"])
def test_the_pocket_model_is_complete(kind: str) -> None:
    info = detect(POCKET / f"{kind}-pocket.safetensors")
    assert info.complete
    assert info.family == "flux1"

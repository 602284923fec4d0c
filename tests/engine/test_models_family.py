"""The seam: what the trainer, the caches and sampling ask of FLUX.1, through the pocket model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import TINY, random_tensors, sparse_file, tiny_flux, write

from engine.config import LORA_KINDS, ModelConfig
from engine.errors import ModelFileError
from engine.models.detect import detect, expect
from engine.models.family import FLUX1, Family, TextEmbeds, family_of
from engine.models.flux import FluxParams, FluxTransformer, image_ids, pack_latents, text_ids, unpack_latents
from engine.models.flux_file import load_flux
from engine.models.flux_text import FluxTextEncoder
from engine.models.text_layout import T5Sizes, t5_layout

FILES = Path(__file__).resolve().parents[2] / "engine" / "models" / "pocket" / "files"


def config(**changes: Any) -> ModelConfig:
    plain = {
        "transformer": FILES / "flux-pocket.safetensors",
        "autoencoder": FILES / "ae-pocket.safetensors",
        "clip_l": FILES / "clip-pocket.safetensors",
        "t5": FILES / "t5-pocket.safetensors",
        "t5_length": 20,
        "download_tokenizers": False,
    }
    return ModelConfig(**{**plain, **changes})


def encoder(**changes: Any) -> FluxTextEncoder:
    return FLUX1.load_text_encoder(config(**changes), "cpu", torch.float32)


def text(batch: int, tokens: int = 5, params: FluxParams = TINY) -> TextEmbeds:
    draw = torch.Generator().manual_seed(0)
    mask = torch.ones(batch, tokens, dtype=torch.bool)
    mask[0, 3:] = False
    states = torch.randn(batch, tokens, params.context_in_dim, generator=draw)
    return TextEmbeds(torch.randn(batch, params.vec_in_dim, generator=draw), states, mask)


def test_the_family_of_a_file(tmp_path: Path) -> None:
    family: Family = family_of(expect(config().transformer, "transformer"))
    assert family is FLUX1
    shapes = {
        "distilled_guidance_layer.in_proj.weight": (5120, 64),
        "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
    }
    chroma = detect(sparse_file(tmp_path / "c.safetensors", shapes))
    with pytest.raises(ModelFileError, match="chroma"):
        family_of(chroma)
    with pytest.raises(ModelFileError, match="chroma"):
        load_flux(chroma.path, "cpu", torch.float32)


def test_variants() -> None:
    settings = config(t5_length=0)
    assert FLUX1.text_length("dev", settings) == 512
    assert FLUX1.text_length("schnell", settings) == 256
    assert FLUX1.text_length("schnell", config(t5_length=100)) == 100
    assert FLUX1.sampling_shift("dev")
    assert not FLUX1.sampling_shift("schnell")
    assert [FLUX1.architecture(variant) for variant in ("dev", "schnell")] == ["flux-1-dev", "flux-1-schnell"]


def test_velocity_is_the_transformer_on_packed_latents(tmp_path: Path) -> None:
    model = load_flux(tiny_flux(tmp_path / "m.safetensors"), "cpu", torch.float32)
    assert FLUX1.uses_guidance(model)
    latents, sigmas, embeds = torch.randn(2, 16, 6, 10), torch.tensor([0.2, 0.9]), text(2)
    found = FLUX1.velocity(model, latents, sigmas, embeds, 3.5, masked=False)
    wanted = model(
        pack_latents(latents), image_ids(2, 6, 10), embeds.states, text_ids(2, 5), sigmas, embeds.pooled,
        torch.tensor([3.5, 3.5]),
    )  # fmt: skip
    assert torch.equal(found, unpack_latents(wanted, 6, 10))
    assert found.shape == latents.shape
    masked = FLUX1.velocity(model, latents, sigmas, embeds, 3.5, masked=True)
    assert not torch.allclose(masked[0], found[0])
    assert torch.allclose(masked[1], found[1], atol=1e-6)
    with pytest.raises(ValueError, match="even"):
        FLUX1.velocity(model, torch.randn(2, 16, 5, 10), sigmas, embeds, 3.5, masked=False)


def test_velocity_in_half_precision_is_float32_outside(tmp_path: Path) -> None:
    path = tiny_flux(tmp_path / "m.safetensors")
    model = load_flux(path, "cpu", torch.bfloat16)
    full = load_flux(path, "cpu", torch.float32)
    latents, embeds = torch.randn(1, 16, 4, 4), text(1)
    # 0.9961 in bfloat16 would be read as 1: sigma must reach the embedding in float32.
    near, one = (FLUX1.velocity(model, latents, torch.tensor([s]), embeds, 1.0, False) for s in (0.9961, 1.0))
    assert near.dtype == torch.float32
    assert not torch.equal(near, one)
    wanted = FLUX1.velocity(full, latents, torch.tensor([0.9961]), embeds, 1.0, False)
    assert float((near - wanted).norm() / wanted.norm()) < 0.05


def test_guidance_is_embedded_by_dev_only(tmp_path: Path) -> None:
    plain = {**TINY.to_dict(), "axes_dim": TINY.axes_dim}
    for guided in (True, False):
        params = FluxParams(**{**plain, "guidance_embed": guided})
        model = load_flux(tiny_flux(tmp_path / f"{guided}.safetensors", params), "cpu", torch.float32)
        latents, sigmas, embeds = torch.randn(1, 16, 4, 4), torch.tensor([0.5]), text(1)
        low, high = (FLUX1.velocity(model, latents, sigmas, embeds, g, False) for g in (1.0, 4.0))
        assert FLUX1.uses_guidance(model) == guided
        assert torch.equal(low, high) != guided


def test_lora_modules_at_full_size() -> None:
    with torch.device("meta"):
        model = FluxTransformer(FluxParams())
    kinds = FLUX1.lora_modules(model)
    assert len(kinds) == 304
    assert set(kinds.values()) == set(LORA_KINDS)
    assert Counter(kinds.values())["single"] == 76
    assert all(isinstance(model.get_submodule(name), torch.nn.Linear) for name in kinds)
    assert kinds["double_blocks.3.txt_mlp.2"] == "txt_mlp"
    assert kinds["single_blocks.37.modulation.lin"] == "single_mod"


def test_captions_do_not_depend_on_their_company() -> None:
    encoded = encoder().encode(["a red circle", "", "zorple zorple zorple"])
    assert encoded.pooled.shape == (3, 64)
    assert encoded.states.shape == (3, 20, 96)
    assert encoded.mask.dtype == torch.bool
    assert encoded.mask[1].tolist() == [True] + [False] * 19
    alone = encoder().encode(["zorple zorple zorple"])
    for one, other in zip(
        (alone.pooled, alone.states, alone.mask), (encoded.pooled, encoded.states, encoded.mask), strict=True
    ):
        assert torch.equal(one[0], other[2])


def test_the_mask_setting_changes_the_states() -> None:
    plain, masked = (encoder(t5_mask=mask).encode(["a red circle"]) for mask in (False, True))
    assert torch.equal(plain.mask, masked.mask)
    assert not torch.equal(plain.states, masked.states)


def test_a_closed_encoder_says_so() -> None:
    closed = encoder()
    with pytest.raises(ValueError, match="nothing"):
        closed.encode([])
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        closed.encode(["a"])


def test_fingerprints_know_everything_that_changes_embeddings(tmp_path: Path) -> None:
    base = FLUX1.text_fingerprint(config(), torch.float32)
    assert base == encoder().fingerprint
    moved = tmp_path / "copy.safetensors"
    moved.write_bytes(config().t5.read_bytes())
    tokenizers = {"clip_tokenizer": FILES / "tokenizer", "t5_tokenizer": FILES / "tokenizer_2"}
    assert FLUX1.text_fingerprint(config(t5=moved, **tokenizers), torch.float32) == base
    others = [
        FLUX1.text_fingerprint(config(), torch.bfloat16),
        FLUX1.text_fingerprint(config(t5_length=21), torch.float32),
        FLUX1.text_fingerprint(config(t5_mask=True), torch.float32),
    ]
    assert len({base, *others}) == 4
    assert FLUX1.autoencoder_fingerprint(config(), torch.float32) == (
        FLUX1.load_autoencoder(config(), "cpu", torch.float32).fingerprint
    )


@pytest.mark.parametrize(("key", "says"), [("clip_l", "CLIP"), ("t5", "T5"), ("autoencoder", "autoencoder")])
def test_files_in_the_wrong_slots(key: str, says: str) -> None:
    settings = config(**{key: config().transformer})
    with pytest.raises(ModelFileError, match=f"Not an? {says}"):
        if key == "autoencoder":
            FLUX1.load_autoencoder(settings, "cpu", torch.float32)
        else:
            FLUX1.load_text_encoder(
                settings.model_copy(
                    update={"clip_tokenizer": FILES / "tokenizer", "t5_tokenizer": FILES / "tokenizer_2"}
                ),
                "cpu",
                torch.float32,
            )


def test_parts_that_do_not_belong_together(tmp_path: Path, tokenizer_files: Path) -> None:
    sizes = T5Sizes(vocab_size=120, d_model=40, d_kv=8, d_ff=32, layers=1, num_heads=2)
    wide = write(tmp_path / "t5.safetensors", random_tensors(t5_layout(sizes)))
    with pytest.raises(ModelFileError, match="states are 40 wide, expected 96"):
        encoder(t5=wide, t5_tokenizer=FILES / "tokenizer_2")
    with pytest.raises(ModelFileError, match=r"its tokenizer has 49408"):
        encoder(clip_tokenizer=tokenizer_files / "clip")
    with pytest.raises(ModelFileError, match=r"its tokenizer has 32100"):
        encoder(t5_tokenizer=tokenizer_files / "t5")


def test_control_variants_are_refused_in_words(tmp_path: Path) -> None:
    plain = {**TINY.to_dict(), "axes_dim": TINY.axes_dim, "in_channels": 384}
    path = tiny_flux(tmp_path / "fill.safetensors", FluxParams(**plain))
    with pytest.raises(ModelFileError, match=r"(?s)fill with 384 input channels.*flux1-dev"):
        FLUX1.load_transformer(config(transformer=path), "cpu", torch.float32)

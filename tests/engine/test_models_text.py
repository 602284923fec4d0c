"""CLIP and T5 through our loader equal transformers' own models, in every naming and precision of files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_files import write
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from engine.errors import ModelFileError
from engine.models.detect import detect
from engine.models.header import encoder_fingerprint
from engine.models.t5_layers import T5Encoder
from engine.models.text_encoders import load_clip, load_t5

CLIP_PREFIXES = ["text_model.", "", "text_encoders.clip_l.transformer.text_model."]


def seeded(seed: int = 0) -> None:
    torch.manual_seed(seed)


def new_clip(positions: int = 24) -> CLIPTextModel:
    seeded()
    config = CLIPTextConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=positions,
        hidden_act="quick_gelu",
        bos_token_id=58,
        eos_token_id=59,
        pad_token_id=59,
    )
    net = CLIPTextModel(config).eval()
    for parameter in net.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return net


def clip_state(net: CLIPTextModel) -> dict[str, Tensor]:
    state = {name.removeprefix("text_model."): tensor for name, tensor in net.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if not name.endswith("position_ids")}


def new_t5() -> T5EncoderModel:
    seeded()
    config = T5Config(
        vocab_size=50,
        d_model=24,
        d_kv=5,
        d_ff=40,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    net = T5EncoderModel(config).eval()
    for parameter in net.parameters():
        parameter.data.mul_(0.5).add_(torch.randn_like(parameter) * 0.05)
    return net


def t5_state(net: T5EncoderModel) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in net.state_dict().items() if name != "encoder.embed_tokens.weight"}


def theirs(net: T5EncoderModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """transformers' states, one caption at a time: ours do not depend on the others."""
    with torch.no_grad():
        rows = [
            net(input_ids=ids[n : n + 1], attention_mask=None if mask is None else mask[n : n + 1].long())
            for n in range(len(ids))
        ]
    return torch.cat([row.last_hidden_state for row in rows])


def weights_of(found: T5Encoder) -> dict[str, Tensor]:
    """Every weight as the encoder reads it, by its name in the file."""
    table, norm = found._read_ends()
    state = {f"shared.{name}": tensor for name, tensor in table.state_dict().items()}
    state |= {f"encoder.final_layer_norm.{name}": tensor for name, tensor in norm.state_dict().items()}
    for number in range(found.sizes.layers):
        layer = found._read_layer(number).state_dict()
        state |= {f"encoder.block.{number}.{name}": tensor for name, tensor in layer.items()}
    return state


CLIP_IDS = torch.tensor([[58, 3, 4, 59, 59, 59], [58, 59, 7, 59, 59, 59], [58, 1, 2, 3, 4, 59]])
T5_IDS = torch.tensor([[5, 6, 7, 1, 0, 0, 0, 0], [9, 1, 0, 0, 0, 0, 0, 0]])
T5_MASK = T5_IDS != 0


@pytest.mark.parametrize("prefix", CLIP_PREFIXES)
def test_clip_equals_transformers(prefix: str, tmp_path: Path) -> None:
    net = new_clip()
    path = write(tmp_path / "c.safetensors", clip_state(net), {"num_heads": 4}, prefix)
    found = load_clip(path, "cpu", torch.float32)
    assert found.sizes.positions == 24
    with torch.no_grad():
        wanted = net(input_ids=CLIP_IDS)
    assert torch.equal(found.encode_ids(CLIP_IDS), wanted.pooler_output)
    # The second caption's first end token is at place 1, not at its last.
    assert torch.equal(found.encode_ids(CLIP_IDS)[1], wanted.last_hidden_state[1, 1])


def test_clip_uses_quick_gelu(tmp_path: Path) -> None:
    found = load_clip(
        write(tmp_path / "c.safetensors", clip_state(new_clip()), {"num_heads": 4}), "cpu", torch.float32
    )
    assert found.net.config.hidden_act == "quick_gelu"
    other = new_clip()
    other.config.hidden_act = "gelu"
    plain = CLIPTextModel(other.config).eval()
    plain.load_state_dict(other.state_dict())
    with torch.no_grad():
        assert not torch.allclose(found.encode_ids(CLIP_IDS), plain(input_ids=CLIP_IDS).pooler_output, atol=1e-3)


def test_what_clip_files_carry_besides(tmp_path: Path) -> None:
    extra = {
        "text_model.embeddings.position_ids": torch.arange(24)[None],
        "logit_scale": torch.ones(()),
        "text_projection.weight": torch.zeros(32, 32),
        "visual_projection.weight": torch.zeros(32, 32),
        "vision_model.encoder.layers.0.layer_norm1.weight": torch.zeros(8),
    }
    state = {f"text_model.{name}": tensor for name, tensor in clip_state(new_clip()).items()}
    path = write(tmp_path / "c.safetensors", state | extra, {"num_heads": 4})
    assert detect(path).complete
    load_clip(path, "cpu", torch.float32)
    path = write(tmp_path / "d.safetensors", state | {"stranger": torch.zeros(1)}, {"num_heads": 4})
    with pytest.raises(ModelFileError, match="unexpected: stranger"):
        load_clip(path, "cpu", torch.float32)


def test_clip_heads(tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors", clip_state(new_clip()), {"num_heads": 5})
    with pytest.raises(ModelFileError, match="5 heads do not divide"):
        load_clip(path, "cpu", torch.float32)
    path = write(tmp_path / "d.safetensors", clip_state(new_clip()))
    assert load_clip(path, "cpu", torch.float32).sizes.num_heads == 1  # 64 wide, and never less than one


def test_clip_with_a_layer_missing(tmp_path: Path) -> None:
    state = {n: t for n, t in clip_state(new_clip()).items() if not n.startswith("encoder.layers.0.mlp")}
    path = write(tmp_path / "c.safetensors", state, {"num_heads": 4}, "text_model.")
    with pytest.raises(ModelFileError, match=r"missing: encoder\.layers\.0\.mlp\.fc1\.weight"):
        load_clip(path, "cpu", torch.float32)


@pytest.mark.parametrize("prefix", ["", "text_encoders.t5xxl.transformer."])
@pytest.mark.parametrize("tied", ["shared.weight", "encoder.embed_tokens.weight", "both"])
def test_t5_equals_transformers(prefix: str, tied: str, tmp_path: Path) -> None:
    net = new_t5()
    state = t5_state(net)
    if tied != "shared.weight":
        state["encoder.embed_tokens.weight"] = state["shared.weight"].clone()
    if tied == "encoder.embed_tokens.weight":
        del state["shared.weight"]
    path = write(tmp_path / "t.safetensors", state, prefix=prefix)
    found = load_t5(path, "cpu", torch.float32)
    assert (found.sizes.num_heads, found.sizes.d_kv, found.sizes.layers) == (4, 5, 2)
    plain, masked = theirs(net, T5_IDS), theirs(net, T5_IDS, T5_MASK)
    assert torch.equal(found.encode_ids(T5_IDS), plain)
    assert torch.equal(found.encode_ids(T5_IDS, T5_MASK), masked)
    assert not torch.allclose(plain[:, 0], masked[:, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_t5_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    net = new_t5()
    for parameter in net.parameters():
        parameter.data.copy_(parameter.data.to(dtype))
    net.save_pretrained(tmp_path / "hf")
    path = write(tmp_path / "t.safetensors", {name: tensor.to(dtype) for name, tensor in t5_state(net).items()})
    found = load_t5(path, "cpu", dtype)
    wanted = T5EncoderModel.from_pretrained(tmp_path / "hf", dtype=dtype).eval()
    states = found.encode_ids(T5_IDS)
    assert states.dtype == dtype
    assert torch.equal(states, theirs(wanted, T5_IDS))
    assert torch.equal(found.encode_ids(T5_IDS, T5_MASK), theirs(wanted, T5_IDS, T5_MASK))


def test_t5_in_float16_does_not_overflow(tmp_path: Path) -> None:
    net = new_t5()
    state = t5_state(net)
    for name in state:
        if name.endswith(("wi_0.weight", "wi_1.weight", "wo.weight")):
            state[name] = state[name] * 60
    path = write(tmp_path / "t.safetensors", state)
    found = load_t5(path, "cpu", torch.float16)
    projections = [tensor for name, tensor in weights_of(found).items() if name.endswith(".wo.weight")]
    assert projections
    assert all(projection.dtype == torch.float32 for projection in projections)
    assert bool(found.encode_ids(T5_IDS).isfinite().all())


@pytest.mark.parametrize("new_names", [False, True])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_t5_in_scaled_fp8(new_names: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    net = new_t5()
    state: dict[str, Tensor] = {} if new_names else {"scaled_fp8": torch.zeros(2, dtype=dtype)}
    exact = {}
    for name, tensor in t5_state(net).items():
        if ("SelfAttention" in name and "bias" not in name) or "DenseReluDense" in name:
            scale = tensor.abs().max() / torch.finfo(dtype).max
            state[name] = (tensor / scale).to(dtype)
            base = name.removesuffix(".weight")
            state[f"{base}.weight_scale" if new_names else f"{base}.scale_weight"] = scale
            exact[name] = state[name].float() * scale
        else:
            state[name] = exact[name] = tensor.clone()
    path = write(tmp_path / "t.safetensors", state)
    assert "scaled" in detect(path).dtype
    found = load_t5(path, "cpu", torch.float32)
    weights = weights_of(found)
    assert weights.keys() == exact.keys()
    assert all(torch.equal(weights[name], wanted) for name, wanted in exact.items())


def test_t5_in_plain_fp8(tmp_path: Path) -> None:
    state = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in t5_state(new_t5()).items()}
    found = load_t5(write(tmp_path / "t.safetensors", state), "cpu", torch.bfloat16)
    assert torch.equal(weights_of(found)["shared.weight"], state["shared.weight"].to(torch.bfloat16))


def test_sizes_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="32 buckets of relative positions up to 8"):
        load_t5(write(tmp_path / "t.safetensors", t5_state(new_t5()), {"max_distance": 8}), "cpu", torch.float32)
    with pytest.raises(ModelFileError, match="2 positions hold no start, text and end"):
        load_clip(write(tmp_path / "c.safetensors", clip_state(new_clip(2)), {"num_heads": 4}), "cpu", torch.float32)


def test_a_decoder_is_not_expected(tmp_path: Path) -> None:
    state = t5_state(new_t5()) | {"decoder.block.0.layer.0.layer_norm.weight": torch.ones(24)}
    with pytest.raises(ModelFileError, match=r"unexpected: decoder\.block\.0"):
        load_t5(write(tmp_path / "t.safetensors", state), "cpu", torch.float32)


def test_fingerprints_follow_file_and_precision(tmp_path: Path) -> None:
    path = write(tmp_path / "t.safetensors", t5_state(new_t5()))
    found = load_t5(path, "cpu", torch.float32)
    assert found.fingerprint == encoder_fingerprint(path, torch.float32)
    assert found.fingerprint != encoder_fingerprint(path, torch.bfloat16)


def test_one_encoder_in_place_of_the_other(tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.safetensors", clip_state(new_clip()), {"num_heads": 4}, "text_model.")
    t5 = write(tmp_path / "t5.safetensors", t5_state(new_t5()))
    with pytest.raises(ModelFileError, match=r"(?s)Not a T5 file.*clip\.safetensors is flux1 CLIP-L.*t5xxl"):
        load_t5(clip, "cpu", torch.float32)
    with pytest.raises(ModelFileError, match=r"(?s)Not a CLIP-L file.*clip_l\.safetensors"):
        load_clip(t5, "cpu", torch.float32)

"""Targets that read weights and what lies beside them: headers, LoRA files, states, tokenizers, sampled JSON."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import torch
from safetensors import deserialize
from safetensors.torch import save

from engine.errors import ModelFileError, RunError
from engine.lora.formats import load_lora
from engine.lora.metadata import read_metadata
from engine.memory.rungs import read_taken
from engine.models.detect import detect
from engine.models.header import parse_header
from engine.models.scorer_files import clip_files, dino_files
from engine.models.tokenizer_files import find_clip_files, find_t5_files
from engine.models.tokenizers import load_clip_tokenizer, load_t5_tokenizer
from engine.training.checkpoint import load_newest
from engine.training.faults import read_skips
from engine.training.optimizer_state import load_optimizer_state, optimizer_tensors
from engine.training.products import read_products
from engine.training.record import PictureMark, Record, load_record, save_record
from engine.training.trackers import wandb_id
from tests.fuzz.target import Target, as_file, assert_harmless, scratch

_JSON = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


def sealed(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file of this header."""
    return len(header).to_bytes(8, "little") + header + data


def _safetensors_seeds() -> list[bytes]:
    both = {"a.weight": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.tensor(1)}
    return [save(both, {"format": "pt"}), sealed(_JSON, bytes(8)), sealed(b"{}")]


def _header(data: bytes) -> None:
    # The length is mended, or a mutant would rarely get past it.
    data = _with_length(data)
    header = parse_header(data, Path("a.safetensors"))
    assert_harmless(*header.tensors)
    theirs = {name: (info["dtype"], tuple(info["shape"])) for name, info in deserialize(data)}
    assert theirs == {name: (info.dtype, info.shape) for name, info in header.tensors.items()}


def _with_length(data: bytes) -> bytes:
    """``data`` with the length that its header seems to have, where the length it states is not even near."""
    stated = int.from_bytes(data[:8], "little")
    end = data.rfind(b"}") + 1
    if end > 8 and not stated <= len(data) - 8:
        return (end - 8).to_bytes(8, "little") + data[8:]
    return data


def _lora(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    base = "lora_unet_double_blocks_0_img_attn_proj"
    return {
        f"{base}.lora_down.weight": torch.ones(2, 8),
        f"{base}.lora_up.weight": torch.ones(8, 2),
        f"{base}.alpha": torch.tensor(2.0),
        **more,
    }


def _lora_seeds() -> list[bytes]:
    base = "transformer.transformer_blocks.0.attn.to_out.0"
    diffusers = {f"{base}.lora_A.weight": torch.ones(2, 8), f"{base}.lora_B.weight": torch.ones(8, 2)}
    peft = {"lora_alpha": 4, "alpha_pattern": {"^transformer_blocks.0.attn.to_out.0": 8}, "use_dora": False}
    return [
        save(_lora()), save({name: tensor.half() for name, tensor in _lora().items()}),
        save(diffusers), save(diffusers, {"lora_adapter_metadata": json.dumps(peft)}),
        save(diffusers, {"lora_adapter_metadata": '{"lora_alpha": Infinity}'}),
        save({"lora_unet_single_blocks_3_linear1.lora_down.weight": torch.ones(1, 4),
              "lora_unet_single_blocks_3_linear1.lora_up.weight": torch.ones(28, 1)}),
    ]  # fmt: skip


def _load_lora(data: bytes) -> None:
    path = as_file(_with_length(data), "lora.safetensors")
    read_metadata(path)
    state, targets = load_lora(path)
    for target in targets:
        assert target.rank > 0 and abs(target.alpha) < float("inf") and abs(target.scale) < float("inf")
        assert f"{target.name}.lora_up.weight" in state
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def _detect_seeds() -> list[bytes]:
    flux = {
        "img_in.weight": torch.zeros(8, 4), "double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(4),
        "double_blocks.0.img_mlp.0.weight": torch.zeros(32, 8), "single_blocks.0.linear1.weight": torch.zeros(56, 8),
        "txt_in.weight": torch.zeros(8, 6), "vector_in.in_layer.weight": torch.zeros(8, 5),
        "final_layer.linear.weight": torch.zeros(4, 8), "guidance_in.in_layer.weight": torch.zeros(8, 2),
    }  # fmt: skip
    ae = {"encoder.conv_in.weight": torch.zeros(8, 3, 3, 3), "decoder.conv_in.weight": torch.zeros(8, 16, 3, 3),
          "encoder.down.0.block.0.conv1.weight": torch.zeros(8, 8, 3, 3)}  # fmt: skip
    clip = {"text_model.embeddings.token_embedding.weight": torch.zeros(9, 4),
            "text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(8, 4)}  # fmt: skip
    t5 = {"shared.weight": torch.zeros(9, 4), "encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(4, 4),
          "scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}  # fmt: skip
    params = {"params": json.dumps({"hidden_size": 8, "num_heads": 2, "axes_dim": [2, 2], "theta": 10_000})}
    return [save(part, params if part is flux else None) for part in (flux, ae, clip, t5)] + [save(_lora())]


def _detect(data: bytes) -> None:
    info = detect(as_file(_with_length(data), "model.safetensors"))
    json.dumps(info.to_dict())
    assert_harmless(info.note, info.kind, *info.missing)


@cache
def _states() -> Path:
    folder = scratch() / "state" / "step-00000003"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _state_seeds() -> list[bytes]:
    record = {
        "format": 2, "torch": "2", "identity": {"a": "b"}, "optimizer": {"class": "AdamW", "groups": [], "state": []},
        "place": {"step": 3, "epoch": 1, "index": 0, "loss_sum": 0.5, "elapsed_s": 1.0},
    }  # fmt: skip
    state = json.dumps(record).encode()
    lora, optimizer = save({"a.lora_down.weight": torch.zeros(2, 2)}), save({"a": torch.ones(3, dtype=torch.uint8)})
    return [b"S" + state, b"L" + lora, b"O" + optimizer, b"M" + _manifest(lora, optimizer, state)]


def _manifest(lora: bytes, optimizer: bytes, state: bytes) -> bytes:
    files = {"lora.safetensors": lora, "optimizer.safetensors": optimizer, "state.json": state}
    sums = {name: {"size": len(each), "sha256": hashlib.sha256(each).hexdigest()} for name, each in files.items()}
    return json.dumps(sums).encode()


def _state(data: bytes) -> None:
    """One file of a generation: those that the manifest covers get a checksum that holds."""
    kind, body = data[:1], data[1:]
    files = dict(zip(("lora.safetensors", "optimizer.safetensors", "state.json"), _whole_state(), strict=True))
    name = {b"S": "state.json", b"L": "lora.safetensors", b"O": "optimizer.safetensors"}.get(kind)
    if name is not None:
        files[name] = body
    for each, content in files.items():
        (_states() / each).write_bytes(content)
    (_states() / "MANIFEST.json").write_bytes(body if name is None else _manifest(*files.values()))
    state, remarks = load_newest(_states().parent)
    assert state is not None and not remarks
    assert type(state.place.step) is int and isinstance(state.identity, dict)


def _whole_state() -> tuple[bytes, bytes, bytes]:
    state, lora, optimizer, _ = _state_seeds()
    return lora[1:], optimizer[1:], state[1:]


@cache
def _optimizer() -> torch.optim.Optimizer:
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    parameter.sum().backward()
    optimizer.step()
    return optimizer


def _optimizer_seeds() -> list[bytes]:
    return [json.dumps(optimizer_tensors(_optimizer())[1]).encode()]


def _optimizer_state(data: bytes) -> None:
    tensors, _ = optimizer_tensors(_optimizer())
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(plain, dict):
        load_optimizer_state(_optimizer(), tensors, plain)


def _tokenizer_seeds() -> list[bytes]:
    from tokenizers import Tokenizer, models

    bpe = Tokenizer(models.BPE({"a": 0, "b</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}, []))
    unigram = Tokenizer(models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0)], 2))
    return [b"c" + bpe.to_str().encode(), b"t" + unigram.to_str().encode(), b"s" + _spiece(), b"v" + b'{"a": 0}']


def _spiece() -> bytes:
    pieces = (b"\x0a\x05<pad>", b"\x0a\x04</s>", b"\x0a\x05<unk>", b"\x0a\x01a\x15\x00\x00\x80\xbf")
    return b"".join(b"\x0a" + bytes([len(piece)]) + piece for piece in pieces) + b"\x1a\x02\x12\x00"


def _tokenizer(data: bytes) -> None:
    kind, body = data[:1], data[1:]
    folder = scratch() / "tokenizer"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    name = {b"c": "tokenizer.json", b"t": "tokenizer.json", b"s": "spiece.model"}.get(kind, "vocab.json")
    (folder / name).write_bytes(body)
    if name == "vocab.json":
        (folder / "merges.txt").write_bytes(body)
    weights = folder / "model.safetensors"
    if kind in (b"t", b"s"):
        find_t5_files(weights, folder, False)
        load_t5_tokenizer(weights, folder).count("a b")
    else:
        find_clip_files(weights, folder, False)
        load_clip_tokenizer(weights, folder).count("a b")


def _taken(data: bytes) -> None:
    taken, remark = read_taken(as_file(data, "memory.json"))
    assert_harmless(remark, *map(str, taken))


def _tracking(data: bytes) -> None:
    found = wandb_id(as_file(data, "tracking.json").parent)
    assert len(found) == 16 and int(found, 16) >= 0 and wandb_id(scratch()) == found


def _products(data: bytes) -> None:
    decided, remark = read_products(as_file(data, "products.json"), "int8", ["a"])
    assert (decided is None) == bool(remark)
    assert_harmless(remark)


def _skips(data: bytes) -> None:
    assert all(type(step) is int for step in read_skips(as_file(data, "faults.jsonl")))


def _record(data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    folder = scratch() / "records"
    folder.mkdir(exist_ok=True)
    path = folder / f"{digest[:16]}.json"
    path.write_bytes(data)
    try:
        load_record(folder, digest)
    finally:
        path.unlink()


def _record_seeds() -> list[bytes]:
    mark = PictureMark("ab", (1, 2, 3), 1, False, (1, 2, 3, 4), "cd")
    made = Record({"name": "cat"}, {"t5": ("t5.safetensors", "cd")}, {"1/a.png": mark}, {"torch": "2"})
    folder = scratch() / "made"
    digest = save_record(folder, made)
    return [(folder / f"{digest[:16]}.json").read_bytes()]


def _scorer(data: bytes) -> None:
    kind, look, body = data[:1], data[1:2], data[2:]
    folder = scratch() / "scorer"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").touch()
    plain = b'{"model_type": "clip"}' if kind == b"c" else b'{"model_type": "dinov2"}'
    (folder / "config.json").write_bytes(plain if look == b"p" else body)
    (folder / "preprocessor_config.json").write_bytes(body if look == b"p" else b"{}")
    found = clip_files(folder) if kind == b"c" else dino_files(folder)
    assert 1 <= found.look.crop <= found.look.shortest <= 8192 and min(found.look.std) > 0
    assert 1 <= found.patch_size <= found.image_size


TARGETS = (
    Target(
        "faults", _skips, (),
        lambda: [b'{"step": 3, "action": "skipped"}\n', b'{"step": 4, "action": "stopped", "back_to": 2}\n'],
        ("engine.training.faults.read_skips",),
    ),
    Target(
        "scorer", _scorer, (ModelFileError,),
        lambda: [
            b'cc{"model_type": "clip", "projection_dim": 8, "text_config": {}, "vision_config": '
            b'{"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_attention_heads": 2}}',
            b'dc{"model_type": "dinov2", "hidden_size": 16, "num_attention_heads": 2, "use_swiglu_ffn": true}',
            b'cp{"size": {"shortest_edge": 32}, "crop_size": {"height": 32}, "image_mean": [0.5, 0, 1]}',
        ],
        ("engine.models.scorer_files.clip_files", "engine.models.scorer_files.dino_files",
         "engine.models.scorer_files.read_description"),
        (b"cc" + b"[" * 100_000, b'cp{"image_std": [1e999, 1, 1], "crop_size": 32}',
         b'cc{"model_type": "clip", "projection_dim": {}}'),
    ),
    Target("record", _record, (), _record_seeds, ("engine.training.record.load_record",), (b"[" * 100_000,)),
    Target(
        "header", _header, (ModelFileError,), _safetensors_seeds,
        ("engine.models.header.parse_header", "engine.models.header.read_header"),
    ),
    Target(
        "lora", _load_lora, (ModelFileError,), _lora_seeds,
        ("engine.lora.formats.load_lora", "engine.lora.metadata.read_metadata", "engine.lora.layouts.from_kohya",
         "engine.lora.layouts.from_diffusers"),
    ),
    Target(
        "detect", _detect, (ModelFileError,), _detect_seeds,
        ("engine.models.detect.detect", "engine.models.parts.stated_params"),
    ),
    Target(
        "state", _state, (RunError,), _state_seeds,
        ("engine.training.checkpoint.load_newest", "engine.training.generations.read_newest",
         "engine.sealed.unsealed"),
        (b'S{"format": 2, "identity": {}, "optimizer": {}, "place": {"step": 1.5}}',
         b'S{"format": 2, "identity": [], "optimizer": {}, "place": []}', b"S" + b"[" * 100_000, b"L{}"),
    ),
    Target(
        "optimizer-state", _optimizer_state, (RunError,), _optimizer_seeds,
        ("engine.training.optimizer_state.load_optimizer_state",),
        (b'{"class": "AdamW", "groups": [{"settings": {}}], "state": [{}]}',
         b'{"class": "AdamW", "groups": [{"parameters": [4], "settings": {"a": {}}}], "state": [{}]}'),
    ),
    Target(
        "tokenizer", _tokenizer, (ModelFileError,), _tokenizer_seeds,
        ("engine.models.tokenizers.load_clip_tokenizer", "engine.models.tokenizers.load_t5_tokenizer",
         "engine.models.tokenizer_files.json_kind"),
        (b't{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,'
         b'"post_processor":null,"decoder":null,"model":{"type":"Unigram","vocab":[["<pad>",0.0],["</s>",0.0]]}}',),
    ),
    Target(
        "rungs", _taken, (), lambda: [b'{"taken": [{"step": 3, "setting": "offload", "before": "a", "after": ""}]}'],
        ("engine.memory.rungs.read_taken", "engine.config_memory.parse_rung"),
        (b'{"taken": [{"step": 1e999, "setting": "offload", "before": "a", "after": ""}]}',),
    ),
    Target(
        "tracking", _tracking, (), lambda: [b'{"wandb": "0123456789abcdef"}'], ("engine.training.trackers.wandb_id",),
    ),
    Target(
        "products", _products, (), lambda: [b'{"kind": "int8", "linears": {"a": [true, false]}}'],
        ("engine.training.products.read_products",),
        (b"[" * 100_000,),
    ),
)  # fmt: skip
